"""The life of one pod on the node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prfaas_local.node.apiserver import Json
from prfaas_local.node.container import Container
from prfaas_local.node.context import NodeContext, now_timestamp
from prfaas_local.node.environment import PodFacts, command_line, variables
from prfaas_local.node.pod_files import PodFiles, sleep_until
from prfaas_local.node.pod_status_writer import PodStatusWriter
from prfaas_local.node.process import Launch
from prfaas_local.node.status import ContainerView, PodView, Role, Running, Terminated, Waiting, restored
from prfaas_local.node.volumes import VolumeError

logger = logging.getLogger(__name__)

OWNER = "PRFAAS_LOCAL_NODE"
"""Variable of every container: the state folder of its agent."""
_VOLUME_RETRY_S = 10.0
_DEFAULT_GRACE_S = 30.0
_FORCED_GRACE_S = 1.0
_OWN_CONDITIONS = {"PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"}


class Pod:
    """Runs a pod from its binding to its removal from the API server."""

    def __init__(self, context: NodeContext, pod: Json, ended: Callable[[Pod], None]) -> None:
        self._context = context
        self._pod = pod
        self._ended = ended
        self._writer = PodStatusWriter(context.api, pod)
        self._files = PodFiles(context, pod)
        self._sources_changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._removed = False
        self._finished = False
        self._failure: tuple[str, str] | None = None
        self._grace_deadline_s: float | None = None
        self._grace_changed = asyncio.Event()
        self.spec: Json = pod["spec"]
        self.uid: str = pod["metadata"]["uid"]
        self.name: str = pod["metadata"]["name"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.ip = ""
        status = pod.get("status") or {}
        self._start_time: str = status.get("startTime") or now_timestamp()
        self._was_final = status.get("phase") in {"Succeeded", "Failed"}
        earlier = {
            item["name"]: item
            for key in ("initContainerStatuses", "containerStatuses")
            for item in status.get(key) or []
        }
        self._containers = [
            Container(context, self, spec, _first_view(spec, role, earlier.get(spec["name"])), self._publish)
            for role, spec in _roles(self.spec)
        ]
        self._task = asyncio.create_task(self._live(), name=f"pod {self.namespace}/{self.name}")

    @property
    def object(self) -> Json:
        """The pod as the API server last showed it."""
        return self._pod

    def update(self, pod: Json) -> None:
        """Take over a change of the object: labels, or that it shall be deleted."""
        changed = pod["metadata"].get("labels") != self._pod["metadata"].get("labels")
        changed = changed or pod["metadata"].get("annotations") != self._pod["metadata"].get("annotations")
        self._pod = pod
        self._writer.observe(pod)
        if changed:
            self.sources_changed()
        if pod["metadata"].get("deletionTimestamp"):
            self._stop(float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
        # Readiness gates of others may have changed.
        self._publish()

    def remove(self) -> None:
        """The object is gone from the API server: end what still runs."""
        self._removed = True
        self._writer.stop()
        self._stop(_FORCED_GRACE_S)

    def sources_changed(self) -> None:
        """A ConfigMap, Secret or label that the pod may use has changed."""
        self._sources_changed.set()
        for container in self._containers:
            container.retry()

    async def shut_down(self) -> None:
        """End the processes at once and leave the object alone, because the agent ends."""
        self._task.cancel()
        self._writer.stop()
        await asyncio.gather(self._task, return_exceptions=True)
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(container.stop(loop.time() + _FORCED_GRACE_S) for container in self._containers))

    def launch(self, container: Json, attempt: int, command: Sequence[str] | None = None) -> Launch:
        """Return how to start a container, or a command in it. Raises `ConfigurationError`."""
        context = self._context
        facts = self._facts()
        values = variables(container, facts, lambda kind, name: context.lookup(self.namespace, kind, name))
        values = {
            **context.base_environment,
            "HOSTNAME": self.name,
            **values,
            OWNER: str(context.state_dir),
        }
        return Launch(
            arguments=list(command) if command else command_line(container, values),
            environment=values,
            directory=container.get("workingDir") or "/",
            operations=self._files.operations(container, values),
            root=self._files.root / "..root",
            log=self.log_dir / container["name"] / f"{attempt}.log",
        )

    @property
    def log_dir(self) -> Path:
        """Where the logs of the pod's containers lie."""
        return self._context.state_dir / "pods" / f"{self.namespace}_{self.name}_{self.uid}"

    async def _live(self) -> None:
        if not self._was_final:
            await self._set_up_and_run()
        else:
            await self._stopping.wait()
        self._finished = True
        self._publish()
        # A pod that has run to its end stays until somebody deletes it.
        await self._stopping.wait()
        if not self._removed:
            await self._writer.finish_deletion()
        self._files.remove()
        self._ended(self)

    async def _set_up_and_run(self) -> None:
        addresses = self._context.addresses
        earlier = (self._pod.get("status") or {}).get("podIP")
        host_network = bool(self.spec.get("hostNetwork"))
        if host_network:
            self.ip = addresses.node_address
        else:
            self.ip = earlier if earlier and addresses.reserve(earlier) else addresses.allocate()
        running: list[asyncio.Task[None]] = []
        refresh: asyncio.Task[None] | None = None
        try:
            self._publish()
            if self._pod["metadata"].get("deletionTimestamp"):
                self._stop(float(self._pod["metadata"].get("deletionGracePeriodSeconds") or 0))
            if await self._prepare():
                refresh = asyncio.create_task(self._refresh())
                await self._run_containers(running)
        finally:
            if refresh:
                refresh.cancel()
            await self._stop_containers()
            await asyncio.gather(*running, return_exceptions=True)
            if not host_network:
                addresses.release(self.ip)

    async def _prepare(self) -> bool:
        """Set up the volumes; retry while sources are missing. Return False when the pod is stopped meanwhile."""
        await self._files.refresh_references()
        while not self._stopping.is_set():
            self._sources_changed.clear()
            try:
                await self._files.write(self._facts())
            except (VolumeError, OSError) as error:
                self._context.events.emit(self._pod, "Warning", "FailedMount", str(error))
            else:
                return True
            await self._first_of(self._sources_changed, timeout_s=_VOLUME_RETRY_S)
        return False

    async def _refresh(self) -> None:
        """Write volumes again when their sources change or a token is due."""
        while True:
            due_s = self._files.renew_in_s()
            await sleep_until(self._sources_changed, due_s)
            self._sources_changed.clear()
            try:
                await self._files.write(self._facts())
            except (VolumeError, OSError) as error:
                # Files stay as they are when a source goes away under a running pod, as on a real node.
                logger.warning("volumes of %s/%s not refreshed: %s", self.namespace, self.name, error)
                await asyncio.sleep(1)

    async def _run_containers(self, running: list[asyncio.Task[None]]) -> None:
        for container in self._containers:
            if container.view.role is Role.MAIN or self._stopping.is_set():
                continue
            if container.view.role is Role.INIT and _succeeded(container.view):
                continue
            task = asyncio.create_task(container.run())
            running.append(task)
            if container.view.role is Role.SIDECAR:
                await self._first_of(container.settled)
            else:
                await task
                if not _succeeded(container.view):
                    return
        if self._stopping.is_set():
            return
        deadline_s = self.spec.get("activeDeadlineSeconds")
        main = [
            asyncio.create_task(container.run())
            for container in self._containers
            if container.view.role is Role.MAIN and not _done(container.view, self.spec)
        ]
        running += main
        everything = asyncio.gather(*main)
        stopping = asyncio.create_task(self._stopping.wait())
        waited: set[asyncio.Future[Any]] = {everything, stopping}
        done, _ = await asyncio.wait(waited, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not done:
            self._failure = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

    async def _stop_containers(self) -> None:
        """End main containers together, then sidecars in reverse order, all within one grace period."""
        loop = asyncio.get_running_loop()
        if self._grace_deadline_s is None:
            self._grace_deadline_s = loop.time() + float(
                self.spec.get("terminationGracePeriodSeconds") or _DEFAULT_GRACE_S
            )
        main = [container for container in self._containers if container.view.role is not Role.SIDECAR]
        sidecars = [container for container in reversed(self._containers) if container.view.role is Role.SIDECAR]
        if any(isinstance(container.view.state, Running) for container in self._containers) and self._stopping.is_set():
            self._context.events.emit(self._pod, "Normal", "Killing", "Stopping containers")
        await self._end_together(main)
        for container in sidecars:
            await self._end_together([container])

    async def _end_together(self, containers: Sequence[Container]) -> None:
        """Stop containers, and start over with a nearer deadline when a second deletion shortens the grace period."""
        while True:
            deadline_s = self._grace_deadline_s or 0.0
            tasks = [asyncio.create_task(container.stop(deadline_s)) for container in containers]
            if not tasks:
                return
            shortened = asyncio.create_task(self._wait_shortened(deadline_s))
            try:
                everything = asyncio.gather(*tasks)
                either: set[asyncio.Future[Any]] = {everything, shortened}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if everything.done():
                    everything.result()
                    return
                everything.cancel()
                with suppress(asyncio.CancelledError):
                    await everything
            finally:
                shortened.cancel()

    async def _wait_shortened(self, deadline_s: float) -> None:
        while (self._grace_deadline_s or 0.0) >= deadline_s:
            self._grace_changed.clear()
            await self._grace_changed.wait()

    def _stop(self, grace_s: float) -> None:
        deadline_s = asyncio.get_running_loop().time() + max(grace_s, _FORCED_GRACE_S)
        if self._grace_deadline_s is None or deadline_s < self._grace_deadline_s:
            self._grace_deadline_s = deadline_s
            self._grace_changed.set()
        self._stopping.set()

    async def _first_of(self, event: asyncio.Event, timeout_s: float | None = None) -> None:
        """Wait for the event, for the pod's end, or for the timeout."""
        tasks = [asyncio.create_task(event.wait()), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _facts(self) -> PodFacts:
        return PodFacts(
            pod=self._pod,
            pod_ip=self.ip,
            host_ip=self._context.addresses.node_address,
            allocatable=self._context.allocatable,
            services=self._context.service_variables(
                self.namespace, links=self.spec.get("enableServiceLinks") is not False
            ),
        )

    def _publish(self) -> None:
        if self._was_final or not self.ip:
            return
        status = self._pod.get("status") or {}
        self._writer.publish(
            PodView(
                restart_policy=self.spec.get("restartPolicy", "Always"),
                containers=[container.view for container in self._containers],
                pod_ip=self.ip,
                host_ip=self._context.addresses.node_address,
                start_time=self._start_time,
                readiness_gates=[gate["conditionType"] for gate in self.spec.get("readinessGates") or []],
                generation=self._pod["metadata"].get("generation"),
                ended=self._finished,
                failure=self._failure,
                foreign_conditions={
                    item["type"]: item["status"]
                    for item in status.get("conditions") or []
                    if item["type"] not in _OWN_CONDITIONS
                },
            )
        )


def _roles(spec: Json) -> list[tuple[Role, Json]]:
    init = [
        (Role.SIDECAR if item.get("restartPolicy") == "Always" else Role.INIT, item)
        for item in spec.get("initContainers") or []
    ]
    return [*init, *((Role.MAIN, item) for item in spec["containers"])]


def _first_view(spec: Json, role: Role, earlier: Json | None) -> ContainerView:
    """Return how a container starts: anew, or after an agent that is gone, with which its process ended."""
    fresh = ContainerView(name=spec["name"], image=spec.get("image", ""), role=role, state=Waiting())
    if earlier is None:
        return fresh
    before = restored(earlier, role)
    state = before.state
    if isinstance(state, Waiting):
        return replace(before, ready=False)
    if isinstance(state, Running):
        state = Terminated(
            137, "ContainerStatusUnknown", state.started_at, now_timestamp(), message="the node agent was restarted"
        )
    return replace(before, state=state, ready=role is Role.INIT and state.exit_code == 0)


def _succeeded(view: ContainerView) -> bool:
    return isinstance(view.state, Terminated) and view.state.exit_code == 0


def _done(view: ContainerView, spec: Json) -> bool:
    """Return whether a container of an earlier agent is not to be started again."""
    if not isinstance(view.state, Terminated):
        return False
    policy = spec.get("restartPolicy", "Always")
    return policy == "Never" or (policy == "OnFailure" and view.state.exit_code == 0)
