"""Whether another agent speaks for our instance: its right is not taken over while it is renewed. Values in, values out.

An agent takes over what an earlier life of it held. Under an epoch that its own disk does not know, the holder may as well be an agent
on another machine that was given the same name, with the database that writes: so it is watched first, for longer than a renewal takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hmsdr.decide.authority import Authority, Holder, Phase

_SHARE = 0.5
"""Of a lease, which is renewed each quarter: whoever is still for so long does not renew it."""
_MOVES = 2
"""One renewal may have been on its way when its sender died; a second one is from somebody alive."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Who else holds our instance's right, as far as it was watched: the last renewal, since when, how often that moved."""

    holder: Holder | None = None
    renewal: int = 0
    since: float = 0.0
    moves: int = 0

    @property
    def alive(self) -> bool:
        """Whether it certainly renews."""
        return self.holder is not None and self.moves >= _MOVES

    def gone(self, now: float, lease_seconds: float) -> bool:
        """Whether there is none, or it has been still for long enough to be an earlier life."""
        return self.holder is None or now - self.since >= _SHARE * lease_seconds


def watch(before: Rival, record: Authority, us: Holder, now: float, *, knows: Callable[[int], bool]) -> Rival:
    """One look at the record, at `now` (seconds of one process's clock); `knows` says whether an epoch was accepted here."""
    holder = record.holder
    ours = (
        record.phase is Phase.HELD and holder is not None and holder.instance == us.instance and holder != us
    )
    if not ours or knows(record.epoch):
        return Rival()
    if before.holder != holder:
        return Rival(holder, record.renewal, now)
    if before.renewal != record.renewal:
        return replace(before, renewal=record.renewal, since=now, moves=before.moves + 1)
    return before
