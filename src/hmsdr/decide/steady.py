"""Hysteresis: what is seen is believed, and told, when it was seen so many times in a row. Values in, values out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Steady:
    """What is believed, and what was seen last.

    ``since`` is when the row of equal looks began, ``count`` how long it is (no further than was asked for). None: not yet.
    """

    told: str | None = None
    seen: str | None = None
    count: int = 0
    since: float = 0.0


def look(before: Steady, seen: str, at: float, confirm: int) -> Steady:
    """One look more, at `at`; what was seen `confirm` times in a row is believed. Compare ``told`` to know what is news."""
    if seen == before.seen:
        if before.count >= confirm:
            return before
        count, since = before.count + 1, before.since
    else:
        count, since = 1, at
    return Steady(seen if count >= confirm else before.told, seen, count, since)
