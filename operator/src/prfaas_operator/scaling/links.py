"""The meters of the links: bits a second, bytes and money.

Decode engines count the bytes that they receive, but not from where. What crossed a link is therefore that number, measured,
times the part that the prefill pools behind the link handed over, by the S_kv curve of their profile. With no other prefill
pool the part is one, and the figure is a pure measurement.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from prfaas_core.profiles import Curve
from prfaas_operator.api.conditions import Reason
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.prometheus import Sample
from prfaas_operator.scaling.queries import Workers, flows

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MeteredLink:
    """A link, and the pools between which KV moves."""

    ref: Ref
    decode: tuple[Workers, ...]
    behind: tuple[tuple[Workers, Curve], ...]  # prefill pools whose KV crosses the link
    others: tuple[tuple[Workers, Curve], ...]  # prefill pools that feed the same decode pools otherwise
    bytes_before: int  # in the status, when the operator started


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter shows; `used_bps` is None exactly when `reason` says why."""

    used_bps: float | None
    bytes_total: int
    reason: Reason | None
    message: str


class LinkMeter:
    """Reads every link at a steady pace; `on_change` hears of new readings."""

    def __init__(
        self,
        ask: Callable[[Workers, str], Awaitable[Sample]],
        *,
        links: Callable[[], list[MeteredLink]],
        on_change: Callable[[Ref], None],
        interval_s: float,
    ) -> None:
        self._ask = ask
        self._links = links
        self._on_change = on_change
        self._interval_s = interval_s
        self._readings: dict[Ref, Reading] = {}
        self._read_at_s: dict[Ref, float] = {}

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            started_s = time.monotonic()
            links = self._links()
            for gone in self._readings.keys() - {link.ref for link in links}:
                del self._readings[gone]
                self._read_at_s.pop(gone, None)
            await asyncio.gather(*(self._guarded(link) for link in links))
            await asyncio.sleep(max(0.1, self._interval_s - (time.monotonic() - started_s)))

    def reading(self, ref: Ref) -> Reading | None:
        return self._readings.get(ref)

    async def _guarded(self, link: MeteredLink) -> None:
        try:
            await self.read(link)
        except Exception:  # noqa: BLE001  one failure must not stop the others
            _log.exception("link not read", link=str(link.ref))

    async def read(self, link: MeteredLink) -> None:
        """Read one link."""
        before = self._readings.get(link.ref)
        bytes_total = before.bytes_total if before is not None else link.bytes_before
        now_s = time.monotonic()
        elapsed_s = now_s - self._read_at_s.get(link.ref, now_s)
        sample = await self._crossing_bps(link)
        if sample.value is None:
            reading = Reading(None, bytes_total, sample.reason, sample.message)
        else:
            # Over a gap longer than the query looks back, nobody knows what was sent; it is not counted.
            counted_s = min(elapsed_s, flows.LINK_WINDOW_S)
            reading = Reading(sample.value, bytes_total + round(sample.value / 8 * counted_s), None, "")
        self._read_at_s[link.ref] = now_s
        self._readings[link.ref] = reading
        if reading != before:
            self._on_change(link.ref)

    async def _crossing_bps(self, link: MeteredLink) -> Sample:
        if not link.decode or not link.behind:
            return Sample(0.0)
        received = await self._ask(link.decode[0], flows.received_bytes(link.decode))
        if not received.value or not link.others:
            return received if received.value is None else Sample(8 * received.value)
        behind, others = await asyncio.gather(self._handed_over(link.behind), self._handed_over(link.others))
        if behind.value is None or others.value is None:
            return behind if behind.value is None else others
        everything = behind.value + others.value
        if everything <= 0:
            return Sample(None, Reason.SIGNAL_MISSING, "KV arrives, and no prefill pool reports that it hands any over")
        return Sample(8 * received.value * behind.value / everything)

    async def _handed_over(self, pools: tuple[tuple[Workers, Curve], ...]) -> Sample:
        """Return the KV bytes a second that pools hand over; each cluster is asked about by itself."""
        clusters: dict[str, list[tuple[Workers, float, float]]] = {}
        for workers, curve in pools:
            clusters.setdefault(workers.cluster, []).append((workers, *line(curve)))
        found = await asyncio.gather(
            *(self._ask(lines[0][0], flows.handed_over_bytes(lines)) for lines in clusters.values())
        )
        fault = next((sample for sample in found if sample.value is None), None)
        return fault or Sample(sum(sample.value or 0.0 for sample in found))


def line(curve: Curve) -> tuple[float, float]:
    """Return (bytes a request, bytes a token) of the line through the first and the last anchor of S_kv."""
    tokens, values = curve.tokens, curve.values
    slope = (values[-1] - values[0]) / (tokens[-1] - tokens[0])
    return max(0.0, values[0] - slope * tokens[0]), slope
