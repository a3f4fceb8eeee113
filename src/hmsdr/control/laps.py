"""How long each part of a piece of work took, for the log: where the gap that writers feel comes from. Decides nothing."""

from __future__ import annotations

from hmsdr.control.proctable import boottime


class Laps:
    """Begins when it is made; each `lap` ends a part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """By part, in the order in which they ended."""
        self._since = boottime()

    def lap(self, part: str) -> None:
        """What was done since the part before was `part`; a part that is done again adds up."""
        now = boottime()
        self.seconds[part] = round(self.seconds.get(part, 0.0) + now - self._since, 4)
        self._since = now
