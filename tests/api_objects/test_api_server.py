"""The CRDs on a real API server: what is accepted, refused with which words, defaulted, scaled and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prfaas_local.errors import LocalClusterError
from prfaas_operator import api

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

FOLDER = Path(__file__).parent
MANIFESTS = str(FOLDER.parents[1] / "e2e" / "manifests")
KINDS = {kind.__name__: kind for kind in api.KINDS}
REFUSED = yaml.safe_load((FOLDER / "refused.yaml").read_text())
IMMUTABLE = yaml.safe_load((FOLDER / "immutable.yaml").read_text())
NAMESPACE = "prfaas-demo"


@pytest.fixture(scope="module")
def demo(api_server: Any) -> Any:
    """The API server with e2e/manifests applied as a user would."""
    api_server.kubectl("create", "namespace", NAMESPACE)
    api_server.kubectl("apply", "--server-side", "--validate=strict", "-f", MANIFESTS)
    return api_server


def test_crds_are_established_and_structural(api_server: Any) -> None:
    for crd in json.loads(api_server.kubectl("get", "crd", "-o", "json"))["items"]:
        conditions = {found["type"]: found["status"] for found in crd["status"]["conditions"]}
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert "NonStructuralSchema" not in conditions


def test_applying_the_crds_twice_changes_nothing(api_server: Any) -> None:
    def versions() -> list[str]:
        found = json.loads(api_server.kubectl("get", "crd", "-o", "json"))["items"]
        return [crd["metadata"]["resourceVersion"] for crd in found]

    before = versions()
    api_server.kubectl("apply", "--server-side", "-f", str(FOLDER.parents[1] / "crds"))
    assert versions() == before


@pytest.mark.parametrize("side", ["client", "server"])
def test_applying_the_manifests_twice_changes_nothing(
    api_server: Any, namespace: str, tmp_path: Path, side: str
) -> None:
    text = "\n---\n".join(path.read_text() for path in sorted(Path(MANIFESTS).glob("*.yaml")))
    file = tmp_path / "all.yaml"
    file.write_text(text.replace(f"namespace: {NAMESPACE}", f"namespace: {namespace}"))
    apply = ("apply", f"--server-side={str(side == 'server').lower()}", "--validate=strict", "-f", str(file))

    def versions() -> list[str]:
        found = json.loads(api_server.kubectl("get", "prfaas", "-n", namespace, "-o", "json"))["items"]
        assert len(found) == 10
        return [item["metadata"]["resourceVersion"] for item in found]

    api_server.kubectl(*apply)
    before = versions()
    again = api_server.kubectl(*apply)
    assert versions() == before
    if side == "client":
        assert all(line.endswith(" unchanged") for line in again.splitlines())


def test_what_the_api_server_stores_is_what_the_models_read(demo: Any, manifests: dict[str, dict[str, Any]]) -> None:
    """Defaults come from the models, so both sides fill in the same."""
    items = json.loads(demo.kubectl("get", "prfaas", "-n", NAMESPACE, "-o", "json"))["items"]
    assert len(items) == len(manifests)
    for stored in items:
        given = manifests[f"{stored['kind']}/{stored['metadata']['name']}"]
        kind = KINDS[stored["kind"]]
        assert kind.read(stored).spec == kind.read(given).spec
        assert _without_empty(stored["spec"]) == _without_empty(kind.read(given).spec.as_object(exclude_unset=False))


def _without_empty(value: Any) -> Any:
    """Return `value` without the empty lists and objects, which the API server does not add."""
    if not isinstance(value, dict):
        return value
    found = {name: _without_empty(part) for name, part in value.items()}
    return {name: part for name, part in found.items() if part not in ({}, [], "")}


def test_get_prfaas_lists_every_kind(demo: Any) -> None:
    listed = demo.kubectl("get", "prfaas", "-n", NAMESPACE)
    for kind in api.KINDS:
        singular = kind.__name__.lower()
        assert f"{singular}.prfaas.dev/" in listed
        assert demo.kubectl("get", kind.definition.short_name, "-n", NAMESPACE, "-o", "name").startswith(singular)


@pytest.mark.parametrize(
    ("short", "header"),
    [
        ("mcl", "NAME REGION REACHABLE REASON VERSION PROBED AGE"),
        ("mprof", "NAME MODEL ENGINE ACCELERATOR READY REASON AGE"),
        ("pfp", "NAME CLUSTER DESIRED SERVING READY REASON AGE"),
        ("dcp", "NAME CLUSTER DESIRED SERVING READY REASON AGE"),
        ("kvl", "NAME FROM TO GBPS SHARE CAPACITY UTILISATION BANDWIDTH READY REASON AGE"),
        ("iroute", "NAME MODEL MODE THRESHOLD ROUTERS READY REASON AGE"),
    ],
)
def test_columns(demo: Any, short: str, header: str) -> None:
    assert demo.kubectl("get", short, "-n", NAMESPACE).splitlines()[0].split() == header.split()


def test_objects_are_selected_by_their_cluster(demo: Any) -> None:
    found = demo.kubectl("get", "pfp", "-n", NAMESPACE, "-o", "name", "--field-selector=spec.clusterRef.name=west")
    assert found.split() == ["prefillpool.prfaas.dev/west-prefill"]


def test_explain_describes_fields(demo: Any) -> None:
    assert "Never more workers than this." in demo.kubectl("explain", "pfp.spec.scaling.maxReplicas")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["id"])
def test_a_bad_object_is_refused_with_the_field_and_the_way_out(
    demo: Any,
    refused: type[Exception],
    case: dict[str, Any],
    patched: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    with pytest.raises(refused) as caught:
        demo.create(patched(case), "default", dry_run=True)
    assert case["message"] in str(caught.value)


@pytest.mark.parametrize("case", IMMUTABLE, ids=lambda case: case["message"].split(" cannot")[0])
def test_identity_cannot_change(demo: Any, refused: type[Exception], case: dict[str, Any]) -> None:
    kind, name = case["object"].split("/")
    with pytest.raises(refused) as caught:
        demo.patch(kind, name, case["patch"], NAMESPACE)
    assert case["message"] in str(caught.value)


def test_what_is_not_identity_can_change(api_server: Any, applied: str) -> None:
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("MemberCluster", "east", {"kubeconfigSecretRef": {"name": "renewed", "key": "kubeconfig"}, "region": "north"}),
        ("ModelProfile", "case-study-h20", {"decode": {"slots": 24}, "model": {"maxModelLenTokens": 65536}}),
        ("PrefillPool", "east-prefill", {"profileRef": {"name": "case-study-h200"}}),
        ("PrefillPool", "east-prefill", {"replicas": None, "scaling": {"maxReplicas": 3, "signals": [{"name": "PrefillQueueWait", "targetValue": 1}]}}),
        ("PrefillPool", "west-prefill", {"scaling": None, "replicas": 2}),
        ("KVLink", "west-to-east", {"capacityGbps": 0.1}),
        ("InferenceRoute", "chat", {"policy": {"threshold": 20000, "mode": "Shadow"}}),
    ]  # fmt: skip
    for kind, name, spec in changes:
        found = api_server.patch(kind, name, {"spec": spec}, applied)
        assert found["metadata"]["generation"] > 1
        KINDS[kind].read(found)


def test_scale_sets_a_fixed_number(api_server: Any, applied: str) -> None:
    api_server.kubectl("scale", "pfp/east-prefill", "--replicas=5", "-n", applied)
    scale = json.loads(
        api_server.kubectl(
            "get", "--raw", f"/apis/prfaas.dev/v1alpha1/namespaces/{applied}/prefillpools/east-prefill/scale"
        )
    )
    assert scale["spec"]["replicas"] == 5
    api_server.kubectl("scale", "prefillpool/east-prefill", "--replicas=0", "-n", applied)
    assert api_server.kubectl("get", "pfp/east-prefill", "-n", applied, "-o", "jsonpath={.spec.replicas}") == "0"


def test_scale_is_refused_where_prfaas_sizes_the_pool(api_server: Any, applied: str) -> None:
    with pytest.raises(LocalClusterError) as caught:
        api_server.kubectl("scale", "decodepool/east-decode", "--replicas=3", "-n", applied)
    assert "replicas 3 and scaling are both given" in str(caught.value)
    assert "change those, or remove scaling to set replicas" in str(caught.value)


def test_an_autoscaler_finds_selector_and_replicas(api_server: Any, applied: str) -> None:
    """What a HorizontalPodAutoscaler reads from the scale subresource."""
    status = {"replicas": 2, "readyReplicas": 2, "selector": "prfaas.dev/pool=east-prefill"}
    api_server.kubectl(
        "patch", "pfp/east-prefill", "-n", applied, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )  # fmt: skip
    path = f"/apis/prfaas.dev/v1alpha1/namespaces/{applied}/prefillpools/east-prefill/scale"
    scale = json.loads(api_server.kubectl("get", "--raw", path))
    assert scale["status"] == {"replicas": 2, "selector": "prfaas.dev/pool=east-prefill"}


def test_a_status_is_written_through_its_subresource_only(api_server: Any, applied: str) -> None:
    found = api_server.patch("KVLink", "west-to-east", {"status": {"bytesTotal": 1}}, applied)
    assert "status" not in found


def test_a_full_status_of_every_kind_is_accepted(api_server: Any, applied: str) -> None:
    now = "2026-01-02T03:04:05Z"
    ready = {
        "type": "Ready", "status": "False", "reason": "Pending", "message": "m", "observedGeneration": 1,
        "lastTransitionTime": now,
    }  # fmt: skip
    pool = {
        "replicas": 2000, "readyReplicas": 1, "updatedReplicas": 2, "desiredReplicas": 2, "selector": "a=b", "revision": "1a2b",
        "autoscaling": {
            "signals": [
                {
                    "name": "Query[1]", "query": "up", "value": 0.25, "targetValue": 1, "targetType": "Value", "guard": True,
                    "proposedReplicas": 2, "reason": "WithinTolerance", "message": "m",
                }
            ],
            "desiredReplicas": 2, "wantedReplicas": 2, "periodSeconds": 5, "lastScaleTime": now,
            "lastDecision": {"reason": "AboveTarget", "message": "m", "time": now},
            "decisions": [{"time": now, "fromReplicas": 1, "toReplicas": 2, "reason": "AboveTarget", "message": "m"}],
            "forecast": {"predictedReplicas": 3, "targetTime": now, "error": 0.1, "message": "m"},
        },
    }  # fmt: skip
    router = {"name": "chat-router-0", "cluster": "east", "version": 7, "acknowledged": False, "message": "no"}
    statuses: dict[str, dict[str, Any]] = {
        "MemberCluster/east": {"reachable": True, "version": "v1.36.3", "lastProbeTime": now},
        "ModelProfile/case-study-h20": {"kvFingerprint": "0" * 64},
        "PrefillPool/west-prefill": pool,
        "DecodePool/east-decode": pool,
        "KVLink/west-to-east": {
            "usedBps": 1e8, "utilisation": 1.5, "bytesTotal": 2**60, "costTotal": 12.5, "bandwidth": "Scarce",
            "capacity": {"state": "Slow", "usableBps": 9e7, "measuredBps": 1e8, "message": "m"},
        },
        "InferenceRoute/chat": {
            "thresholdTokens": 19400, "thresholdSource": "Computed", "thresholdWhy": "the link binds",
            "bandwidth": "Scarce", "predictedRequestsPerSecond": 3.24, "routersReady": "0/1",
            "configuration": {"version": 2**50, "routers": [router]},
            "roles": {
                "toDecode": -2, "lastConversionTime": now,
                "advice": {"toDecode": -1, "prefillReplicas": 3, "decodeReplicas": 4},
                "lastDecision": {"reason": "Converted", "message": "m", "time": now},
            },
            "plan": {
                "thresholdTokens": 19400, "localPrefill": 3, "decode": 5, "wantedLocalPrefill": 2, "wantedDecode": 6,
                "boundBy": "the link", "expectedRequestsPerSecond": 3.2, "expectedGain": 0.1, "measuredGain": -0.1,
                "measuredRequestsPerSecond": 2.5, "requestsPerSecondBefore": 2.7, "changedTime": now, "source": "Measured",
                "message": "m",
            },
        },
        "Budget/everything": {
            "pools": 3, "message": "m",
            "resources": [{"resource": "accelerators", "used": 64, "limit": 96}],
            "heldBack": [
                {"kind": "DecodePool", "name": "east-decode", "wantedReplicas": 5, "grantedReplicas": 4, "short": ["accelerators"]}
            ],
        },
    }  # fmt: skip
    assert {name.split("/")[0] for name in statuses} == KINDS.keys()
    for target, status in statuses.items():
        kind, name = target.split("/")
        whole = {"observedGeneration": 1, "conditions": [ready], **status}
        # Nothing is missing here that the model has.
        assert {
            field.alias for field in KINDS[kind].model_fields["status"].default.__class__.model_fields.values()
        } == whole.keys()
        api_server.kubectl(
            "patch", f"{kind}/{name}", "-n", applied, "--subresource=status", "--type=merge", "-p", json.dumps({"status": whole})
        )  # fmt: skip
        stored = json.loads(api_server.kubectl("get", f"{kind}/{name}", "-n", applied, "-o", "json"))
        assert stored["status"] == whole
        assert KINDS[kind].read(stored).status.as_object() == whole
        assert api_server.kubectl("get", f"{kind}/{name}", "-n", applied).splitlines()[1].count("Pending") == 1


# Values on the edges of what fields take. Whole floats are left out: JSON makes no difference between 1.0 and 1, and the
# models, stricter than the API server, do. What is put where does not matter: the two judges have to agree.
EDGES = st.sampled_from(
    [
        0, 1, 2, -1, 0.5, 1.5, 63, 64, 1000, 1001, 4096, 65535, 65536, 16_777_216, 16_777_217, 10**9, 10**13, 2**62, True, False,
        "", "a", "A", "-a", "a-", "a.b", "a b", "ä", "a\n", "auto", "Auto", "Query", "DecodeRequests", "PrefillQueueWait", "Sim",
        "Hybrid", "1%", "0%", "100%", "1e3%", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "fd00::/8", "FD00::/8",
        "::ffff:1.2.3.4/128", "1.2.3.4", "01.2.3.4", "fe80::1%eth0", "::1", "1.2.3", "a" * 63, "a" * 64, "a" * 254, "x" * 5000,
        [], {}, ["a"], {"name": "a"}, [{"name": "a"}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "image": "b"}], {"a": "b"}, {"a": 1},
        [{"tokens": 1, "seconds": 1}, {"tokens": 2, "seconds": 1}], [{"tokens": 2, "bytes": 1}, {"tokens": 1, "bytes": 1}],
        {"maxReplicas": 1, "signal": {"name": "Query", "query": "up", "targetValue": 1}}, {"http": 1, "kv": 1}, {"maxUnavailable": "50%"},
    ]
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for step, part in steps for found in ((*path, step), *_places(part, (*path, step)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_models_and_api_server_judge_alike(
    api_server: Any, refused: type[Exception], manifests: dict[str, dict[str, Any]], data: st.DataObject
) -> None:
    """One value of a complete object is replaced by one from the edges; both accept the result, or both refuse it."""
    name = data.draw(st.sampled_from(sorted(manifests)), label="object")
    kind = KINDS[name.split("/")[0]]
    spec = kind.read(manifests[name]).spec.as_object(exclude_unset=False)
    path = data.draw(st.sampled_from(_places(spec)), label="path")
    value = data.draw(EDGES, label="value")
    body = {**manifests[name], "spec": _replaced(spec, path, value)}
    try:
        kind.read(body)
        verdict = ""
    except ValidationError as error:
        verdict = api.explain(error)
    try:
        api_server.create(body, "default", dry_run=True)
        answer = ""
    except refused as error:
        answer = str(error)
    assert bool(verdict) == bool(answer), f"models: {verdict or 'accepted'}\nAPI server: {answer or 'accepted'}"
