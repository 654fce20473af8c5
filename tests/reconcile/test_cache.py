"""What the operator remembers of a member's objects, and which of them belong to which object of the hub."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_operator.children.metadata import OWNER_UID_ANNOTATION, owner_uid
from prfaas_operator.clusters.cache import ObjectCache
from prfaas_operator.clusters.resources import POD

OWNERS = (None, "a", "b")


def pod(name, owner, version):
    annotations = {OWNER_UID_ANNOTATION: owner} if owner else {}
    return {
        "metadata": {
            "name": name, "uid": f"{name}-uid", "resourceVersion": str(version), "annotations": annotations,
            "managedFields": [{"manager": "somebody"}],
        }
    }  # fmt: skip


CHANGES = st.lists(
    st.tuples(st.sampled_from(("observe", "remove", "replace")), st.sampled_from("xyz"), st.sampled_from(OWNERS)),
    max_size=30,
)


@given(CHANGES)
def test_what_belongs_to_an_owner_is_what_carries_its_uid(changes):
    """Whatever comes and goes, also when a child changes its owner; who wrote its fields is not kept."""
    cache = ObjectCache(lambda *_: None)
    for version, (change, name, owner) in enumerate(changes, 1):
        match change:
            case "observe":
                cache.observe(POD, pod(name, owner, version))
            case "remove":
                cache.remove(POD, pod(name, owner, version))
            case "replace":
                cache.replace(POD, [pod(name, owner, version)])
        for uid in OWNERS[1:]:
            assert cache.owned(POD, uid) == [item for item in cache.all(POD) if owner_uid(item) == uid]
        assert all("managedFields" not in item["metadata"] for item in cache.all(POD))


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_version_changes_no_owner(version):
    """An answer that comes late, after the watch has told of something newer, is dropped."""
    cache = ObjectCache(lambda *_: None)
    cache.observe(POD, pod("x", "a", 2))
    cache.observe(POD, pod("x", "b", version))
    assert [item["metadata"]["name"] for item in cache.owned(POD, "a")] == ["x"]
    assert cache.owned(POD, "b") == []
