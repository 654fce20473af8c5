"""The parts that move in a simulation: requests on their way, and workers."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from prfaas_core import routing
from prfaas_core.profiles import Curve

if TYPE_CHECKING:
    from prfaas_core.simulation.link import LinkState
    from prfaas_core.simulation.pool import PoolState


class Job:
    """One request from its arrival to its last token.

    Attributes:
        keys: of its whole blocks, for prefix caches.
        work_s: prefill seconds that the router expects, in its account of `prefill`.
        cached_tokens: what the prefill worker went on from.
        prefill: worker that prefills; the decode worker itself when it absorbs.
        token: changes when what was planned for the job is off, so that events of before are ignored.
        kv_bytes: to move over `link`, or None when none was used.
        lost_mark_s: decode time that `decode` had lost when the end was planned.
    """

    __slots__ = (
        "arrived_s", "cached_tokens", "decode", "due_s", "first_token_s", "keys", "kv_bytes", "link",
        "lost_mark_s", "number", "output_tokens", "paced_until_s", "prefill", "prefilled_s", "rate", "reason",
        "remaining_bytes", "service_s", "tail_bytes", "token", "tokens", "work_s",
    )  # fmt: skip

    def __init__(self, number: int, arrived_s: float, tokens: int, output_tokens: int, keys: tuple[bytes, ...]) -> None:
        self.number = number
        self.arrived_s = arrived_s
        self.tokens = tokens
        self.output_tokens = output_tokens
        self.keys = keys
        self.token = 0
        self.link: LinkState | None = None
        self.kv_bytes = 0.0
        self.cached_tokens = 0
        self.reason: routing.Reason
        self.prefill: Worker
        self.decode: Worker
        self.work_s: float
        self.service_s: float
        self.prefilled_s: float
        self.first_token_s: float
        self.lost_mark_s: float
        self.due_s: float
        self.rate: float
        self.remaining_bytes: float
        self.tail_bytes: float
        self.paced_until_s: float


class Worker(routing.Worker):
    """A worker of any pool; what the router sees of it is its base.

    Attributes:
        queue, running: prefills that wait, and the batch that is computed.
        ends_s, began_s: of the batch.
        in_slots, waiting: requests in slots, and those that wait for one.
        lost_s: decode time lost to prefills that are over.
        loss_rate: decode time lost a second while a prefill runs.
        alive: false once it died or left.
        leaving: where it goes when it is drained; None: it stays.
    """

    __slots__ = (
        "alive", "began_s", "ends_s", "in_slots", "leaving", "loss_rate", "lost_s", "pool", "prefill_s", "queue",
        "running", "token", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, pool: PoolState, prefill_s: Curve) -> None:
        super().__init__(name, 0, 0)
        self.pool = pool
        self.prefill_s = prefill_s
        self.queue: deque[Job] = deque()
        self.running: list[Job] = []
        self.began_s = self.ends_s = -math.inf
        self.in_slots: dict[int, Job] = {}
        self.waiting: deque[Job] = deque()
        self.lost_s = 0.0
        self.loss_rate = 0.0
        self.token = 0
        self.alive = True
        self.leaving: PoolState | None = None

    def lost_until(self, now_s: float) -> float:
        """Return the decode time that prefills have taken up to now."""
        return self.lost_s + (self.loss_rate * (now_s - self.began_s) if self.running else 0.0)
