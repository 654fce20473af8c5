"""`prfaas-sim`: start a simulated worker."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from prfaas_core.profiles import Profile
from prfaas_workers import command_line
from prfaas_workers.command_line import Prepared, count, positive
from prfaas_workers.sim.engine import Scales, SimulatedBackend


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line.parser("prfaas-sim", "A worker with the service times of a ModelProfile.")
    p.add_argument("--time-scale", type=positive, default=1.0, help="run so many times faster than the profile")
    p.add_argument("--bytes-scale", type=positive, default=1.0, help="bytes moved for each byte of KV in the profile")
    p.add_argument("--layers", type=count, default=8, help="parts that the KV of a request is sent in")
    p.add_argument("--stream-interval-s", type=positive, default=0.05, help="shortest time between events of a stream")
    return p


def prepare(arguments: argparse.Namespace, spec: dict[str, Any], profile: Profile) -> Prepared:
    """Return the simulator of a profile."""
    scales = Scales(arguments.time_scale, arguments.bytes_scale, arguments.layers, arguments.stream_interval_s)
    return Prepared(
        backend=SimulatedBackend(profile, scales),
        block_tokens=profile.block_tokens,
        blocks=profile.cache_capacity_tokens // profile.block_tokens,
        fingerprint=command_line.fingerprint(spec),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command_line.run(parser(), argv, prepare)
