"""How long a crashed container waits for its next start: the kubelet's rule.

The first restart is immediate, then the delay doubles from the base to the limit. A container that stays away from
crashing for twice the limit starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BASE_S = 10.0
LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class CrashBackoff:
    """Back-off of one container. `delay_s` is the wait that the next exit costs."""

    base_s: float = BASE_S
    limit_s: float = LIMIT_S
    delay_s: float = 0.0
    restarted_s: float | None = None
    """Clock time of the last restart."""

    def restarted(self, now_s: float) -> CrashBackoff:
        """Return the back-off after a restart at this time."""
        if self.restarted_s is None or now_s - self.restarted_s > 2 * self.limit_s:
            delay_s = self.base_s
        else:
            delay_s = min(self.limit_s, self.delay_s * 2)
        return replace(self, delay_s=delay_s, restarted_s=now_s)

    def wait_s(self, exited_s: float) -> float:
        """Return how long a container that exited at this time has to wait, from its exit on."""
        if self.restarted_s is None or exited_s - self.restarted_s > 2 * self.limit_s:
            return 0.0
        return self.delay_s
