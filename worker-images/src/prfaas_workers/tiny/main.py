"""`prfaas-tiny`: start a worker with the tiny model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import prfaas_workers
from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.errors import InvalidValueError, lookup
from prfaas_core.profiles import Profile
from prfaas_workers import command_line
from prfaas_workers.command_line import Prepared, count
from prfaas_workers.tiny import weights
from prfaas_workers.tiny.engine import TinyBackend
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.store import Geometry
from prfaas_workers.tiny.weights import Weights


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line.parser("prfaas-tiny", "A worker with a small real transformer on CPU.")
    p.add_argument("--seed", type=int, default=0, help="of the weights; the profile's model.revision has to be theirs")
    p.add_argument("--kv-cache-pages", type=count, help="size of the KV cache (default: prefixCache.capacityTokens)")
    return p


def check(spec: dict[str, Any], model: Weights) -> None:
    """Refuse a profile that says of the KV what is not so: its fingerprint would let wrong KV through.

    Raises:
        InvalidValueError, MissingFieldError: with the field's path in the spec.
    """
    for path, fact, why in (
        ("engine.name", "Tiny", "this is prfaas-tiny"),
        ("engine.version", prfaas_workers.VERSION, "this worker's version"),
        ("model.revision", model.revision, "the weights that --seed makes"),
        ("model.bytesPerToken", 1, "every byte is a token"),
        ("kv.attention", "GQA", "the model's attention"),
        ("kv.tensorParallel", 1, "one process computes the model"),
        ("kv.pipelineParallel", 1, "one process computes the model"),
    ):
        value = lookup(spec, path)
        if value != fact:
            raise InvalidValueError(path, value, f"give {fact!r}: {why}")


def fingerprint(spec: dict[str, Any]) -> str:
    """Return the fingerprint of a checked profile.

    Raises:
        InvalidValueError: the operator gave that of another profile.
    """
    own, given = kv_fingerprint(spec), os.environ.get("PRFAAS_KV_FINGERPRINT")
    if given and given != own:
        raise InvalidValueError("PRFAAS_KV_FINGERPRINT", given, f"the profile's is {own}; give that, or unset it")
    return own


def prepare(arguments: argparse.Namespace, spec: dict[str, Any], profile: Profile) -> Prepared:
    """Return the engine of a profile."""
    made = weights.make(arguments.seed)
    check(spec, made)
    kv = fingerprint(spec)
    page_tokens = int(str(lookup(spec, "kv.pageSizeTokens")))
    geometry = Geometry(made.shape, page_tokens, str(lookup(spec, "kv.dtype")), str(lookup(spec, "kv.layout")))
    pages = arguments.kv_cache_pages or profile.cache_capacity_tokens // page_tokens
    if pages < 1:
        raise InvalidValueError(
            "prefixCache.capacityTokens", profile.cache_capacity_tokens, "give a page at least, or --kv-cache-pages"
        )
    model = Model(made, profile.max_model_len_tokens)
    return Prepared(
        backend=TinyBackend(profile.model, model, geometry, pages),
        block_tokens=page_tokens,
        blocks=pages,
        fingerprint=kv,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    command_line.run(parser(), argv, prepare)
