"""What one model does on one kind of accelerator: prefill time, KV size and decode speed over length.

The rule of every `Curve`, here once for the router, the planner, the simulator and the simulated workers:

- between anchors: the straight line through the two neighbours;
- below the first anchor: the first value. A small prefill is dominated by fixed cost, so this errs high, and no length
  has a time or size of zero;
- above the last anchor: the last segment goes on. Prefill grows faster than a line, so far beyond the last anchor this
  errs low; profile up to the model's length.

Anchors ascend in length and never fall in value: a measured curve that falls is noise, and is refused with the anchor
that falls, so that whoever measured it decides which of the two to believe.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, cast

from prfaas_core import errors


@dataclass(frozen=True, slots=True)
class Curve:
    """A positive quantity that does not fall with length; see the module for the interpolation rule.

    Attributes:
        tokens: lengths of the anchors, strictly ascending, two at least.
        values: the quantity at each anchor, above zero and not falling.
        name: the field that messages name.
    """

    tokens: tuple[float, ...]
    values: tuple[float, ...]
    name: str = "curve"

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.values):
            raise errors.InvalidValueError(
                self.name, (len(self.tokens), len(self.values)), "give one value for each length"
            )
        if len(self.tokens) < 2:
            raise errors.InvalidValueError(self.name, self.tokens, "give at least two anchors")
        for index, (tokens, value) in enumerate(zip(self.tokens, self.values, strict=True)):
            errors.positive(f"{self.name}[{index}].tokens", tokens)
            errors.positive(f"{self.name}[{index}].value", value)
        for index, (before, after) in enumerate(pairwise(self.tokens), start=1):
            if after <= before:
                raise errors.InvalidValueError(
                    f"{self.name}[{index}].tokens", after, f"order anchors by length; the one before has {before:g}"
                )
        for index, (low, high) in enumerate(pairwise(self.values), start=1):
            if high < low:
                raise errors.InvalidValueError(
                    f"{self.name}[{index}].value",
                    high,
                    f"longer prompts cannot take less; the anchor before has {low:g}",
                )

    @classmethod
    def through(cls, anchors: Iterable[tuple[float, float]], name: str = "curve") -> Self:
        """Build a curve from `(tokens, value)` pairs."""
        pairs = tuple(anchors)
        return cls(tuple(tokens for tokens, _ in pairs), tuple(value for _, value in pairs), name)

    def __call__(self, tokens: float) -> float:
        """Return the value at a length of `tokens`, zero or more."""
        lengths = self.tokens
        if tokens <= lengths[0]:
            return self.values[0]
        right = min(bisect_right(lengths, tokens), len(lengths) - 1)
        intercept, slope = self._line(right)
        return intercept + slope * tokens

    def inverse(self, value: float) -> float:
        """Return the greatest length whose value is at most `value`; 0: none has, infinity: all have."""
        if value < self.values[0]:
            return 0.0
        # The first anchor above `value` bounds the segment that crosses it.
        right = min(bisect_right(self.values, value), len(self.values) - 1)
        intercept, slope = self._line(right)
        return (value - intercept) / slope if slope > 0 else float("inf")

    def segments(self, low: float, high: float) -> Iterable[tuple[float, float, float, float]]:
        """Yield `(from, to, intercept, slope)` of the linear pieces that cover lengths from `low` up to `high`."""
        first, last = self.tokens[0], len(self.tokens) - 1
        if low < first:
            yield low, min(high, first), self.values[0], 0.0
            low = first
        right = min(max(bisect_right(self.tokens, low), 1), last)
        while low < high:
            end = high if right == last else min(high, self.tokens[right])
            intercept, slope = self._line(right)
            yield low, end, intercept, slope
            low, right = end, min(right + 1, last)

    def pieces(self) -> tuple[tuple[float, float, float], ...]:
        """Return `(end_tokens, intercept, slope)` of every linear piece in order; the last one ends at infinity."""
        last = len(self.tokens) - 1
        lines = ((self.tokens[right] if right < last else math.inf, *self._line(right)) for right in range(1, last + 1))
        return ((self.tokens[0], self.values[0], 0.0), *lines)

    def scaled(self, factor: float) -> Curve:
        """Return the curve with every value multiplied by `factor`."""
        return Curve(self.tokens, tuple(value * errors.positive("factor", factor) for value in self.values), self.name)

    def _line(self, right: int) -> tuple[float, float]:
        x0, x1 = self.tokens[right - 1], self.tokens[right]
        y0, y1 = self.values[right - 1], self.values[right]
        slope = (y1 - y0) / (x1 - x0)
        return y0 - slope * x0, slope


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one kind of instance, as a ModelProfile states it.

    Attributes:
        model: the name that clients and engines use.
        max_model_len_tokens: prompt and output together.
        bytes_per_token: UTF-8 bytes a token, for prompts that come as text.
        accelerator: name, for people.
        accelerators_per_instance: GPUs of one instance; P in equation (2).
        prefill_s: T_prefill, seconds of one instance over uncached tokens.
        kv_bytes: S_kv, bytes over tokens.
        decode_slots: BS_max, requests that one instance decodes at once.
        step_s: T_decode, seconds of one decode step at full batch.
        cache_capacity_tokens: prefix cache of one instance.
        block_tokens: granularity of the prefix index.
    """

    model: str
    max_model_len_tokens: int
    bytes_per_token: float
    accelerator: str
    accelerators_per_instance: int
    prefill_s: Curve
    kv_bytes: Curve
    decode_slots: int
    step_s: float
    cache_capacity_tokens: int
    block_tokens: int

    def __post_init__(self) -> None:
        errors.text("model.name", self.model)
        errors.count("model.maxModelLenTokens", self.max_model_len_tokens, minimum=1)
        errors.positive("model.bytesPerToken", self.bytes_per_token)
        errors.count("accelerator.countPerInstance", self.accelerators_per_instance, minimum=1)
        errors.count("decode.slots", self.decode_slots, minimum=1)
        errors.positive("decode.stepSeconds", self.step_s)
        errors.count("prefixCache.capacityTokens", self.cache_capacity_tokens)
        errors.count("prefixCache.blockTokens", self.block_tokens, minimum=1)

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> Self:
        """Read the `spec` of a ModelProfile.

        Raises:
            InvalidValueError, MissingFieldError: with the field's path in the spec. `model.bytesPerToken` and
                `prefixCache` have defaults: 4 bytes, no cache, blocks of 512 tokens.
        """
        return cls(
            model=errors.text("model.name", errors.lookup(spec, "model.name")),
            max_model_len_tokens=errors.count(
                "model.maxModelLenTokens", errors.lookup(spec, "model.maxModelLenTokens"), minimum=1
            ),
            bytes_per_token=errors.positive("model.bytesPerToken", _optional(spec, "model", "bytesPerToken", 4)),
            accelerator=errors.text("accelerator.name", errors.lookup(spec, "accelerator.name")),
            accelerators_per_instance=errors.count(
                "accelerator.countPerInstance", _optional(spec, "accelerator", "countPerInstance", 1), minimum=1
            ),
            prefill_s=_curve(spec, "prefill", "seconds"),
            kv_bytes=_curve(spec, "kvSize", "bytes"),
            decode_slots=errors.count("decode.slots", errors.lookup(spec, "decode.slots"), minimum=1),
            step_s=errors.positive("decode.stepSeconds", errors.lookup(spec, "decode.stepSeconds")),
            cache_capacity_tokens=errors.count(
                "prefixCache.capacityTokens", _optional(spec, "prefixCache", "capacityTokens", 0)
            ),
            block_tokens=errors.count(
                "prefixCache.blockTokens", _optional(spec, "prefixCache", "blockTokens", 512), minimum=1
            ),
        )

    def decode_rps(self, output_tokens: float) -> float:
        """Return what one instance decodes: BS_max / (T_decode * L_out), equation (5), in requests/s."""
        return self.decode_slots / (self.step_s * errors.positive("output_tokens", output_tokens))

    def kv_rate_bps(self, tokens: float) -> float:
        """Return Phi_kv(l) = S_kv(l) / T_prefill(l), equation (1), in bit/s."""
        return 8 * self.kv_bytes(tokens) / self.prefill_s(tokens)


def _optional(spec: Mapping[str, object], section: str, key: str, default: object) -> object:
    part = spec.get(section)
    if part is None:
        return default
    if not isinstance(part, Mapping):
        raise errors.InvalidValueError(section, part, "give a mapping")
    value = cast("Mapping[str, object]", part).get(key)
    return default if value is None else value


def _curve(spec: Mapping[str, object], field: str, unit: str) -> Curve:
    entries = errors.lookup(spec, field)
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        raise errors.InvalidValueError(field, entries, f"give a list of {{tokens, {unit}}}")
    anchors: list[tuple[float, float]] = []
    for index, entry in enumerate(entries):
        at = f"{field}[{index}]"
        if not isinstance(entry, Mapping):
            raise errors.InvalidValueError(at, entry, f"give {{tokens, {unit}}}")
        for key in ("tokens", unit):
            if key not in entry:
                raise errors.MissingFieldError(f"{at}.{key}", "set it")
        anchors.append((errors.positive(f"{at}.tokens", entry["tokens"]), errors.positive(f"{at}.{unit}", entry[unit])))
    return Curve.through(anchors, field)
