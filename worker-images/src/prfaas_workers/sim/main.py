"""`prfaas-sim`: start a simulated worker."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.errors import CoreError, lookup
from prfaas_core.profiles import Profile
from prfaas_workers import server
from prfaas_workers.kv_transfer.owner import Owner
from prfaas_workers.sim.engine import Settings, SimulatedEngine

log = logging.getLogger(__name__)


def _positive(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    env = os.environ
    p = argparse.ArgumentParser(prog="prfaas-sim", description="A worker with the service times of a ModelProfile.")
    p.add_argument(
        "--role", choices=["prefill", "decode", "both"], default="both", help="for the log; requests say what they need"
    )
    p.add_argument("--host", default=env.get("POD_IP", "0.0.0.0"), help="address to listen on (default: $POD_IP)")
    p.add_argument("--http-port", type=int, default=8000)
    p.add_argument("--kv-port", type=int, default=int(env.get("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")))
    p.add_argument("--engine-id", default=env.get("POD_NAME", "sim"), help="default: $POD_NAME")
    p.add_argument(
        "--profile", type=Path, default=env.get("PRFAAS_PROFILE_PATH"), required="PRFAAS_PROFILE_PATH" not in env,
        help="the spec of a ModelProfile as JSON (default: $PRFAAS_PROFILE_PATH)",
    )  # fmt: skip
    p.add_argument("--time-scale", type=_positive, default=1.0, help="run so many times faster than the profile")
    p.add_argument("--bytes-scale", type=_positive, default=1.0, help="bytes moved for each byte of KV in the profile")
    p.add_argument("--layers", type=_count, default=8, help="parts that the KV of a request is sent in")
    p.add_argument("--max-num-seqs", type=_count, default=None, help="decode slots (default: the profile's)")
    p.add_argument("--stream-interval-s", type=_positive, default=0.05, help="shortest time between events of a stream")
    p.add_argument("--kv-lease-duration-s", type=_positive, default=30.0)
    p.add_argument("--kv-load-failure-policy", choices=["fail", "recompute"], default="fail")
    p.add_argument("--drain-s", type=_positive, default=20.0, help="time for running requests after SIGTERM")
    return p


async def run(arguments: argparse.Namespace) -> None:
    """Serve until a signal."""
    spec = json.loads(arguments.profile.read_text(encoding="utf-8"))
    profile = Profile.from_spec(spec)
    fingerprint = os.environ.get("PRFAAS_KV_FINGERPRINT") or kv_fingerprint(spec)
    owner = Owner(arguments.engine_id, fingerprint, arguments.kv_lease_duration_s)
    kv_port = await owner.start(arguments.host, arguments.kv_port)
    settings = Settings(
        engine_id=arguments.engine_id,
        fingerprint=fingerprint,
        side_channel_host=os.environ.get("VLLM_NIXL_SIDE_CHANNEL_HOST", arguments.host),
        side_channel_port=kv_port,
        time_scale=arguments.time_scale,
        bytes_scale=arguments.bytes_scale,
        layers=arguments.layers,
        max_num_seqs=arguments.max_num_seqs or profile.decode_slots,
        stream_interval_s=arguments.stream_interval_s,
        recompute=arguments.kv_load_failure_policy == "recompute",
        tensor_parallel=int(str(lookup(spec, "kv.tensorParallel"))),
    )
    log.info("serving %s as %s on %s:%d", profile.model, arguments.role, arguments.host, arguments.http_port)
    try:
        await server.serve(
            SimulatedEngine(profile, settings, owner), arguments.host, arguments.http_port, arguments.drain_s
        )
    finally:
        await owner.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run(arguments))
    except (CoreError, OSError, ValueError) as error:
        sys.exit(f"prfaas-sim: --profile {arguments.profile}: {error}")
