"""The status of a pod, computed from what its containers do. Pure, with the kubelet's rules and words."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Json = dict[str, Any]


class Role(Enum):
    """What a container is for."""

    INIT = "init"
    SIDECAR = "sidecar"
    """An init container with `restartPolicy: Always`."""
    MAIN = "main"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running yet, or not running again yet."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Its process runs."""

    started_at: str


@dataclass(frozen=True, slots=True)
class Terminated:
    """Its process has ended."""

    exit_code: int
    reason: str
    started_at: str | None
    finished_at: str
    signal: int | None = None
    message: str = ""
    container_id: str = ""


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container as it stands."""

    name: str
    image: str
    role: Role
    state: State
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod as it stands."""

    restart_policy: str
    containers: Sequence[ContainerView]
    pod_ip: str | None
    host_ip: str
    start_time: str
    readiness_gates: Sequence[str] = ()
    generation: int | None = None
    ended: bool = False
    """All processes are gone for good; the phase must be final."""
    failure: tuple[str, str] | None = None
    """Reason and message when the node ended the pod."""
    foreign_conditions: Mapping[str, str] = field(default_factory=dict)
    """Status by type of conditions that others wrote; readiness gates look at them."""


def timestamp(moment: datetime.datetime) -> str:
    """Return a time as the API writes it."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(pod: PodView) -> str:
    """Return the pod's phase."""
    if pod.failure:
        return "Failed"
    init = [view for view in pod.containers if view.role is Role.INIT]
    main = [view for view in pod.containers if view.role is Role.MAIN]
    sidecars = [view for view in pod.containers if view.role is Role.SIDECAR]
    if any(_failed(view) for view in init) and (pod.restart_policy == "Never" or pod.ended):
        return "Failed"
    succeeded = all(isinstance(view.state, Terminated) and view.state.exit_code == 0 for view in main)
    if pod.ended:
        return "Succeeded" if succeeded else "Failed"
    if not all(_initialized(view) for view in [*init, *sidecars]):
        return "Pending"
    if any(isinstance(view.state, Waiting) and view.last is None for view in main):
        return "Pending"
    if any(isinstance(view.state, Running) for view in main) or pod.restart_policy == "Always":
        return "Running"
    if succeeded:
        return "Succeeded"
    if pod.restart_policy == "Never":
        return "Failed"
    return "Running"


def conditions(pod: PodView, previous: Mapping[str, Json], now: str) -> list[Json]:
    """Return the conditions the node owns. A transition time moves only when the status does."""
    current_phase = phase(pod)
    finished = current_phase in {"Succeeded", "Failed"}
    uninitialized = [view.name for view in pod.containers if view.role is not Role.MAIN and not _initialized(view)]
    unready = [view.name for view in pod.containers if view.role is not Role.INIT and not view.ready]
    completed = ("PodCompleted", "") if current_phase == "Succeeded" else ("PodFailed", "")
    verdicts: dict[str, tuple[bool, str, str]] = {
        "PodScheduled": (True, "", ""),
        "PodReadyToStartContainers": (pod.pod_ip is not None and not finished, "", ""),
        "Initialized": (True, "PodCompleted", "")
        if current_phase == "Succeeded"
        else (
            not uninitialized,
            "ContainersNotInitialized" if uninitialized else "",
            f"containers with incomplete status: [{' '.join(uninitialized)}]" if uninitialized else "",
        ),
    }
    if finished:
        verdicts["ContainersReady"] = (False, *completed)
    elif unready:
        verdicts["ContainersReady"] = (
            False,
            "ContainersNotReady",
            f"containers with unready status: [{' '.join(unready)}]",
        )
    else:
        verdicts["ContainersReady"] = (True, "", "")
    gates = [gate for gate in pod.readiness_gates if pod.foreign_conditions.get(gate) != "True"]
    if verdicts["ContainersReady"][0] and gates:
        verdicts["Ready"] = (False, "ReadinessGatesNotReady", f"conditions not true: {', '.join(gates)}")
    else:
        verdicts["Ready"] = verdicts["ContainersReady"]
    result = []
    for kind, (holds, reason, message) in verdicts.items():
        status = "True" if holds else "False"
        before = previous.get(kind) or {}
        same = before.get("status") == status
        condition: Json = {
            "type": kind,
            "status": status,
            "lastTransitionTime": before.get("lastTransitionTime") or now if same else now,
            # Null removes what an earlier status said; merging alone would keep it.
            "reason": reason or None,
            "message": message or None,
        }
        if pod.generation is not None:
            condition["observedGeneration"] = pod.generation
        result.append(condition)
    return result


def pod_status(pod: PodView, previous: Mapping[str, Json], now: str) -> Json:
    """Return the whole status that the node owns, as a strategic merge patch of `status`."""
    reason, message = pod.failure or (None, None)
    status: Json = {
        "phase": phase(pod),
        "conditions": conditions(pod, previous, now),
        "hostIP": pod.host_ip,
        "hostIPs": [{"ip": pod.host_ip}],
        "startTime": pod.start_time,
        "reason": reason,
        "message": message,
        "containerStatuses": [container_status(view) for view in pod.containers if view.role is Role.MAIN],
    }
    if pod.pod_ip:
        status["podIP"] = pod.pod_ip
        status["podIPs"] = [{"ip": pod.pod_ip}]
    others = [container_status(view) for view in pod.containers if view.role is not Role.MAIN]
    if others:
        status["initContainerStatuses"] = others
    if pod.generation is not None:
        status["observedGeneration"] = pod.generation
    return status


def container_status(view: ContainerView) -> Json:
    """Return the ContainerStatus of one container."""
    status: Json = {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restarts,
        "state": _state(view.state),
        "lastState": _state(view.last) if view.last else {},
    }
    if view.container_id:
        status["containerID"] = view.container_id
    return status


def restored(status: Json, role: Role) -> ContainerView:
    """Return a container as an earlier agent last reported it."""
    terminated = (status.get("state") or {}).get("terminated")
    last = (status.get("lastState") or {}).get("terminated")
    running = (status.get("state") or {}).get("running")
    state: State = Waiting()
    if terminated:
        state = _terminated(terminated)
    elif running:
        state = Running(running.get("startedAt") or "")
    return ContainerView(
        name=status["name"],
        image=status.get("image", ""),
        role=role,
        state=state,
        last=_terminated(last) if last else None,
        restarts=int(status.get("restartCount") or 0),
        container_id=status.get("containerID", ""),
    )


def _terminated(state: Json) -> Terminated:
    return Terminated(
        exit_code=int(state.get("exitCode") or 0),
        reason=state.get("reason", ""),
        started_at=state.get("startedAt"),
        finished_at=state.get("finishedAt") or "",
        signal=state.get("signal"),
        message=state.get("message", ""),
        container_id=state.get("containerID", ""),
    )


def _state(state: State) -> Json:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        case Running(started_at):
            return {"running": {"startedAt": started_at}}
        case Terminated():
            content: Json = {
                "exitCode": state.exit_code,
                "reason": state.reason,
                "startedAt": state.started_at,
                "finishedAt": state.finished_at,
                "signal": state.signal,
                "message": state.message or None,
                "containerID": state.container_id or None,
            }
            return {"terminated": {key: value for key, value in content.items() if value is not None}}


def _failed(view: ContainerView) -> bool:
    return isinstance(view.state, Terminated) and view.state.exit_code != 0


def _initialized(view: ContainerView) -> bool:
    if view.role is Role.SIDECAR:
        # Once started it does not hold the pod back again, even while it restarts.
        return view.started or view.last is not None or isinstance(view.state, Terminated)
    return isinstance(view.state, Terminated) and view.state.exit_code == 0
