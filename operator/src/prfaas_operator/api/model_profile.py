"""ModelProfile: one model on one kind of accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from prfaas_operator.api.model import Model
from prfaas_operator.api.resource import AGE, READY, REASON, Column, Definition, Resource
from prfaas_operator.api.rules import Rule, immutable
from prfaas_operator.api.scalars import Between, Count, ModelName, NonNegative, Positive, Seconds, Term, Tokens
from prfaas_operator.api.status import Status

_IDENTITY: Final = "it is part of the KV fingerprint; make another ModelProfile and point the pools' profileRef to it"


class EngineName(StrEnum):
    """The programs that workers run."""

    VLLM = "VLLM"
    SGLANG = "SGLang"
    SIM = "Sim"
    TINY = "Tiny"


class Attention(StrEnum):
    """Kinds of attention, by what they keep of a prompt."""

    MHA = "MHA"
    GQA = "GQA"
    MLA = "MLA"
    SLIDING_WINDOW = "SlidingWindow"
    HYBRID = "Hybrid"


class ProfiledModel(Model):
    """The model as engines and clients know it."""

    name: Annotated[ModelName, immutable("model.name", _IDENTITY)]
    """Name of the model, as requests and engines say it. Cannot change."""
    revision: Annotated[Term, immutable("model.revision", _IDENTITY)]
    """Revision of the weights. Cannot change."""
    max_model_len_tokens: Tokens
    """Longest sequence, prompt and output together, in tokens."""
    bytes_per_token: Annotated[Positive, Field(le=64)] = 4
    """UTF-8 bytes of text a token, to estimate the length of prompts that come as text."""


class Engine(Model):
    """The program that workers run."""

    name: EngineName
    """VLLM, SGLang, or the stand-ins Sim (simulated service times) and Tiny (a small model on CPU)."""
    version: Term
    """Version of the engine; both sides of a handover must run the same."""


class Accelerator(Model):
    """The hardware of one worker."""

    name: Term
    """Name of the accelerator, such as H200."""
    count_per_instance: Annotated[int, Between(1, 1024)] = 1
    """Accelerators of one worker."""
    cost_per_hour: NonNegative | None = None
    """Money for one accelerator and hour, in the currency of your bill; budgets reckon with it."""


class KVConnector(Model):
    """How KV moves between engines."""

    name: Term
    """Name of the connector, such as NixlConnector (decode reads) or NixlPushConnector (prefill writes)."""
    version: Term
    """Version of the connector's wire format; both sides of a handover must have the same."""


class KVCache(Model):
    """What the bytes of the KV cache mean."""

    attention: Attention
    """MHA, GQA, MLA, SlidingWindow, or Hybrid for layers of different kinds."""
    layout: Term
    """Order of the cache's dimensions, in the engine's words, such as LBHNC."""
    page_size_tokens: Annotated[int, Between(1, 65536)]
    """Tokens of one page (block) of the cache."""
    dtype: Annotated[
        Term,
        Rule(
            "self != 'auto'",
            "auto says nothing about the bytes; name the dtype that the engine resolves it to, such as bfloat16",
            lambda dtype: dtype != "auto",
        ),
    ]
    """Type of the cache's elements, such as bfloat16 or fp8_e4m3."""
    tensor_parallel: Annotated[int, Between(1, 1024)] = 1
    """Tensor parallel size of a worker."""
    pipeline_parallel: Annotated[int, Between(1, 1024)] = 1
    """Pipeline parallel size of a worker."""
    connector: KVConnector
    """How KV moves between engines."""


class PrefillAnchor(Model):
    """Prefill time of one length."""

    tokens: Tokens
    """Uncached tokens of the prompt."""
    seconds: Seconds
    """Seconds that one worker takes to prefill them, alone."""


class KVSizeAnchor(Model):
    """KV size of one length."""

    tokens: Tokens
    """Tokens of the prompt."""
    bytes: Annotated[int, Between(1, 2**50)]
    """Bytes of KV to hand over for them, over all ranks of one worker."""


def _ascending(anchors: Sequence[Any]) -> bool:
    return all(before.tokens < after.tokens for before, after in pairwise(anchors))


def _curve_rules(value: str) -> tuple[Rule, Rule]:
    return (
        Rule(
            "self.all(place, anchor, place == 0 || self[place - 1].tokens < anchor.tokens)",
            "anchors are not in ascending order of tokens; sort them, with each number of tokens once",
            _ascending,
        ),
        Rule(
            f"self.all(place, anchor, place == 0 || self[place - 1].{value} <= anchor.{value})",
            f"{value} fall where tokens rise; a longer prompt takes no less, so measure again or drop the outlier",
            lambda anchors: all(getattr(a, value) <= getattr(b, value) for a, b in pairwise(anchors)),
        ),
    )


_ANCHORS: Final = Field(min_length=2, max_length=128)
_PREFILL_RULES: Final = _curve_rules("seconds")
_KV_SIZE_RULES: Final = _curve_rules("bytes")


class DecodeSpeed(Model):
    """What one worker decodes."""

    slots: Count
    """Requests that one worker decodes at once within the inter-token SLO."""
    step_seconds: Seconds
    """Seconds of one decode step with all slots taken."""


class PrefixCache(Model):
    """The prefix cache of one worker."""

    capacity_tokens: Annotated[int, Between(0, 2**40)] = 0
    """Tokens that the cache of one worker holds; 0: none, or unknown."""
    block_tokens: Annotated[int, Between(1, 65536)] = 512
    """Granularity in which the router remembers prefixes, in tokens."""


class ModelProfileSpec(Model):
    """One model on one kind of accelerator."""

    model: ProfiledModel
    """The model as engines and clients know it."""
    engine: Annotated[Engine, immutable("engine", _IDENTITY, shown=None)]
    """The program that workers run. Cannot change."""
    accelerator: Accelerator
    """The hardware of one worker."""
    kv: Annotated[KVCache, immutable("kv", _IDENTITY, shown=None)]
    """What the bytes of the KV cache mean. Cannot change."""
    prefill: Annotated[tuple[PrefillAnchor, ...], _ANCHORS, _PREFILL_RULES[0], _PREFILL_RULES[1]]
    """Prefill time over length: lines through these anchors, level before the first, the last line going on behind the
    last."""
    kv_size: Annotated[tuple[KVSizeAnchor, ...], _ANCHORS, _KV_SIZE_RULES[0], _KV_SIZE_RULES[1]]
    """KV size over length, interpolated in the same way."""
    decode: DecodeSpeed
    """What one worker decodes."""
    prefix_cache: PrefixCache = PrefixCache()
    """The prefix cache of one worker."""


class ModelProfileStatus(Status):
    """What the operator derived from a profile."""

    kv_fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$", max_length=64)] | None = None
    """SHA-256 over the fields that give KV bytes their meaning; pools pair only if theirs are equal."""


class ModelProfile(Resource):
    """One model on one kind of accelerator: what its KV bytes mean, and how long prefill and decode take."""

    definition: ClassVar[Definition] = Definition(
        plural="modelprofiles",
        short_name="mprof",
        columns=(
            Column("Model", ".spec.model.name", "The model, as requests say it."),
            Column("Engine", ".spec.engine.name", "The program that workers run."),
            Column("Accelerator", ".spec.accelerator.name", "The hardware of one worker."),
            Column("KV", ".status.kvFingerprint", "Fingerprint of the KV bytes' meaning.", priority=1),
            READY,
            REASON,
            AGE,
        ),
        selectable=(".spec.model.name",),
    )

    kind: Literal["ModelProfile"] = "ModelProfile"
    spec: ModelProfileSpec
    """What is asked for."""
    status: ModelProfileStatus = ModelProfileStatus()
    """What the operator observed."""
