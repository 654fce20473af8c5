"""What a link listens on follows the pods, and an address that cannot be had is tried again."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvloop

from prfaas_local.link.link import Link
from prfaas_local.link.listeners import Listeners
from prfaas_local.link.state import Fault, LinkState
from prfaas_local.link.translation import Translation
from prfaas_local.network import Network
from prfaas_local.node.apiserver import ApiServer
from prfaas_local.node.kubeconfig import Credentials
from prfaas_local.node.reflector import Reflector

HOST = "2.7"


class Following:
    """Listeners that follow pods which the test gives."""

    def __init__(self, ranges: Network) -> None:
        credentials = Credentials("https://127.0.0.1", ssl.create_default_context(), None, None, None)
        self.pods = Reflector(ApiServer(credentials, user_agent="test"), "/api/v1/pods")
        self.pods.synced.set()
        self.link = Link(LinkState(1e9))
        self.listeners = Listeners(self.link, self.pods, Translation.parse(ranges.pod_cidr, ranges.service_cidr))
        self.near = f"127.{ranges.services}.{HOST}"
        self.far = f"127.{ranges.pods}.{HOST}"
        self._version = 0

    def pod(self, *ports: int) -> None:
        """Say that the pod has these ports."""
        self._version += 1
        self.pods.remember(
            {
                "metadata": {"namespace": "ns", "name": "pod", "uid": "1", "resourceVersion": str(self._version)},
                "spec": {"containers": [{"ports": [{"containerPort": port} for port in ports]}]},
                "status": {"phase": "Running", "podIP": self.far},
            }
        )

    def refuses(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(10)
            return probe.connect_ex((self.near, port)) != 0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.005)


@asynccontextmanager
async def following(ranges: Network) -> AsyncIterator[Following]:
    running = Following(ranges)
    task = asyncio.create_task(running.listeners.run())
    try:
        yield running
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        running.link.abort()
        await running.until(lambda: running.link.connections == 0)


def play(scenario: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 30))


def test_ports_come_and_go_with_the_pod(ranges: Network) -> None:
    async def scenario() -> None:
        async with following(ranges) as running:
            await running.until(lambda: running.listeners.synced)
            assert running.listeners.open == {}
            running.pod(7001, 7002)
            assert not running.listeners.synced
            await running.until(lambda: running.listeners.synced)
            assert running.listeners.open == {(running.near, port): (running.far, port) for port in (7001, 7002)}
            assert not running.refuses(7001)
            running.pod(7002)
            await running.until(lambda: running.refuses(7001))
            assert not running.refuses(7002)
        assert running.refuses(7002)

    play(scenario())


def test_an_address_that_is_taken_is_had_once_it_is_free(ranges: Network) -> None:
    async def scenario() -> None:
        async with following(ranges) as running:
            with socket.create_server((running.near, 7003)):
                running.pod(7003, 7004)
                await running.until(lambda: (running.near, 7004) in running.listeners.open)
                assert not running.listeners.synced
            await running.until(lambda: running.listeners.synced)
            assert (running.near, 7003) in running.listeners.open

    play(scenario())


def test_pods_that_come_while_the_link_is_cut_are_listened_on_when_it_heals(ranges: Network) -> None:
    async def scenario() -> None:
        async with following(ranges) as running:
            running.pod(7005)
            await running.until(lambda: running.listeners.synced)
            running.link.configure(LinkState(1e9, fault=Fault.CUT))
            await running.listeners.refresh()
            assert running.refuses(7005)
            running.pod(7005, 7006)
            await running.until(lambda: running.listeners.synced)
            assert running.listeners.open == {}
            running.link.configure(LinkState(1e9))
            await running.listeners.refresh()
            assert not running.refuses(7005)
            assert not running.refuses(7006)

    play(scenario())
