"""The manifests are the same on kind, but for addresses that only this machine's processes have."""

import copy
import itertools
from pathlib import Path
from typing import Any

import yaml

from prfaas_cli.manifests import Manifests
from prfaas_cli.providers import IMAGES

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = Manifests.load(REPOSITORY / "e2e" / "manifests")


def images(value: Any) -> set[str]:
    """Return what is under a key `image`, at any depth."""
    if isinstance(value, list):
        return set(itertools.chain.from_iterable(map(images, value)))
    if not isinstance(value, dict):
        return set()
    own = {value["image"]} if isinstance(value.get("image"), str) else set()
    return own.union(*map(images, value.values()))


def test_translation_and_chosen_addresses_are_left_out_and_nothing_else() -> None:
    before = copy.deepcopy(MANIFESTS.objects)
    adapted = MANIFESTS.with_plain_addresses()
    assert MANIFESTS.objects == before
    wanted = copy.deepcopy(before)
    for item in wanted:
        if item["kind"] == "KVLink":
            assert item["spec"].pop("addressTranslation")["translatedCIDR"] == "127.130.0.0/16"
        if item["kind"] == "InferenceRoute":
            assert item["spec"]["router"]["service"].pop("clusterIP") == "127.21.1.1"
    assert adapted.objects == wanted
    assert "127." not in yaml.safe_dump_all(adapted.objects)


def test_objects_without_those_fields_stay_as_they_are() -> None:
    plain = MANIFESTS.with_plain_addresses()
    for item in plain.of_kind("InferenceRoute"):
        del item["spec"]["router"]
    assert plain.with_plain_addresses() == plain


def test_what_is_written_is_read_again_in_the_same_order(tmp_path: Path) -> None:
    written = MANIFESTS.with_plain_addresses().written(tmp_path / "manifests")
    assert Manifests.load(written.folder) == written
    assert [item["kind"] for item in written.objects] == [item["kind"] for item in MANIFESTS.objects]


def test_every_image_of_manifests_and_chart_is_built_from_a_dockerfile_that_is_there() -> None:
    built = set(itertools.chain.from_iterable(image.references for image in IMAGES))
    version = yaml.safe_load((REPOSITORY / "charts/prfaas/Chart.yaml").read_text())["appVersion"]
    operator = yaml.safe_load((REPOSITORY / "charts/prfaas/values.yaml").read_text())["image"]["repository"]
    assert images(list(MANIFESTS.objects)) | {f"{operator}:{version}"} <= built
    assert all((REPOSITORY / image.dockerfile).is_file() for image in IMAGES)
