"""Which workers go when a pool gets smaller, and when each of them may.

A worker that is to go first gets a mark: routers send it nothing more. It goes when it is idle, or when its time is up. Idle
means that a measurement taken after the mark shows nothing that runs, nothing that waits, and no KV that is still to be
fetched. Without such a measurement nobody counts as idle.

Pods that a rollout replaces anyway go first; then those in which nothing has started; then what is marked already, so that
nobody's drain is given up half way; then those that are not ready; then the workers that were idle for longest; then those with
the least load. When a pool is to grow again, marks are taken back before pods are added.

The ReplicaSet controller picks pods by its own order: not scheduled, pending, not ready, and only among pods that are alike in
these the lowest deletion cost. So the number of replicas falls only as far as the pods that come first in that order are the
ones that may go. While a rollout replaces pods, two ReplicaSets share the number and nobody can say which pod would go, so that
nobody is let go for being idle. The time of a mark ends either wait.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prfaas_core import errors


class Stage(enum.IntEnum):
    """How far a pod is, in the order in which the ReplicaSet controller deletes."""

    UNSCHEDULED = 0
    PENDING = 1
    NOT_READY = 2
    READY = 3


@dataclass(frozen=True, slots=True)
class Pod:
    """A worker that is not being deleted.

    Attributes:
        started: whether a process runs in it that could have begun a request.
        outdated: whether it is of an earlier template.
        marked_s: when it got its mark; None without one.
        released: whether it carries the lowest deletion cost.
        load: what runs, waits, or is held for others, 0 when nothing; None when it was not measured.
        measured_s: when `load` was true.
        idle_s: for how long it has had nothing to do; None when that is not known.
    """

    name: str
    stage: Stage
    started: bool = True
    outdated: bool = False
    marked_s: float | None = None
    released: bool = False
    load: float | None = None
    measured_s: float = -math.inf
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How long a drain may take.

    Attributes:
        timeout_s: from the mark until a worker goes whatever it does.
        settle_s: how long after a mark requests may still be on their way to the worker.
    """

    timeout_s: float = 300.0
    settle_s: float = 2.0

    def __post_init__(self) -> None:
        errors.non_negative("drain.timeoutSeconds", self.timeout_s)
        errors.non_negative("settle_s", self.settle_s)


class ReleaseReason(enum.StrEnum):
    """Why a worker may go."""

    IDLE = "Idle"
    NOT_STARTED = "NotStarted"
    TIMED_OUT = "TimedOut"


@dataclass(frozen=True, slots=True)
class Release:
    """A worker that may go."""

    name: str
    reason: ReleaseReason


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        mark: pods to mark; those in `release` that have no mark get theirs there.
        unmark: pods that stay after all.
        release: pods to give the lowest deletion cost.
        replicas: what the workload may be set to: pods that were seen to be released are no longer counted.
        draining: pods that have still to go, by name.
        latest_s: when the time of the last of them is up; None when nobody drains.
    """

    mark: tuple[str, ...]
    unmark: tuple[str, ...]
    release: tuple[Release, ...]
    replicas: int
    draining: tuple[str, ...]
    latest_s: float | None


def plan(pods: Iterable[Pod], replicas: int, desired: int, settings: Settings, now_s: float) -> Plan:
    """Return the next step from `replicas`, what the workload is set to, towards `desired`.

    Args:
        now_s: on the clock of `marked_s` and `measured_s`.
    """
    errors.count("replicas", replicas)
    errors.count("desired", desired)
    order = sorted(pods, key=_deletion_order)
    rolling_out = any(pod.outdated for pod in order)
    # Pods that the controller has not got round to deleting. A rollout has a pod more than it should while it goes on.
    going = max(0, len(order) - replicas - rolling_out)
    staying = order[going:]
    missing = max(0, replicas - len(staying))
    victims = sorted(staying, key=_preference)[: max(0, replicas - desired - missing)]
    names = {pod.name for pod in victims}
    release = tuple(
        Release(pod.name, reason)
        for pod in victims
        if not pod.released and (reason := _release(pod, settings, now_s, rolling_out)) is not None
    )
    leaving = _leaving(staying, names, settings, now_s, rolling_out)
    return Plan(
        mark=_names(pod for pod in victims if pod.marked_s is None),
        unmark=_names(pod for pod in staying if (pod.released or pod.marked_s is not None) and pod.name not in names),
        release=tuple(sorted(release, key=lambda item: item.name)),
        replicas=max(desired, replicas - missing - leaving),
        draining=tuple(sorted(names)),
        latest_s=max((_marked_s(pod, now_s) + settings.timeout_s for pod in victims), default=None),
    )


def _deletion_order(pod: Pod) -> tuple[object, ...]:
    return pod.stage, not pod.released, pod.marked_s is None, pod.name


def _preference(pod: Pod) -> tuple[object, ...]:
    """Return what sorts the pods that should go to the front."""
    busy = 1 if pod.load is None else 2 if pod.load > 0 else 0
    load = math.inf if pod.load is None else pod.load
    marks = (not pod.released, pod.marked_s is None)
    return not pod.outdated, pod.started, *marks, pod.stage, busy, -(pod.idle_s or 0.0), load, pod.name


def _release(pod: Pod, settings: Settings, now_s: float, rolling_out: bool) -> ReleaseReason | None:
    """Return why a pod may go, or None while it may not."""
    if not pod.started:
        return ReleaseReason.NOT_STARTED
    if _is_late(pod, settings, now_s):
        return ReleaseReason.TIMED_OUT
    if rolling_out or pod.marked_s is None or pod.load != 0 or pod.measured_s < pod.marked_s + settings.settle_s:
        return None
    return ReleaseReason.IDLE


def _leaving(staying: Sequence[Pod], victims: set[str], settings: Settings, now_s: float, rolling_out: bool) -> int:
    """Return how many pods the number of replicas may fall by now."""
    released = [pod for pod in staying if pod.released and pod.name in victims]
    if rolling_out:
        return len(released)
    late = sum(_is_late(pod, settings, now_s) for pod in released)
    first = next((at for at, pod in enumerate(staying) if not pod.released or pod.name not in victims), len(staying))
    return max(first, late)


def _is_late(pod: Pod, settings: Settings, now_s: float) -> bool:
    return pod.marked_s is not None and now_s - pod.marked_s >= settings.timeout_s


def _marked_s(pod: Pod, now_s: float) -> float:
    return now_s if pod.marked_s is None else pod.marked_s


def _names(pods: Iterable[Pod]) -> tuple[str, ...]:
    return tuple(sorted(pod.name for pod in pods))
