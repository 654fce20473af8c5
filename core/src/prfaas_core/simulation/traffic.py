"""Requests as they arrive: random, or from a trace. Every source is an iterator of `Arrival` in order of time.

Random sources take a `random.Random`, so that a seed gives the same requests again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from prfaas_core import errors

Arrival = tuple[float, int, int, tuple[bytes, ...]]
"""Seconds from the start, prompt tokens, output tokens, and keys of the prompt's whole blocks (empty: no prefix caching).
Equal keys mean an equal prefix up to and including that block."""

_MINUTE_S, _NOISE_MEMORY_S = 60.0, 600.0

Sampler = Callable[[Random], int]
"""Draws a number of tokens."""


def log_normal(mu: float, sigma: float, low: int, high: int) -> Sampler:
    """Return a sampler of a log-normal truncated to [low, high], by rejection."""
    errors.positive("sigma", sigma)
    if high <= low:
        raise errors.InvalidValueError("high", high, f"give more than low ({low})")

    def draw(random: Random) -> int:
        while True:
            tokens = int(math.exp(random.normalvariate(mu, sigma)))
            if low <= tokens <= high:
                return tokens

    return draw


def fixed(tokens: int) -> Sampler:
    """Return a sampler that always gives the same."""
    errors.count("tokens", tokens, minimum=1)
    return lambda _random: tokens


CASE_STUDY_INPUT = log_normal(9.90, 1.00, 128, 131_072)
"""Prompt lengths of the paper's case study, section 4.1."""


def poisson(
    random: Random, rate_rps: float, count: int, inputs: Sampler = CASE_STUDY_INPUT, output_tokens: int = 1024
) -> Iterator[Arrival]:
    """Yield `count` independent requests at a constant rate."""
    errors.positive("rate_rps", rate_rps)
    now_s, nothing = 0.0, ()
    exponential = random.expovariate
    for _ in range(count):
        now_s += exponential(rate_rps)
        yield now_s, inputs(random), output_tokens, nothing


def varying(
    random: Random,
    phases: Sequence[tuple[float, float, Sampler]],
    output_tokens: int = 1024,
) -> Iterator[Arrival]:
    """Yield requests in phases of `(seconds, rate_rps, inputs)`: bursts, and mixes that shift."""
    start_s = 0.0
    for length_s, rate_rps, inputs in phases:
        errors.positive("phase.seconds", length_s)
        now_s = start_s
        if errors.non_negative("phase.rate_rps", rate_rps) > 0:
            while (now_s := now_s + random.expovariate(rate_rps)) < start_s + length_s:
                yield now_s, inputs(random), output_tokens, ()
        start_s += length_s


def diurnal(
    random: Random,
    length_s: float,
    mean_rps: float,
    *,
    inputs: Sampler,
    outputs: Sampler,
    swing: float = 0.7,
    noise: float = 0.15,
    day_s: float = 86_400.0,
) -> Iterator[Arrival]:
    """Yield requests whose rate goes up and down once a day, with noise.

    Args:
        random: source of chance.
        length_s: of the whole; it begins at the quietest time.
        mean_rps: requests a second over a day.
        inputs, outputs: tokens of prompts and answers.
        swing: of the rate, as a part of the mean; below 1.
        noise: standard deviation of the logarithm of the rate about that; it changes by the minute and forgets in ten.
        day_s: length of a day.
    """
    errors.positive("mean_rps", mean_rps)
    if not 0 <= errors.non_negative("swing", swing) < 1:
        raise errors.InvalidValueError("swing", swing, "give a number from 0 up to 1")
    deviation, begin_s = 0.0, 0.0
    keep = math.exp(-_MINUTE_S / _NOISE_MEMORY_S)
    while begin_s < length_s:
        deviation = keep * deviation + math.sqrt(1 - keep * keep) * random.gauss(0.0, noise)
        rate_rps = mean_rps * (1 - swing * math.cos(2 * math.pi * begin_s / day_s)) * math.exp(deviation)
        now_s = begin_s
        while (now_s := now_s + random.expovariate(rate_rps)) < min(begin_s + _MINUTE_S, length_s):
            yield now_s, inputs(random), outputs(random), ()
        begin_s += _MINUTE_S


def repeated(arrivals: Iterable[Arrival], length_s: float, until_s: float) -> Iterator[Arrival]:
    """Yield requests that take `length_s` over and over until `until_s`, without their prefixes.

    A prefix that comes again with every repetition would make caches better than they are.
    """
    errors.positive("length_s", length_s)
    once = tuple(arrivals)
    begin_s = 0.0
    while begin_s < until_s:
        for at_s, tokens, output_tokens, _ in once:
            if begin_s + at_s >= until_s:
                return
            yield begin_s + at_s, tokens, output_tokens, ()
        begin_s += length_s


def conversations(
    random: Random,
    rate_rps: float,
    count: int,
    *,
    turns: int,
    first: Sampler,
    growth: Sampler,
    think_s: float,
    block_tokens: int = 512,
    shared_blocks: int = 0,
    output_tokens: int = 256,
) -> tuple[Arrival, ...]:
    """Return about `count` requests of chats or agents, each turn of which repeats everything before it.

    Args:
        random: source of chance.
        rate_rps: requests a second, all turns of all conversations together.
        count: conversations times `turns`, rounded down to whole conversations.
        turns: requests of one conversation.
        first: prompt tokens of the first turn.
        growth: tokens that each turn adds, the answer before it included.
        think_s: mean time between two turns; exponential.
        block_tokens: of the prefix caches.
        shared_blocks: blocks of a system prompt that every conversation starts with.
        output_tokens: of each answer.
    """
    errors.count("turns", turns, minimum=1)
    arrivals: list[Arrival] = []
    start_s = 0.0
    shared = tuple(_key(0, index) for index in range(shared_blocks))
    for conversation in range(1, count // turns + 1):
        start_s += random.expovariate(rate_rps / turns)
        now_s, tokens = start_s, max(first(random), shared_blocks * block_tokens + 1)
        for _ in range(turns):
            own = range(shared_blocks, tokens // block_tokens)
            arrivals.append((now_s, tokens, output_tokens, (*shared, *(_key(conversation, block) for block in own))))
            now_s += random.expovariate(1 / think_s)
            tokens += growth(random)
    arrivals.sort(key=lambda arrival: arrival[0])
    return tuple(arrivals)


def trace(
    rows: Iterable[tuple[float, int, int, Sequence[int]]], block_tokens: int, speed: float = 1.0
) -> Iterator[Arrival]:
    """Yield the requests of a trace given as `(arrival_s, input_tokens, output_tokens, block ids)`.

    Ids of blocks are made into keys of prefixes: equal ids after different beginnings are different keys. A last block
    that is not full is left out, as engines do. `speed` makes the trace arrive so many times faster.
    """
    errors.positive("speed", speed)
    known: dict[tuple[bytes, int], bytes] = {}
    for arrival_s, input_tokens, output_tokens, ids in rows:
        keys: list[bytes] = []
        before = b""
        for block in ids[: input_tokens // block_tokens]:
            entry = (before, block)
            before = known.get(entry) or known.setdefault(entry, len(known).to_bytes(8, "big"))
            keys.append(before)
        yield arrival_s / speed, input_tokens, output_tokens, tuple(keys)


def _key(conversation: int, block: int) -> bytes:
    return conversation.to_bytes(6, "big") + block.to_bytes(4, "big")
