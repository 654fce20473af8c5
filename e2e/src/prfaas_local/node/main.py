"""`prfaas-node-agent`: run the pods of one node as processes on loopback addresses."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from prfaas_local import processes
from prfaas_local.node import agent, backoff, kubeconfig
from prfaas_local.node.addresses import AddressPool
from prfaas_local.node.registration import machine_capacity


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        prog="prfaas-node-agent", description="Play the kubelet of one node: pods become processes of this machine."
    )
    p.add_argument("--kubeconfig", type=Path, required=True, help="of a user with the rights of a kubelet and a proxy")
    p.add_argument("--name", required=True, help="of the Node")
    p.add_argument("--pod-cidr", required=True, help="a loopback range; the node takes its first address")
    p.add_argument("--state-dir", type=Path, required=True, help="for volumes and logs of pods")
    p.add_argument(
        "--capacity", action="append", default=[], metavar="RESOURCE=QUANTITY",
        help="beside or in the place of what this machine has, repeatedly",
    )  # fmt: skip
    p.add_argument("--crash-backoff-base-s", type=float, default=backoff.BASE_S, help="wait before the second restart")
    p.add_argument("--crash-backoff-limit-s", type=float, default=backoff.LIMIT_S, help="the longest wait")
    p.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 for bad arguments."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    try:
        credentials = kubeconfig.load(arguments.kubeconfig)
        addresses = AddressPool(arguments.pod_cidr)
        settings = agent.AgentSettings(
            name=arguments.name,
            pod_cidr=arguments.pod_cidr,
            state_dir=arguments.state_dir.resolve(),
            capacity={**machine_capacity(), **dict(_capacity(item) for item in arguments.capacity)},
            environment=_image_environment(),
            backoff=backoff.CrashBackoff(arguments.crash_backoff_base_s, arguments.crash_backoff_limit_s),
        )
    except (kubeconfig.KubeconfigError, ValueError) as error:
        sys.stderr.write(f"prfaas-node-agent: {error}\n")
        return 2

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await agent.run(credentials, settings, addresses, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
    return 0


def _capacity(text: str) -> tuple[str, str]:
    resource, separator, quantity = text.partition("=")
    if not resource or not separator or not quantity:
        raise ValueError(f"--capacity {text!r}: write it as RESOURCE=QUANTITY, such as nvidia.com/gpu=8")
    return resource, quantity


def _image_environment() -> dict[str, str]:
    """Return what an image would set. Commands of this installation are found, as if they were in the image."""
    search = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    environment = {"PATH": search, "HOME": "/", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    if processes.MARK in os.environ:
        # So that what a pod leaves behind is found as part of the environment that the agent belongs to.
        environment[processes.MARK] = os.environ[processes.MARK]
    return environment


if __name__ == "__main__":
    sys.exit(main())
