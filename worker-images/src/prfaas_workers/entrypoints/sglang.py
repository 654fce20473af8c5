"""`python -m prfaas_workers.entrypoints.sglang --role=prefill|decode|both [-- SGLANG ARGUMENTS]`: start SGLang's server.

The router does not speak SGLang's bootstrap handshake; docs/workers.md says what works with it and what does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from prfaas_core.errors import InvalidValueError
from prfaas_workers.entrypoints import container
from prfaas_workers.entrypoints.container import Command, Container

BACKENDS = ("nixl", "mooncake", "mooncake_tcp")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = container.parser("prfaas-sglang", "Starts SGLang as a worker of a PrefillPool or a DecodePool.")
    p.add_argument("--bootstrap-port", type=int, default=8998, help="of the prefill side's bootstrap server")
    return p


def build(
    options: argparse.Namespace, worker: Container, environment: Mapping[str, str], extra: Sequence[str]
) -> Command:
    """Return the command of SGLang; see `container.Build`."""
    model = options.model or worker.text("model.name")
    flags = {
        "--model-path": model,
        "--served-model-name": worker.text("model.name"),
        **({} if model.startswith("/") else {"--revision": worker.text("model.revision")}),
        "--host": worker.pod_ip,
        "--port": str(container.HTTP_PORT),
        "--context-length": str(worker.count("model.maxModelLenTokens")),
        "--page-size": str(worker.count("kv.pageSizeTokens")),
        "--kv-cache-dtype": worker.text("kv.dtype"),
        "--tp-size": str(worker.count("kv.tensorParallel")),
        "--pp-size": str(worker.count("kv.pipelineParallel")),
    }
    disaggregation = ("--disaggregation-mode", "--disaggregation-transfer-backend", "--disaggregation-bootstrap-port")
    if options.role != "both":
        backend = worker.text("kv.connector.name")
        if backend not in BACKENDS:
            raise InvalidValueError("kv.connector.name", backend, f"give one of {', '.join(BACKENDS)}")
        flags |= dict(zip(disaggregation, (options.role, backend, str(options.bootstrap_port)), strict=True))
    arguments = ("python3", "-m", "sglang.launch_server", *(part for flag in flags.items() for part in flag))
    return Command(
        (*arguments, "--enable-metrics", *container.own(extra, ("--revision", *disaggregation, *flags))),
        {**environment, "SGLANG_HOST_IP": worker.kv_host},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    container.run(parser(), "SGLang", "sglang", build, argv)


if __name__ == "__main__":
    main()
