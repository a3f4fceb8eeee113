"""When a region, or a service of it, counts as lost (FA-1): unreachable for as long as the hold-down says. Pure.

It judges what one vantage point saw, one look after the other. Independent confirmation is a matter of its own, and
comes after this (FA-3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum


class Sight(StrEnum):
    """What one look at a region, or at a service of it, gave."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    BLIND = "blind"
    """The vantage point could see nothing at all: that says nothing of what it looked at."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look. ``at`` is seconds on a clock that never jumps; ``evidence`` is path to what was found there."""

    at: float
    sight: Sight
    evidence: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of a region or a service. ``since`` is when it was first unreachable in this stretch; None while it is not."""

    hold_down: timedelta
    longest_gap: timedelta
    """Looks further apart than this do not join: nobody knows what was in between."""
    since: float | None = None
    last: Look | None = None
    restarted: int = 0
    """How often a clock that ran was set back by a gap or by blindness: said, never silent."""
    recovery: timedelta = timedelta(0)
    """For how long it must answer again before the clock is set back (hysteresis). Nothing: one answer does."""
    well_since: float | None = None
    """When it began to answer again while the clock runs on."""

    def remaining(self, now: float) -> float | None:
        """Seconds until the hold-down is over; None while it is reachable."""
        if self.since is None:
            return None
        return max(0.0, self.since + self.hold_down.total_seconds() - now)

    @property
    def lost(self) -> bool:
        """The hold-down is over, as of the last look. While it answers, however shortly, it is not lost."""
        if self.last is None or self.last.sight is not Sight.UNREACHABLE:
            return False
        return self.remaining(self.last.at) == 0.0


def look(watch: Watch, seen: Look) -> Watch:
    """What is known after one more look.

    Raises:
        ValueError: it is older than the one before.
    """
    if watch.last is not None and seen.at < watch.last.at:
        msg = f"a look from {seen.at} after one from {watch.last.at}"
        raise ValueError(msg)
    gap = watch.last is not None and seen.at - watch.last.at > watch.longest_gap.total_seconds()
    ran = watch.since is not None
    if seen.sight is Sight.REACHABLE:
        well = seen.at if watch.well_since is None else watch.well_since
        if ran and not gap and seen.at - well < watch.recovery.total_seconds():
            return replace(watch, last=seen, well_since=well)
        return replace(watch, since=None, last=seen, well_since=None)
    if seen.sight is Sight.BLIND:
        return replace(watch, since=None, last=seen, well_since=None, restarted=watch.restarted + ran)
    if ran and not gap:
        return replace(watch, last=seen, well_since=None)
    return replace(
        watch, since=seen.at, last=seen, well_since=None, restarted=watch.restarted + (ran and gap)
    )
