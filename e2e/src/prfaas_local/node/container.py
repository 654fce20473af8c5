"""One container of a pod: its process, its probes, its restarts."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from prfaas_local.node import probe as probes
from prfaas_local.node.apiserver import Json
from prfaas_local.node.context import NodeContext, now_timestamp
from prfaas_local.node.environment import ConfigurationError
from prfaas_local.node.pod_files import sleep_until
from prfaas_local.node.probe import Kind, Probe, ProbeError, Verdict
from prfaas_local.node.process import Exit, Launch, Process, StartError
from prfaas_local.node.status import ContainerView, Role, Running, Terminated, Waiting

logger = logging.getLogger(__name__)

_HOOK_EXTRA_S = 2.0
"""What a process gets to end at least, when the preStop hook has used up the grace period; the kubelet's number."""
_CONFIGURATION_RETRY_S = 10.0
_LOG_TAIL_BYTES = 2048


class PodOfContainer(Protocol):
    """What a container needs of its pod."""

    spec: Json
    ip: str

    @property
    def object(self) -> Json:
        """The pod as the API server has it."""

    def launch(self, container: Json, attempt: int, command: Sequence[str] | None = None) -> Launch:
        """Return how to start the container, or a command in it. Raises `ConfigurationError`."""


class Container:
    """Supervises one container. `view` is its state; every change of it calls `changed`."""

    def __init__(
        self, context: NodeContext, pod: PodOfContainer, spec: Json, view: ContainerView, changed: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.view = view
        self.settled = asyncio.Event()
        """Set when a sidecar has started or a container has ended for good."""
        self._context = context
        self._pod = pod
        self._changed = changed
        self._backoff = context.backoff
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._retry = asyncio.Event()
        self._killing: asyncio.Task[None] | None = None
        self._attempt = view.restarts

    @property
    def name(self) -> str:
        """The container's name."""
        return self.view.name

    async def run(self) -> None:
        """Start the container, and again as its restart policy says. Returns when it has ended for good."""
        try:
            # It ended together with an earlier agent.
            ended = isinstance(self.view.state, Terminated)
            while not self._stopping.is_set():
                if ended:
                    if not self._restarts():
                        break
                    await self._back_off()
                ended = await self._start()
        finally:
            self.settled.set()

    async def stop(self, deadline_s: float) -> None:
        """End the container: preStop hook, SIGTERM, and SIGKILL at the deadline of the loop's clock. Idempotent."""
        self._stopping.set()
        self._retry.set()
        if self._process and self._process.running:
            if self._killing:
                # A failed liveness probe may be ending it with a longer grace period.
                self._killing.cancel()
            await self._end(self._process, deadline_s)

    def retry(self) -> None:
        """Try at once what waits for a ConfigMap or Secret."""
        self._retry.set()

    async def execute(self, command: tuple[str, ...], timeout_s: float) -> tuple[int | None, str]:
        """Run a command as the container would run it. Return its exit code, None when it was too slow, and output."""
        launch = self._pod.launch(self.spec, self._attempt, command)
        launch = replace(launch, log=launch.log.with_name(f"exec-{id(launch):x}.log"))
        try:
            process = await Process.start(launch)
            exit_ = await process.run_for(timeout_s)
            return exit_.code if exit_ else None, launch.log.read_text(errors="replace")[-_LOG_TAIL_BYTES:]
        except StartError as error:
            return 126, str(error)
        finally:
            launch.log.unlink(missing_ok=True)

    async def _start(self) -> bool:
        """Run the container once, to its end. Return False when it could not be configured."""
        clock = asyncio.get_running_loop().time
        self._retry.clear()
        try:
            launch = self._pod.launch(self.spec, self._attempt)
            declared = self._probes()
        except (ConfigurationError, ProbeError) as error:
            reason = getattr(error, "reason", "CreateContainerConfigError")
            self._become(replace(self.view, state=Waiting(reason, str(error)), ready=False, started=False))
            self._event("Warning", "Failed", f"Error: {error}")
            if reason == "NoCommand":
                await self._stopping.wait()
            else:
                await sleep_until(self._retry, _CONFIGURATION_RETRY_S)
            return False
        started_s, started_at = clock(), now_timestamp()
        identity = f"process://{self._pod.object['metadata']['uid']}/{self.name}/{self._attempt}"
        try:
            self._process = await Process.start(launch)
        except (StartError, OSError) as error:
            self._event("Warning", "Failed", f"Error: {error}")
            self._terminated(Exit(128, None), started_at, identity, reason="StartError", message=str(error))
            return True
        process = self._process
        startup = any(item.kind is Kind.STARTUP for item in declared)
        self._become(
            replace(
                self.view, state=Running(started_at), container_id=identity, started=not startup,
                ready=not startup and not any(item.kind is Kind.READINESS for item in declared),
            )
        )  # fmt: skip
        self._event("Normal", "Started", f"Container started: {' '.join(launch.arguments)[:200]}")
        tasks = [asyncio.create_task(self._observe(process, declared, started_s))]
        if "postStart" in (self.spec.get("lifecycle") or {}):
            tasks.append(asyncio.create_task(self._post_start(process)))
        if not startup:
            self.settled.set()
        try:
            exit_ = await process.wait()
        finally:
            for task in tasks:
                task.cancel()
            # Gathered, so that nothing of this run speaks for the next one.
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._killing:
                self._killing.cancel()
                self._killing = None
        message = ""
        if exit_.code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = launch.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        self._terminated(exit_, started_at, identity, message=message)
        return True

    def _terminated(self, exit_: Exit, started_at: str, identity: str, *, reason: str = "", message: str = "") -> None:
        state = Terminated(
            exit_code=exit_.code,
            signal=exit_.signal,
            reason=reason or ("Completed" if exit_.code == 0 else "Error"),
            message=message,
            started_at=started_at,
            finished_at=now_timestamp(),
            container_id=identity,
        )
        ready = self.view.role is Role.INIT and exit_.code == 0
        self._become(replace(self.view, state=state, ready=ready, started=False, container_id=identity))

    def _restarts(self) -> bool:
        """Return whether the container, which has just ended, is started again."""
        state = self.view.state
        failed = isinstance(state, Terminated) and state.exit_code != 0
        policy = self.spec.get("restartPolicy") or self._pod.spec.get("restartPolicy", "Always")
        if self._stopping.is_set() or policy == "Never":
            return False
        return failed or (policy == "Always" and self.view.role is not Role.INIT)

    async def _back_off(self) -> None:
        clock = asyncio.get_running_loop().time
        ended = self.view.state
        last = ended if isinstance(ended, Terminated) else self.view.last
        wait_s = self._backoff.wait_s(clock())
        if wait_s > 0:
            message = f"back-off {wait_s:g}s restarting failed container={self.name}"
            self._event("Warning", "BackOff", "Back-off restarting failed container")
            self._become(replace(self.view, state=Waiting("CrashLoopBackOff", message), last=last))
            await sleep_until(self._stopping, wait_s)
            if self._stopping.is_set():
                # It did run and end; a final status must say so rather than that it waits.
                self._become(replace(self.view, state=last or self.view.state))
                return
        self._backoff = self._backoff.restarted(clock())
        self._attempt += 1
        self.view = replace(self.view, last=last, restarts=self.view.restarts + 1)

    def _probes(self) -> list[Probe]:
        fields = ((Kind.STARTUP, "startupProbe"), (Kind.READINESS, "readinessProbe"), (Kind.LIVENESS, "livenessProbe"))
        return [probes.parse(kind, self.spec[field], self.spec) for kind, field in fields if self.spec.get(field)]

    async def _observe(self, process: Process, declared: Sequence[Probe], started_s: float) -> None:
        """Run the probes of one run of the container: startup first, the others after it."""
        for item in declared:
            if item.kind is Kind.STARTUP:
                await self._follow(process, item, started_s)
                self._become(
                    replace(self.view, started=True, ready=not any(it.kind is Kind.READINESS for it in declared))
                )
                self.settled.set()
        async with asyncio.TaskGroup() as group:
            for item in declared:
                if item.kind is not Kind.STARTUP:
                    group.create_task(self._follow(process, item, started_s))

    async def _follow(self, process: Process, item: Probe, started_s: float) -> None:
        """Ask again and again and act on changes of the verdict. A startup probe returns when it has succeeded."""
        loop = asyncio.get_running_loop()
        verdict = Verdict.initial(item.kind)
        due_s = started_s + item.initial_delay_s
        while True:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if self._stopping.is_set() and item.kind is not Kind.READINESS:
                return
            problem = await self._context.prober.ask(
                item.question, address=self._pod.ip, timeout_s=item.timeout_s, run=self.execute
            )
            if problem:
                self._event("Warning", "Unhealthy", f"{item.kind.value} probe failed: {problem}")
            verdict = verdict.observe(item, problem is None)
            if item.kind is Kind.READINESS:
                if verdict.healthy != self.view.ready:
                    self._become(replace(self.view, ready=bool(verdict.healthy)))
            elif verdict.healthy is False and not self._killing:
                self._event(
                    "Normal",
                    "Killing",
                    f"Container {self.name} failed {item.kind.value.lower()} probe, will be restarted",
                )
                grace_s = item.termination_grace_s
                if grace_s is None:
                    grace_s = float(self._pod.spec.get("terminationGracePeriodSeconds") or 30)
                self._killing = asyncio.create_task(self._end(process, loop.time() + grace_s))
                await asyncio.Event().wait()
            elif item.kind is Kind.STARTUP and verdict.healthy:
                return
            due_s = max(due_s + item.period_s, loop.time())

    async def _end(self, process: Process, deadline_s: float) -> None:
        """Run the preStop hook, then terminate, then kill."""
        loop = asyncio.get_running_loop()
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and loop.time() < deadline_s:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline_s):
                    await self._run_hook("preStop", hook)
            deadline_s = max(deadline_s, loop.time() + _HOOK_EXTRA_S)
        process.signal(_signal_number(self.spec))
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                await process.wait()
                return
        process.signal(signal.SIGKILL)
        await process.wait()

    async def _post_start(self, process: Process) -> None:
        problem = await self._run_hook("postStart", self.spec["lifecycle"]["postStart"])
        if problem and not self._killing:
            grace_s = float(self._pod.spec.get("terminationGracePeriodSeconds") or 30)
            deadline_s = asyncio.get_running_loop().time() + grace_s
            self._killing = asyncio.create_task(self._end(process, deadline_s))

    async def _run_hook(self, name: str, hook: Json) -> str | None:
        if "sleep" in hook:
            await asyncio.sleep(float(hook["sleep"]["seconds"]))
            return None
        try:
            problem = await self._context.prober.ask(
                probes.question(hook, self.spec), address=self._pod.ip, timeout_s=3600.0, run=self.execute
            )
        except (ProbeError, ConfigurationError) as error:
            problem = str(error)
        if problem:
            self._event("Warning", f"Failed{name[0].upper()}{name[1:]}Hook", problem)
        return problem

    def _become(self, view: ContainerView) -> None:
        if view != self.view:
            self.view = view
            self._changed()

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._context.events.emit(self._pod.object, kind, reason, message, self.name)


def _signal_number(spec: Json) -> int:
    name = (spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
    return getattr(signal, name, signal.SIGTERM)
