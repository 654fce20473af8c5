"""The models read what the API server accepts and say what is wrong about the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from prfaas_core import compatibility, profiles
from prfaas_operator import api
from prfaas_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason, condition, merged

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
KINDS = {kind.__name__: kind for kind in api.KINDS}
REFUSED = yaml.safe_load((FOLDER / "refused.yaml").read_text())
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def read(body: dict[str, Any]) -> api.Resource:
    return KINDS[body["kind"]].read(body)


def test_every_manifest_is_read_and_given_back_as_it_was(manifests: dict[str, dict[str, Any]]) -> None:
    assert {body["kind"] for body in manifests.values()} == KINDS.keys()
    for body in manifests.values():
        assert read(body).as_object() == body


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["id"])
def test_a_bad_object_is_refused_with_the_field_and_the_way_out(
    case: dict[str, Any], patched: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with pytest.raises(ValidationError) as caught:
        read(patched(case))
    assert case.get("python", case["message"]) in api.explain(caught.value)


def test_names_of_python_are_no_names_of_the_api(manifests: dict[str, dict[str, Any]]) -> None:
    body = manifests["KVLink/west-to-east"]
    body["spec"]["cost_per_gb"] = body["spec"].pop("costPerGB")
    with pytest.raises(ValidationError, match="Extra inputs"):
        read(body)


def test_unknown_fields_of_a_pod_template_are_kept(manifests: dict[str, dict[str, Any]]) -> None:
    body = manifests["PrefillPool/east-prefill"]
    template = body["spec"]["template"]
    template["metadata"] = {"labels": {"team": "a"}, "name": "x"}
    template["spec"]["nodeSelector"] = {"gpu": "h20"}
    template["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 8, "memory": "1Gi"}}
    assert api.PrefillPool.read(body).spec.template.as_object() == template


def test_a_status_of_a_newer_operator_is_read(manifests: dict[str, dict[str, Any]]) -> None:
    body = manifests["PrefillPool/east-prefill"]
    body["status"] = {"replicas": 1, "decisions": [], "conditions": []}
    assert api.PrefillPool.read(body).status.replicas == 1


def test_a_profile_that_the_api_accepts_is_one_that_the_core_reads(manifests: dict[str, dict[str, Any]]) -> None:
    for name in ("ModelProfile/case-study-h20", "ModelProfile/case-study-h200"):
        body = manifests[name]
        del body["spec"]["prefixCache"], body["spec"]["model"]["bytesPerToken"]
        spec = api.ModelProfile.read(body).spec
        core = profiles.Profile.from_spec(body["spec"])
        # Left out fields have the same defaults in both.
        assert core == profiles.Profile.from_spec(spec.as_object(exclude_unset=False))
        assert compatibility.kv_fingerprint(body["spec"]) == compatibility.kv_fingerprint(spec.as_object())


def test_yaml_of_the_documentation_is_valid() -> None:
    found = 0
    for path in [*REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("charts/*/README.md"), REPOSITORY / "README.md"]:
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL):
            for body in yaml.safe_load_all(block):
                if isinstance(body, dict) and body.get("apiVersion") == api.API_VERSION:
                    read(body)
                    found += 1
    assert found >= 1


def _condition(status: bool | None, now: datetime, message: str = "") -> Condition:
    return condition(ConditionType.READY, status, Reason.AVAILABLE, message, generation=1, now=now)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    later = NOW + timedelta(minutes=5)
    old = (_condition(True, NOW, "first"),)
    (same,) = merged(old, (_condition(True, later, "second"),))
    assert (same.last_transition_time, same.message) == (NOW.replace(microsecond=0), "second")
    (changed,) = merged(old, (_condition(None, later),))
    assert changed.status is ConditionStatus.UNKNOWN
    assert changed.last_transition_time == later.replace(microsecond=0)
    (fresh,) = merged((), (_condition(False, later),))
    assert fresh.last_transition_time == later.replace(microsecond=0)


def test_a_condition_is_written_as_kubernetes_writes_them() -> None:
    assert _condition(True, NOW, "m").as_object() == {
        "type": "Ready",
        "status": "True",
        "reason": "Available",
        "message": "m",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
