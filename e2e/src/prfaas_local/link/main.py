"""`prfaas-link`: a link to the pods of one cluster."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from prfaas_local.link.control import application
from prfaas_local.link.link import Link
from prfaas_local.link.listeners import Listeners
from prfaas_local.link.state import LinkState, StateError
from prfaas_local.link.translation import Translation, TranslationError
from prfaas_local.node import kubeconfig
from prfaas_local.node.apiserver import ApiServer
from prfaas_local.node.reflector import Reflector

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        prog="prfaas-link", description="Carry TCP to the pods of a cluster at a set bandwidth, delay and fault."
    )
    p.add_argument("--kubeconfig", type=Path, required=True, help="of the cluster at the far end; it may read pods")
    p.add_argument("--pod-cidr", required=True, help="where the far cluster's pods have their addresses")
    p.add_argument("--translated-cidr", required=True, help="where they appear at the near end; of the same length")
    p.add_argument("--control-address", required=True, metavar="HOST:PORT", help="of GET and PUT /state, and /metrics")
    p.add_argument("--capacity-bps", type=float, required=True, help="capacity of each direction in bits/s")
    p.add_argument("--delay-s", type=float, default=0.0, help="one-way propagation delay in seconds")
    p.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return p


async def run(
    credentials: kubeconfig.Credentials, translation: Translation, control: tuple[str, int], state: LinkState
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when the control address cannot be had."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    link = Link(state)
    async with ApiServer(credentials, user_agent="prfaas-link") as api:
        pods = Reflector(api, "/api/v1/pods")
        listeners = Listeners(link, pods, translation)
        runner = web.AppRunner(application(link, listeners), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, *control, reuse_address=True).start()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pods.run()), group.create_task(listeners.run())]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            link.abort()
            await runner.cleanup()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 for bad arguments, 1 when the control address cannot be had."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    try:
        credentials = kubeconfig.load(arguments.kubeconfig)
        translation = Translation.parse(arguments.pod_cidr, arguments.translated_cidr)
        control = _address(arguments.control_address)
        state = LinkState(arguments.capacity_bps, arguments.delay_s)
    except (kubeconfig.KubeconfigError, TranslationError, StateError, ValueError) as error:
        sys.stderr.write(f"prfaas-link: {error}\n")
        return 2
    # Each connection takes two descriptors, and the usual soft limit of 1024 is soon reached.
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(credentials, translation, control, state))
    except OSError as error:
        sys.stderr.write(f"prfaas-link: control address {arguments.control_address}: {error.strerror}\n")
        return 1
    return 0


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ValueError(f"control address is {text!r}; write it like 127.0.0.1:9100")
    return host, port


if __name__ == "__main__":
    sys.exit(main())
