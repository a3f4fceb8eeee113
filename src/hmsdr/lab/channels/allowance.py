"""How many messages a receiver takes: a bucket that fills steadily. Pure: the caller brings the time."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """What one webhook takes.

    Args:
        rate: messages a second that it takes for long.
        burst: messages that it takes at once after a pause.
    """

    rate: float
    burst: int
    _used: float = 0.0
    _at: float = -math.inf

    def wait(self, now: float) -> int:
        """Take one at `now` (seconds, any clock that only goes forward): 0, or the whole seconds after which to ask again."""
        used = max(0.0, self._used - (now - self._at) * self.rate) if self._used else 0.0
        if used + 1 > self.burst:
            return max(1, math.ceil((used + 1 - self.burst) / self.rate))
        self._used, self._at = used + 1, now
        return 0
