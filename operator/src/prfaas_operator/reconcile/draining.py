"""Workers on their way out of a pool that got smaller: what is known of them, what to do next, and doing it.

Everything that has to last stands in the pods' annotations: since when a worker drains, and that it may go. So another operator
goes on where this one stopped, and a cluster that is away for a while changes nothing. `prfaas_core.autoscaling.drain` decides.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from prfaas_core.autoscaling import drain
from prfaas_operator import api
from prfaas_operator.children.metadata import DRAINING_ANNOTATION, REVISION_LABEL, SERVING_LABEL, owner_uid
from prfaas_operator.clusters.api import ApiError
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import DEPLOYMENT, POD
from prfaas_operator.events import EventType
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.children import connected, explained
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.scaling import idleness
from prfaas_operator.scaling.queries import Workers

COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
# The lowest that there is for a worker that may go. One that drains is cheaper than the others, so that a ReplicaSet that
# shrinks for another reason, as the old one of a rollout does, takes it first.
RELEASED_COST = str(-(2**31))
DRAINING_COST = str(-(2**30))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drain:
    """The workers of a pool that are to go, and the step that comes next.

    Attributes:
        replicas: what the Deployment may be set to.
        names: workers that have still to go.
        usable: workers that are ready and stay; None when nobody knows.
        latest: when the last of them goes at the latest.
        fault: why nobody knows which of them are idle; empty if that is known.
        usual_cost, serving: the deletion cost, and the label for Services, of pods that do not drain, by their template.
    """

    replicas: int
    names: tuple[str, ...] = ()
    usable: int | None = None
    latest: datetime | None = None
    fault: str = ""
    plan: drain.Plan | None = None
    pods: Mapping[str, Mapping[str, Any]] | None = None
    usual_cost: str | None = None
    serving: str | None = None

    @property
    def message(self) -> str:
        """What people should know; empty when nobody drains."""
        if not self.names or self.latest is None:
            return f"the pool keeps {self.replicas}: {self.fault}" if self.fault else ""
        workers = "1 worker drains" if len(self.names) == 1 else f"{len(self.names)} workers drain"
        text = f"{workers}, until {self.latest:%H:%M:%S} UTC at the latest"
        return f"{text}; which are idle is not known: {self.fault}" if self.fault else text


def active_pods(member: Member, stored: Stored) -> dict[str, dict[str, Any]]:
    """Return the pods of a pool that are neither at their end nor being deleted, by name."""
    return {
        pod["metadata"]["name"]: pod
        for pod in member.cache.owned(POD, stored.uid)
        if "deletionTimestamp" not in pod["metadata"]
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    }


def drains(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod gets no new work because it is to go."""
    return DRAINING_ANNOTATION in (pod["metadata"].get("annotations") or {})


def is_ready(pod: Mapping[str, Any]) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in (pod.get("status") or {}).get("conditions", ())
    )


def ready_draining(member: Member, stored: Stored) -> int:
    """Return how many ready workers of a pool get no new work."""
    return sum(drains(pod) and is_ready(pod) for pod in active_pods(member, stored).values())


def ready_since(member: Member, stored: Stored, since: datetime) -> int:
    """Return how many workers of a pool that get new work have been ready since then."""
    return sum(
        not drains(pod)
        and any(
            condition["type"] == "Ready"
            and condition["status"] == "True"
            and datetime.fromisoformat(condition["lastTransitionTime"]) <= since
            for condition in (pod.get("status") or {}).get("conditions", ())
        )
        for pod in active_pods(member, stored).values()
    )


def next_step(
    context: Context, stored: Stored, model: api.Pool, member: Member, workers: Workers, desired: int, revision: str
) -> Drain:
    """Return the step from the workers that there are to the desired number. `revision` is that of the wanted template."""
    deployment = member.cache.get(DEPLOYMENT, stored.ref.name)
    replicas = int(deployment["spec"].get("replicas", 1)) if deployment is not None else desired
    if not member.cache.listed((POD, DEPLOYMENT)):
        # Who could go is not known; growing needs no such knowledge.
        before = replicas if deployment is not None else model.status.desired_replicas or 0
        fault = "the pods cannot be listed, so nobody knows who could go" if before > desired else ""
        return Drain(max(desired, before), fault=fault)
    bodies = active_pods(member, stored)
    if deployment is None or owner_uid(deployment) != stored.uid:
        return Drain(desired)
    reading = None
    if replicas > desired:
        reading = context.idleness.watch(stored.ref, workers)
        if reading is None:
            return Drain(replicas)  # it is asked, and then the pool is looked at again
    else:
        context.idleness.forget(stored.ref)
    work = reading.work if reading is not None else {}
    pods = [observed(body, work.get(name), revision) for name, body in bodies.items()]
    settings = drain.Settings(timeout_s=model.spec.drain.timeout_seconds)
    plan = drain.plan(pods, replicas, desired, settings, now().timestamp())
    template = deployment["spec"]["template"]["metadata"]
    return Drain(
        replicas=plan.replicas,
        names=plan.draining,
        usable=sum(is_ready(body) for name, body in bodies.items() if name not in plan.draining),
        latest=datetime.fromtimestamp(plan.latest_s, UTC) if plan.latest_s is not None else None,
        fault=reading.fault if reading is not None and plan.draining else "",
        plan=plan,
        pods=bodies,
        usual_cost=(template.get("annotations") or {}).get(COST_ANNOTATION),
        serving=(template.get("labels") or {}).get(SERVING_LABEL),
    )


def observed(body: Mapping[str, Any], work: idleness.Work | None, revision: str) -> drain.Pod:
    """Return a pod as the plan sees it."""
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    stage = drain.Stage.READY
    if not is_ready(body):
        stage = drain.Stage.NOT_READY if status.get("phase") == "Running" else drain.Stage.PENDING
        if stage is drain.Stage.PENDING and not body["spec"].get("nodeName"):
            stage = drain.Stage.UNSCHEDULED
    pod = drain.Pod(
        name=metadata["name"],
        stage=stage,
        started=stage is drain.Stage.READY or _started(body),
        outdated=(metadata.get("labels") or {}).get(REVISION_LABEL) != revision,
        marked_s=_time_s(annotations[DRAINING_ANNOTATION]) if drains(body) else None,
        released=annotations.get(COST_ANNOTATION) == RELEASED_COST,
    )
    if work is None:
        return pod
    return drain.Pod(
        pod.name, pod.stage, pod.started, pod.outdated, pod.marked_s, pod.released,
        load=work.load, measured_s=work.measured_s, idle_s=work.idle_s,
    )  # fmt: skip


async def take(context: Context, stored: Stored, member: Member, step: Drain) -> None:
    """Write the marks of a step onto the pods. The watch brings them back, and with them the next step.

    Raises `ChildError` for the first one that could not be written.
    """
    plan, bodies = step.plan, step.pods
    context.metrics.draining.labels(stored.ref.namespace, stored.ref.kind, stored.ref.name).set(len(step.names))
    if plan is None or bodies is None:
        return
    began = now().isoformat(timespec="milliseconds")
    changes: dict[str, _Change] = {}
    for name in plan.mark:
        changes[name] = _Change({DRAINING_ANNOTATION: began, COST_ANNOTATION: DRAINING_COST}, {SERVING_LABEL: None})
    for name in plan.unmark:
        changes[name] = _Change(
            {DRAINING_ANNOTATION: None, COST_ANNOTATION: step.usual_cost}, {SERVING_LABEL: step.serving}
        )
    for release in plan.release:
        change = changes.setdefault(release.name, _Change({}, {}))
        change.annotations[COST_ANNOTATION] = RELEASED_COST
    if not changes:
        return
    log = _log.bind(pool=str(stored.ref), cluster=member.name)
    if plan.mark:
        log.info("workers drain", pods=list(plan.mark), until=str(step.latest))
    if plan.unmark:
        log.info("workers stay after all", pods=list(plan.unmark))
    for release in plan.release:
        log.info("a worker may go", pod=release.name, reason=release.reason)
        if release.reason is drain.ReleaseReason.TIMED_OUT:
            context.events.record(
                stored, EventType.WARNING, "DrainTimedOut",
                f"{release.name} goes although it is not known to be idle: its drain has had its time",
            )  # fmt: skip
    results = await asyncio.gather(
        *(_write(member, bodies[name], change) for name, change in changes.items()), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


@dataclass(frozen=True, slots=True)
class _Change:
    """Annotations and labels to set, and with None to remove."""

    annotations: dict[str, str | None]
    labels: dict[str, str | None]


async def _write(member: Member, body: Mapping[str, Any], change: _Change) -> None:
    metadata = body["metadata"]
    patch = {"metadata": {"uid": metadata["uid"], "annotations": change.annotations, "labels": change.labels}}
    try:
        # What comes back is not put into the cache: once the watch has it, controllers that watch have it as well.
        await connected(member).merge(POD, metadata["namespace"], metadata["name"], patch)
    except ApiError as error:
        if not (error.not_found or error.conflict):
            raise explained(error, member, POD, metadata["name"]) from error


def _started(body: Mapping[str, Any]) -> bool:
    """Return whether the worker's process runs and has once been up, so that it may have requests."""
    status = body.get("status") or {}
    if status.get("phase") != "Running":
        return False
    worker = body["spec"]["containers"][0]["name"]
    for container in status.get("containerStatuses") or ():
        if container["name"] == worker:
            return "running" in (container.get("state") or {}) and container.get("started") is not False
    return True


def _time_s(text: str) -> float:
    """Return the time of a mark. One that cannot be read counts as old, so that nobody drains for ever."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return found.timestamp() if found.tzinfo is not None else found.replace(tzinfo=UTC).timestamp()
