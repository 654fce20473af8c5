"""The node agent: plays the kubelet and kube-proxy of a cluster's only node, with processes in the place of containers."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

from prfaas_local import processes
from prfaas_local.node.addresses import AddressPool
from prfaas_local.node.apiserver import ApiServer, Json
from prfaas_local.node.backoff import CrashBackoff
from prfaas_local.node.context import NodeContext
from prfaas_local.node.events import EventRecorder
from prfaas_local.node.kubeconfig import Credentials
from prfaas_local.node.pod import OWNER, Pod
from prfaas_local.node.probing import Prober
from prfaas_local.node.reflector import Key, Reflector
from prfaas_local.node.registration import NodeRegistration
from prfaas_local.node.services import ServiceProxy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told.

    Attributes:
        name: of the Node.
        pod_cidr: addresses of its pods; the first one is the node's own.
        state_dir: for volumes and logs; one agent at a time.
        capacity: of the Node: resource to quantity.
        environment: what an image would set for its containers: PATH and the like.
        backoff: of containers that crash.
    """

    name: str
    pod_cidr: str
    state_dir: Path
    capacity: Mapping[str, str]
    environment: Mapping[str, str]
    backoff: CrashBackoff


class Agent:
    """Keeps the Node alive and the pods bound to it running."""

    def __init__(self, api: ApiServer, settings: AgentSettings, addresses: AddressPool) -> None:
        self._settings = settings
        self._pods: dict[str, Pod] = {}
        self._prober = Prober()
        self._reflector = Reflector(api, "/api/v1/pods", {"fieldSelector": f"spec.nodeName={settings.name}"})
        self._registration = NodeRegistration(
            api, settings.name, addresses.node_address, settings.pod_cidr, settings.capacity
        )
        self._context = NodeContext(
            name=settings.name,
            api=api,
            api_address=api.credentials.address,
            state_dir=settings.state_dir,
            addresses=addresses,
            allocatable=settings.capacity,
            base_environment=settings.environment,
            config_maps=Reflector(api, "/api/v1/configmaps"),
            secrets=Reflector(api, "/api/v1/secrets"),
            services=Reflector(api, "/api/v1/services"),
            events=EventRecorder(api, settings.name),
            prober=self._prober,
            backoff=settings.backoff,
        )
        self._proxy = ServiceProxy(self._context.services, self._reflector)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then end all processes; objects stay, for the next agent."""
        # The kernel kills a container's process when the agent dies, but not what that process started and left its group.
        # Children inherit the environment, which names the agent's folder, so the next agent finds them.
        killed = processes.kill_with(OWNER, str(self._settings.state_dir))
        if killed:
            logger.info("killed %d processes of an earlier agent", killed)
        context = self._context
        sources = (context.config_maps, context.secrets, context.services)
        for source in (context.config_maps, context.secrets):
            source.listen(self._source_changed)
        self._reflector.listen(self._pod_changed)
        work: list[Coroutine[None, None, None]] = [
            *(source.run() for source in sources), context.events.run(), self._proxy.run(), self._serve(sources)
        ]  # fmt: skip
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            await stop.wait()
            for task in tasks:
                task.cancel()
        await asyncio.gather(*(pod.shut_down() for pod in self._pods.values()))
        await self._prober.close()

    async def _serve(self, sources: tuple[Reflector, ...]) -> None:
        # A pod must not start before what it refers to can be known.
        await asyncio.gather(*(source.synced.wait() for source in sources))
        await self._registration.register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registration.heartbeat())
            group.create_task(self._reflector.run())
            await self._reflector.synced.wait()
            self._remove_stale_volumes()

    def _pod_changed(self, _: Key, before: Json | None, now: Json | None) -> None:
        uid = (now or before or {})["metadata"]["uid"]
        pod = self._pods.get(uid)
        if now is None:
            if pod is not None:
                pod.remove()
        elif pod is not None:
            pod.update(now)
        else:
            self._pods[uid] = Pod(self._context, now, self._pod_ended)

    def _pod_ended(self, pod: Pod) -> None:
        self._pods.pop(pod.uid, None)

    def _source_changed(self, key: Key, _: Json | None, __: Json | None) -> None:
        for pod in self._pods.values():
            if pod.namespace == key[0]:
                pod.sources_changed()

    def _remove_stale_volumes(self) -> None:
        """Remove the volumes of pods that were deleted while no agent ran."""
        volumes = self._settings.state_dir / "volumes"
        for folder in volumes.iterdir() if volumes.exists() else ():
            if folder.name not in self._pods:
                shutil.rmtree(folder, ignore_errors=True)


async def run(credentials: Credentials, settings: AgentSettings, addresses: AddressPool, stop: asyncio.Event) -> None:
    """Run an agent until `stop` is set."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    async with ApiServer(credentials, user_agent="prfaas-node-agent") as api:
        await Agent(api, settings, addresses).run(stop)
