"""What the workers' commands have in common: arguments, defaults from the environment that the operator gives, serving."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.errors import CoreError, InvalidValueError, lookup
from prfaas_core.profiles import Profile
from prfaas_workers import server
from prfaas_workers.computation import Backend
from prfaas_workers.handover import HandoverEngine, Settings
from prfaas_workers.kv_transfer.owner import Owner
from prfaas_workers.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a command adds to what all have.

    Attributes:
        block_tokens, blocks: of the KV cache.
        fingerprint: of the KV that the backend makes.
    """

    backend: Backend
    block_tokens: int
    blocks: int
    fingerprint: str


Prepare = Callable[[argparse.Namespace, dict[str, Any], Profile], Prepared]


def positive(text: str) -> float:
    """Return a number above 0."""
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return the arguments that every worker has."""
    env = os.environ
    p = argparse.ArgumentParser(prog=program, description=description)
    p.add_argument(
        "--role", choices=["prefill", "decode", "both"], default="both", help="for the log; requests say what they need"
    )
    p.add_argument("--host", default=env.get("POD_IP", "0.0.0.0"), help="address to listen on (default: $POD_IP)")
    p.add_argument("--http-port", type=int, default=8000)
    p.add_argument("--kv-port", type=int, default=int(env.get("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")))
    p.add_argument("--engine-id", default=env.get("POD_NAME", program), help="default: $POD_NAME")
    p.add_argument(
        "--profile", type=Path, default=env.get("PRFAAS_PROFILE_PATH"), required="PRFAAS_PROFILE_PATH" not in env,
        help="the spec of a ModelProfile as JSON (default: $PRFAAS_PROFILE_PATH)",
    )  # fmt: skip
    p.add_argument("--max-num-seqs", type=count, default=None, help="decode slots (default: the profile's)")
    p.add_argument("--kv-lease-duration-s", type=positive, default=30.0)
    p.add_argument("--kv-load-failure-policy", choices=["fail", "recompute"], default="fail")
    p.add_argument(
        "--kv-stall-timeout-s",
        type=positive,
        default=30.0,
        help="a transfer that brings nothing for so long has failed",
    )
    p.add_argument(
        "--drain-s", type=positive, default=env.get("PRFAAS_DRAIN_SECONDS", "20"),
        help="time after SIGTERM for running requests and for KV to be fetched (default: $PRFAAS_DRAIN_SECONDS, or 20)",
    )  # fmt: skip
    return p


async def serve(arguments: argparse.Namespace, prepare: Prepare) -> None:
    """Serve until a signal."""
    spec = json.loads(arguments.profile.read_text(encoding="utf-8"))
    if not isinstance(spec, dict):
        raise InvalidValueError("spec", spec, "give the spec of a ModelProfile")
    profile = Profile.from_spec(spec)
    prepared = prepare(arguments, spec, profile)
    owner = Owner(arguments.engine_id, prepared.fingerprint, arguments.kv_lease_duration_s)
    kv_port = await owner.start(arguments.host, arguments.kv_port)
    settings = Settings(
        engine_id=arguments.engine_id,
        fingerprint=prepared.fingerprint,
        side_channel_host=os.environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST", arguments.host),
        side_channel_port=kv_port,
        max_num_seqs=arguments.max_num_seqs or profile.decode_slots,
        recompute=arguments.kv_load_failure_policy == "recompute",
        stall_timeout_s=arguments.kv_stall_timeout_s,
        block_tokens=prepared.block_tokens,
        tensor_parallel=int(str(lookup(spec, "kv.tensorParallel"))),
    )
    metrics = Metrics(profile.model)
    metrics.describe_cache(prepared.block_tokens, prepared.blocks)
    engine = HandoverEngine(profile, settings, owner, prepared.backend, metrics)
    log.info("serving %s as %s on %s:%d", profile.model, arguments.role, arguments.host, arguments.http_port)
    try:
        await server.serve(engine, arguments.host, arguments.http_port, arguments.drain_s)
    finally:
        await owner.stop()


def fingerprint(spec: dict[str, Any]) -> str:
    """Return the fingerprint that the operator gave, or that of the profile."""
    return os.environ.get("PRFAAS_KV_FINGERPRINT") or kv_fingerprint(spec)


def run(commands: argparse.ArgumentParser, argv: Sequence[str] | None, prepare: Prepare) -> None:
    """Run a worker's command."""
    arguments = commands.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(arguments, prepare))
    except (CoreError, OSError, ValueError) as error:
        sys.exit(f"{commands.prog}: --profile {arguments.profile}: {error}")
