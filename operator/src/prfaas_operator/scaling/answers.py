"""How long the answers of decode pools are on the average, for the planner."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from prfaas_operator.scaling.prometheus import Sample
from prfaas_operator.scaling.queries import Workers, flows

_log = structlog.get_logger(__name__)


class AnswerMeter:
    """Reads the mean output length of every decode pool at a steady pace; what was read last stays while nothing is."""

    def __init__(
        self,
        ask: Callable[[Workers, str], Awaitable[Sample]],
        *,
        pools: Callable[[], list[Workers]],
        interval_s: float,
    ) -> None:
        self._ask = ask
        self._pools = pools
        self._interval_s = interval_s
        self._tokens: dict[Workers, float] = {}

    def output_tokens(self, pool: Workers) -> float | None:
        """Return the mean length of the pool's answers in tokens; None when it was never read."""
        return self._tokens.get(pool)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            started_s = time.monotonic()
            pools = self._pools()
            for gone in self._tokens.keys() - set(pools):
                del self._tokens[gone]
            await asyncio.gather(*(self._guarded(pool) for pool in pools))
            await asyncio.sleep(max(0.1, self._interval_s - (time.monotonic() - started_s)))

    async def _guarded(self, pool: Workers) -> None:
        try:
            sample = await self._ask(pool, flows.output_tokens(pool))
        except Exception:  # noqa: BLE001  one failure must not stop the others
            _log.exception("answers not read", pool=pool.pool)
            return
        if sample.value is not None and sample.value > 0:
            self._tokens[pool] = sample.value
