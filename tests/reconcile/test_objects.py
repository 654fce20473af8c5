"""The operator's store of the hub's objects, and what depends on what."""

from pathlib import Path

import pytest
import yaml

from prfaas_operator.objects import ObjectStore, Ref

MANIFESTS = Path(__file__).resolve().parents[2] / "e2e" / "manifests"
NAMESPACE = "prfaas-demo"


def stamped(body, version=1, uid=None):
    metadata = {
        **body["metadata"],
        "uid": uid or f"{body['kind']}/{body['metadata']['name']}",
        "resourceVersion": str(version),
    }
    return {**body, "metadata": metadata}


BODIES = [stamped(body) for path in sorted(MANIFESTS.glob("*.yaml")) for body in yaml.safe_load_all(path.read_text())]


@pytest.fixture
def store():
    found = ObjectStore()
    for body in BODIES:
        found.observe(body)
    return found


def ref(text):
    kind, _, name = text.partition("/")
    return Ref(kind, NAMESPACE, name)


@pytest.mark.parametrize(
    ("changed", "dependents"),
    [
        ("MemberCluster/west", {"PrefillPool/west-prefill", "KVLink/west-to-east", "InferenceRoute/chat"}),
        ("ModelProfile/case-study-h200", {"PrefillPool/west-prefill", "InferenceRoute/chat", "Budget/everything"}),
        ("PrefillPool/west-prefill", {"InferenceRoute/chat", "Budget/everything"}),
        ("DecodePool/east-decode", {"InferenceRoute/chat", "Budget/everything"}),
        ("KVLink/west-to-east", {"InferenceRoute/chat", "Budget/everything"}),
        ("InferenceRoute/chat", {"DecodePool/east-decode", "PrefillPool/east-prefill"}),
        ("MemberCluster/unknown", set()),
    ],
)
def test_what_depends_on_what(store, changed, dependents):
    """A change is followed to everything that is computed from it, and no further."""
    assert store.dependents(ref(changed)) == {ref(changed)} | {ref(other) for other in dependents}


def test_namespaces_are_apart(store):
    """An object of the same name in another namespace concerns nobody here."""
    assert store.dependents(Ref("MemberCluster", "other", "west")) == {Ref("MemberCluster", "other", "west")}


def test_only_news_are_taken():
    """Events arrive out of order and twice; an older version changes nothing."""
    store, body = ObjectStore(), BODIES[0]
    assert store.observe(stamped(body, 5)) is not None
    assert store.observe(stamped(body, 5)) is None
    assert store.observe(stamped(body, 4)) is None
    assert store.observe(stamped(body, 3, uid="next")) is not None, "another object of the same name"
    assert store.remove(stamped(body, 9)) is None, "the deletion of the one before"
    assert store.remove(stamped(body, 9, uid="next")) is not None


def test_the_dead_stay_dead():
    """The answer to the write that let an object go may come after the watch has said that it is gone."""
    store, body = ObjectStore(), BODIES[0]
    store.observe(stamped(body, 5))
    store.remove(stamped(body, 7))
    store.refresh(stamped(body, 6))
    assert store.get(Ref.of(body)) is None
    store.observe(stamped(body, 5))
    store.refresh(stamped(body, 6))
    assert store.get(Ref.of(body)).body["metadata"]["resourceVersion"] == "6"


def test_an_object_that_cannot_be_read_is_kept_with_its_fault(store):
    """What a later version of the API server let through is reported, not passed over."""
    body = stamped(BODIES[0], 9)
    body["spec"] = {"hub": "perhaps"}
    store.observe(body)
    found = store.get(Ref.of(body))
    assert found.model is None
    assert "hub" in found.fault
