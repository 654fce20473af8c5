"""`python -m prfaas_workers.entrypoints.vllm --role=prefill|decode|both [-- VLLM ARGUMENTS]`: start `vllm serve`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prfaas_core.errors import InvalidValueError
from prfaas_workers.entrypoints import container
from prfaas_workers.entrypoints.container import Command, Container

# The connectors whose handshake the router speaks.
CONNECTORS = ("NixlConnector", "NixlPullConnector", "NixlPushConnector")
KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer", "both": "kv_both"}

_LAYOUT = "VLLM_KV_CACHE_LAYOUT"
_SHUTDOWN = "--shutdown-timeout"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = container.parser("prfaas-vllm", "Starts vLLM as a worker of a PrefillPool or a DecodePool.")
    p.add_argument("--kv-lease-duration-s", type=int, default=30, help="how long prefill keeps KV for its reader")
    p.add_argument(
        "--kv-load-failure-policy", choices=["fail", "recompute"], default="fail",
        help="fail lets the router see a failed transfer, and say so; recompute hides it",
    )  # fmt: skip
    return p


def build(
    options: argparse.Namespace, worker: Container, environment: Mapping[str, str], extra: Sequence[str]
) -> Command:
    """Return the command of vLLM; see `container.Build`."""
    connector = worker.text("kv.connector.name")
    if connector not in CONNECTORS:
        raise InvalidValueError("kv.connector.name", connector, f"give one of {', '.join(CONNECTORS)}")
    transfer: dict[str, Any] = {
        "kv_connector": connector,
        "kv_role": KV_ROLES[options.role],
        # Push needs to know it before the first request, and the router has it from the operator.
        "engine_id": worker.pod_name,
        "kv_load_failure_policy": options.kv_load_failure_policy,
        "kv_connector_extra_config": {"kv_lease_duration": options.kv_lease_duration_s},
    }
    # Of a local folder only its path is part of vLLM's own compatibility hash; mount it alike on both sides.
    model = options.model or worker.text("model.name")
    revision = {} if model.startswith("/") else {"--revision": worker.text("model.revision")}
    flags = {
        "--served-model-name": worker.text("model.name"),
        **revision,
        "--host": worker.pod_ip,
        "--port": str(container.HTTP_PORT),
        "--max-model-len": str(worker.count("model.maxModelLenTokens")),
        "--block-size": str(worker.count("kv.pageSizeTokens")),
        "--kv-cache-dtype": worker.text("kv.dtype"),
        "--tensor-parallel-size": str(worker.count("kv.tensorParallel")),
        "--pipeline-parallel-size": str(worker.count("kv.pipelineParallel")),
        "--kv-transfer-config": json.dumps(transfer),
    }
    layout = worker.text("kv.layout")
    if environment.get(_LAYOUT, layout) != layout:
        raise InvalidValueError(
            _LAYOUT, environment[_LAYOUT], f"the profile says kv.layout {layout}; unset the variable"
        )
    drain_s = environment.get("PRFAAS_DRAIN_SECONDS")
    if drain_s and not any(argument.split("=", 1)[0] == _SHUTDOWN for argument in extra):
        # By itself vLLM aborts, at SIGTERM, what it is doing; so it finishes requests, and KV that is to be fetched stays.
        flags[_SHUTDOWN] = drain_s
    arguments = ("vllm", "serve", model, *(part for flag in flags.items() for part in flag))
    return Command(
        (*arguments, *container.own(extra, ("--revision", *(flag for flag in flags if flag != _SHUTDOWN)))),
        {
            **environment,
            "VLLM_NIXL_SIDE_CHANNEL_HOST": worker.kv_host,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(worker.kv_port),
            _LAYOUT: layout,
            # Block hashes have to be the same in every worker.
            "PYTHONHASHSEED": environment.get("PYTHONHASHSEED", "0"),
        },
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    container.run(parser(), "VLLM", "vllm", build, argv)


if __name__ == "__main__":
    main()
