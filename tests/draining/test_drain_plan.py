"""Which workers go when a pool shrinks, and when: rules on made-up pods, then invariants on random ones and whole drains."""

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core.autoscaling.drain import Plan, Pod, Release, ReleaseReason, Settings, Stage, plan
from prfaas_core.errors import InvalidValueError

NOW_S = 10_000.0
SETTINGS = Settings(timeout_s=300, settle_s=2)


def ready(name: str, **more: object) -> Pod:
    return dataclasses.replace(Pod(name, Stage.READY, load=0.0, measured_s=NOW_S, idle_s=10.0), **more)


def busy(name: str, **more: object) -> Pod:
    return ready(name, **({"load": 3.0, "idle_s": 0.0} | more))


def step(pods: Sequence[Pod], replicas: int, desired: int, now_s: float = NOW_S) -> Plan:
    return plan(pods, replicas, desired, SETTINGS, now_s)


def test_nothing_happens_while_the_number_is_right() -> None:
    assert step([ready("a"), busy("b")], 2, 2) == Plan((), (), (), 2, (), None)


def test_the_one_that_was_idle_for_longest_goes_first() -> None:
    found = step([busy("a"), ready("b", idle_s=5.0), ready("c", idle_s=60.0)], 3, 2)
    assert (found.mark, found.release, found.replicas) == (("c",), (), 3)
    assert (found.draining, found.latest_s) == (("c",), NOW_S + 300)


def test_of_busy_ones_the_least_loaded_goes_and_what_is_unknown_goes_between() -> None:
    pods = [busy("a", load=5.0), busy("b", load=2.0), ready("c", load=None, idle_s=None), ready("d")]
    assert [step(pods, 4, desired).mark for desired in (3, 2, 1)] == [("d",), ("c", "d"), ("b", "c", "d")]


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (busy("x", marked_s=NOW_S - 299), None),
        (busy("x", marked_s=NOW_S - 300), ReleaseReason.TIMED_OUT),
        (ready("x", marked_s=NOW_S - 2), ReleaseReason.IDLE),
        # Measured before requests that were on their way could have come.
        (ready("x", marked_s=NOW_S - 1), None),
        (ready("x", marked_s=NOW_S - 9, measured_s=NOW_S - 8), None),
        (ready("x", marked_s=NOW_S - 9, load=None), None),
        (ready("x"), None),
        (Pod("x", Stage.PENDING, started=False), ReleaseReason.NOT_STARTED),
        # KV that is held makes a part of a unit of load.
        (ready("x", marked_s=NOW_S - 9, load=0.001), None),
    ],
)
def test_when_a_worker_may_go(pod: Pod, reason: ReleaseReason | None) -> None:
    found = step([pod], 1, 0)
    assert found.release == (() if reason is None else (Release("x", reason),))
    assert found.replicas == 1, "the number falls only when the release was seen"


def test_the_number_falls_by_those_whose_release_was_seen() -> None:
    pods = [busy("a", marked_s=NOW_S - 9), ready("b", marked_s=NOW_S - 9, released=True), busy("c")]
    assert step(pods, 3, 1).replicas == 2
    # The controller has not got round to deleting it: it counts no more, and nobody takes its place.
    again = step(pods, 2, 1)
    assert (again.replicas, again.mark, again.unmark, again.draining) == (2, (), (), ("a",))


def test_a_pod_that_the_controller_would_take_first_is_waited_for() -> None:
    """It deletes pods that are not ready before it looks at costs; this one still has requests."""
    pods = [busy("a", stage=Stage.NOT_READY), ready("b", marked_s=NOW_S - 9, released=True), busy("c")]
    found = step(pods, 3, 2)
    assert (found.draining, found.replicas) == (("b",), 3)
    assert step(pods, 3, 2, NOW_S + 300).replicas == 2, "the time of the mark is up"
    assert step([busy("a"), *pods[1:]], 3, 2).replicas == 2, "it is ready again"
    # One that is marked as well, and still busy, is waited for too.
    assert step([dataclasses.replace(pods[0], marked_s=NOW_S - 9), *pods[1:]], 3, 1).replicas == 3


def test_what_has_not_started_takes_the_place_of_what_drains() -> None:
    pods = [Pod("a", Stage.NOT_READY, started=False), busy("b", marked_s=NOW_S - 9), busy("c")]
    found = step(pods, 3, 2)
    assert (found.mark, found.unmark, found.release) == (("a",), ("b",), (Release("a", ReleaseReason.NOT_STARTED),))
    # Of those that run, one that is not ready goes before one that is, but not before one that drains.
    pods = [busy("a", stage=Stage.NOT_READY), ready("b"), busy("c", marked_s=NOW_S - 9)]
    assert [step(pods, 3, desired).draining for desired in (2, 1)] == [("c",), ("a", "c")]


def test_pods_that_do_not_exist_need_no_drain() -> None:
    assert step([busy("a"), busy("b")], 7, 2) == Plan((), (), (), 2, (), None)


def test_marks_are_taken_back_before_the_pool_grows() -> None:
    pods = [ready("a", marked_s=NOW_S - 9, released=True), busy("b", marked_s=NOW_S - 9), busy("c")]
    assert step(pods, 3, 4) == Plan((), ("a", "b"), (), 4, (), None)
    found = step(pods, 3, 2)
    assert (found.unmark, found.draining) == (("b",), ("a",))


def test_a_rollout_ends_before_anybody_goes_unless_the_time_is_up() -> None:
    old = [ready(name, outdated=True) for name in "ab"]
    pods = [*old, ready("n", idle_s=900.0)]
    found = step(pods, 2, 1)
    assert found.mark == ("a",), "what the rollout replaces anyway goes first, and the surplus pod is the rollout's"
    # A new one that starts is in nobody's way.
    assert step([*old, Pod("m", Stage.PENDING, started=False)], 2, 1).mark == ("a",)
    marked = [dataclasses.replace(old[0], marked_s=NOW_S - 99), old[1], pods[2]]
    assert step(marked, 2, 1).release == ()
    late = [dataclasses.replace(old[0], marked_s=NOW_S - 300), old[1], pods[2]]
    assert step(late, 2, 1).release == (Release("a", ReleaseReason.TIMED_OUT),)
    gone = [dataclasses.replace(late[0], released=True), old[1], pods[2]]
    assert step(gone, 2, 1).replicas == 1


@pytest.mark.parametrize(("replicas", "desired", "named"), [(-1, 0, "replicas"), (0, -1, "desired")])
def test_numbers_below_nought_are_refused(replicas: int, desired: int, named: str) -> None:
    with pytest.raises(InvalidValueError, match=named):
        step([], replicas, desired)


times_s = st.floats(NOW_S - 600, NOW_S)
marks = st.one_of(st.none(), times_s)
random_pods = st.lists(
    st.builds(
        Pod,
        name=st.integers(0, 40).map(lambda n: f"p{n:02}"),
        stage=st.sampled_from(Stage),
        started=st.booleans(),
        outdated=st.one_of(st.just(False), st.booleans()),
        marked_s=marks,
        released=st.booleans(),
        load=st.one_of(st.none(), st.sampled_from([0.0, 0.01, 1.0, 7.0])),
        measured_s=times_s,
        idle_s=st.one_of(st.none(), st.floats(0, 3600)),
    ),
    max_size=10,
    unique_by=lambda pod: pod.name,
)


@given(random_pods, st.integers(0, 12), st.integers(0, 12))
def test_invariants(pods: list[Pod], replicas: int, desired: int) -> None:
    by_name = {pod.name: pod for pod in pods}
    found = step(pods, replicas, desired)
    surplus = max(0, replicas - desired)
    # Never more than asked for, and never below what is wanted.
    assert len(found.draining) <= surplus
    assert min(replicas, desired) <= found.replicas <= max(replicas, desired)
    assert {item.name for item in found.release} | set(found.mark) <= set(found.draining)
    assert not set(found.unmark) & set(found.draining)
    # Nobody goes without a reason, and nobody is released twice.
    for item in found.release:
        pod = by_name[item.name]
        assert not pod.released
        assert not pod.started or (pod.marked_s is not None and (pod.load == 0 or NOW_S - pod.marked_s >= 300))
    # Those that exist fall only by released ones.
    released = sum(pod.released for pod in pods)
    missing = max(0, replicas - len(pods))
    assert found.replicas >= min(replicas, max(desired, replicas - missing - released))
    # No busy one gets a mark while an idle one that is as ready, and as new, keeps its place.
    for name in found.mark:
        for other in pods:
            stays = other.name not in found.draining and other.marked_s is None and not other.released
            pod = by_name[name]
            alike = (other.stage, other.outdated, other.started) == (pod.stage, pod.outdated, pod.started)
            if stays and alike and other.load == 0 and len(pods) <= replicas:
                assert not by_name[name].load, (name, other.name)
    if len(pods) > replicas:
        return  # which ones the controller is about to delete, the marks decide
    # Doing what it says, at the same moment, leaves nothing to mark or to take back.
    after = [
        dataclasses.replace(
            pod,
            marked_s=None if pod.name in found.unmark else NOW_S if pod.name in found.mark else pod.marked_s,
            released=(pod.released or pod.name in {item.name for item in found.release})
            and pod.name not in found.unmark,
        )
        for pod in pods
    ]
    again = step(after, replicas, desired)
    assert (again.mark, again.unmark, again.draining) == ((), (), found.draining)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=4),
)
def test_a_whole_drain_drops_nothing(work_s: list[int], changes: list[tuple[int, int]]) -> None:
    """Pods work on for so many seconds; the wanted number changes at random; the controller deletes by its own order."""
    pods = {f"p{n}": ready(f"p{n}") for n in range(len(work_s))}
    until_s = {name: NOW_S + seconds for name, seconds in zip(pods, work_s, strict=True)}
    replicas, desired, born = len(pods), len(pods), len(pods)
    wanted = [(NOW_S + at, number) for at, number in sorted(changes)] + [(NOW_S + 31, 1)]
    now_s = NOW_S
    while now_s < NOW_S + 120:
        while wanted and wanted[0][0] <= now_s:
            desired = wanted.pop(0)[1]
        for name, pod in pods.items():
            left_s = until_s[name] - now_s
            pods[name] = dataclasses.replace(pod, load=1.0 if left_s > 0 else 0.0, measured_s=now_s, idle_s=-left_s)
        found = plan(pods.values(), replicas, desired, SETTINGS, now_s)
        replicas = found.replicas
        for name in found.unmark:
            pods[name] = dataclasses.replace(pods[name], marked_s=None, released=False)
        for name in found.mark:
            pods[name] = dataclasses.replace(pods[name], marked_s=now_s)
        for item in found.release:
            pods[item.name] = dataclasses.replace(pods[item.name], released=True)
        for pod in sorted(pods.values(), key=lambda pod: not pod.released)[: max(0, len(pods) - replicas)]:
            assert until_s[pod.name] <= now_s, f"{pod.name} is deleted while it works"
            del pods[pod.name]
        while len(pods) < replicas:
            pods[f"p{born}"], until_s[f"p{born}"] = ready(f"p{born}"), now_s
            born += 1
        now_s += 1
    assert len(pods) == replicas == 1
    assert all(pod.marked_s is None and not pod.released for pod in pods.values())
