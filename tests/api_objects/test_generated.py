"""The committed CRDs are those of the models, and structural in every part."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import Field

from prfaas_operator import api
from prfaas_operator.api import definitions
from prfaas_operator.api.model import Model
from prfaas_operator.api.structural import UnsupportedSchemaError, structural

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = {"$ref", "$defs", "const", "oneOf", "allOf", "not", "title", "nullable", "uniqueItems"}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_crds", REPOSITORY / "tools" / "generate_crds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}.{key}")


def test_committed_files_are_those_of_the_models(generator: ModuleType) -> None:
    for folder in ("crds", "charts/prfaas/crds"):
        committed = {path.name: path.read_bytes() for path in (REPOSITORY / folder).iterdir()}
        assert committed == generator.rendered(), f"{folder}: run `make generate`"
    assert generator.differences() == []


def test_stale_missing_and_left_over_files_are_found(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "FOLDERS", (tmp_path / "crds",))
    written = generator.generate()
    assert generator.differences() == []
    written[0].write_text("stale")
    written[1].unlink()
    (tmp_path / "crds" / "old.yaml").write_text("left over")
    assert len(generator.differences()) == 3
    generator.generate()
    assert generator.differences() == []
    assert not (tmp_path / "crds" / "old.yaml").exists()


@pytest.mark.parametrize("kind", api.KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_described_and_structural(kind: type[api.Resource]) -> None:
    schema = definitions.object_schema(kind)
    for path, node in nodes(schema, kind.__name__):
        assert not FORBIDDEN & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if path != f"{kind.__name__}.metadata" and not path.endswith((".additionalProperties", ".items")):
            description = node["description"]
            assert description[0].isupper(), path
            assert description.endswith("."), path


@pytest.mark.parametrize("kind", api.KINDS, ids=lambda kind: kind.__name__)
def test_everything_in_a_spec_is_bounded(kind: type[api.Resource]) -> None:
    """The API server refuses rules over unbounded values; bounds everywhere keep room for more rules."""
    spec = definitions.object_schema(kind)["properties"]["spec"]
    for path, node in nodes(spec, "spec"):
        if ".metadata." in path:  # labels and annotations of pods, which the member's API server bounds
            continue
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "integer" | "number":
                assert {"minimum", "maximum"} <= node.keys(), path
            case "array":
                assert "maxItems" in node, path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path


@pytest.mark.parametrize("kind", api.KINDS, ids=lambda kind: kind.__name__)
def test_a_crd_fits_the_annotation_of_client_side_apply(kind: type[api.Resource]) -> None:
    assert len(yaml.safe_dump(definitions.custom_resource_definition(kind))) < 262_144 / 4


def test_plurals_and_short_names_are_distinct() -> None:
    names = [name for kind in api.KINDS for name in (kind.definition.plural, kind.definition.short_name)]
    assert len(names) == len(set(names))


class Nameless(Model):
    field: int


class Either(Model):
    field: int | str
    """A number or a text."""


class Multiple(Model):
    field: int = Field(multiple_of=3)
    """A multiple of three."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Nameless, "Thing.field: has no description"),
        (Either, "Thing.field: a field of several types"),
        (Multiple, "Thing.field: multipleOf cannot be said"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[Model], message: str) -> None:
    with pytest.raises(UnsupportedSchemaError, match=message):
        structural(model.model_json_schema(), {}, "Thing")
