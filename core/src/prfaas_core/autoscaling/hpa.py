"""What a HorizontalPodAutoscaler would do with External metrics: the yardstick for `decide`, fed with the same readings.

Source: "Horizontal Pod Autoscaling" of the Kubernetes documentation, algorithm details and configurable scaling behavior, and
where that leaves things open `pkg/controller/podautoscaler` of Kubernetes 1.36 (`horizontal.go`, `replica_calculator.go`).
A test compares this module with the controller itself.

It keeps what the controller does also where `decide` does otherwise: values have no age, a quantile over pods that start asks for
more at every sync, a mean over no ready pods asks for none, and a workload never goes to no replicas, but stays there if somebody
else took it there (`HPAScaleToZero` is off by default).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from prfaas_core.autoscaling.observed import Observed, Reading
from prfaas_core.autoscaling.pace import Change, Recommendation, limited, longest_s, stabilized
from prfaas_core.autoscaling.settings import DOWN, UP, Settings, TargetType

SYNC_PERIOD_S = 15.0
"""`--horizontal-pod-autoscaler-sync-period`."""
_TOLERANCE = 0.1
_DOWNSCALE_WINDOW_S = 300.0
_MOST_PODS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class HpaHistory:
    """What the controller remembers of a workload; the empty one is that of a controller that just started.

    Attributes:
        recommendations: None until the first sync.
    """

    recommendations: tuple[Recommendation, ...] | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class HpaDecision:
    """What the controller sets.

    Attributes:
        wanted: what the metrics ask for, before stabilisation, rate and bounds; None when they decided nothing.
    """

    replicas: int
    wanted: int | None
    history: HpaHistory
    next_look_s: float


def sync(
    observed: Observed,
    settings: Settings,
    history: HpaHistory,
    now_s: float,
    *,
    behavior: bool = True,
    status_replicas: int | None = None,
) -> HpaDecision:
    """Return what one sync of the controller does.

    Args:
        observed: its readings are the metrics; floors, ceilings and demand are not the controller's.
        settings: bounds, `up` and `down`; the controller knows nothing of the rest.
        history: of the sync before.
        now_s: a clock in seconds that does not go back.
        behavior: whether `spec.behavior` is set. Without it `up` and `down` do not count: it grows to twice the pods or to
            four a sync, and shrinks to the highest recommendation of five minutes.
        status_replicas: pods that exist; None: as many as are asked for.
    """
    pods = observed.replicas if status_replicas is None else status_replicas
    if history.recommendations is None:
        history = replace(history, recommendations=(Recommendation(now_s, observed.replicas),))
    if observed.replicas == 0:
        return _set(0, None, observed, history, now_s, settings)
    if observed.replicas > settings.max_replicas:
        return _set(settings.max_replicas, None, observed, history, now_s, settings)
    least = max(settings.min_replicas, 1)
    if observed.replicas < least:
        return _set(least, None, observed, history, now_s, settings)
    rules = settings if behavior else _without_behavior(settings)
    proposals = [_proposed(reading, observed, pods, rules) for reading in observed.readings]
    known = [found for found in proposals if found is not None]
    # The missing-metric rule: what is left may make the pool grow, and not shrink.
    if not known or (len(known) < len(proposals) and max(known) < observed.replicas):
        return _set(observed.replicas, None, observed, history, now_s, settings)
    wanted = max(0, *known)
    before = history.recommendations or ()
    if behavior:
        paced = stabilized(observed.replicas, wanted, before, settings, now_s)
        paced = limited(observed.replicas, paced, history.changes, settings, now_s)
        replicas = min(max(paced, least), settings.max_replicas)
    else:
        recent = (entry.replicas for entry in before if now_s - entry.at_s <= _DOWNSCALE_WINDOW_S)
        most = min(settings.max_replicas, max(2 * observed.replicas, 4))
        replicas = min(max(wanted, *recent, least), most)
    windows_s = longest_s(rules)[0]
    kept = tuple(entry for entry in before if now_s - entry.at_s <= windows_s)
    history = replace(history, recommendations=(*kept, Recommendation(now_s, wanted)))
    return _set(replicas, wanted, observed, history, now_s, settings)


def _without_behavior(settings: Settings) -> Settings:
    return replace(settings, up=replace(UP, tolerance=_TOLERANCE), down=replace(DOWN, window_s=_DOWNSCALE_WINDOW_S))


def _proposed(reading: Reading, observed: Observed, pods: int, settings: Settings) -> int | None:
    """Return the replicas that one metric asks for; None when it has no value, or a ratio cannot be applied."""
    if reading.value is None or not math.isfinite(reading.value):
        return None
    usage, target = _thousandths(reading.value), _thousandths(reading.target)
    if reading.target_type is TargetType.AVERAGE_VALUE:
        if pods > 0 and _within(usage / (target * pods), settings):
            return pods
        return min(math.ceil(usage / target), _MOST_PODS)
    ratio = usage / target
    if _within(ratio, settings):
        return observed.replicas
    # Without any pod there is nothing to multiply; pods that are not ready count as none.
    return min(math.ceil(ratio * observed.ready_replicas), _MOST_PODS) if pods > 0 else None


def _within(ratio: float, settings: Settings) -> bool:
    return 1 - settings.down.tolerance <= ratio <= 1 + settings.up.tolerance


def _thousandths(value: float) -> int:
    # The metrics API carries quantities, of which the controller takes thousandths, rounded up.
    return math.ceil(value * 1000 - 1e-6)


def _set(
    replicas: int, wanted: int | None, observed: Observed, history: HpaHistory, now_s: float, settings: Settings
) -> HpaDecision:
    periods_s = longest_s(settings)[1]
    changes = tuple(change for change in history.changes if now_s - change.at_s < periods_s)
    if replicas != observed.replicas:
        changes = (*changes, Change(now_s, replicas - observed.replicas))
    return HpaDecision(replicas, wanted, replace(history, changes=changes), now_s + SYNC_PERIOD_S)
