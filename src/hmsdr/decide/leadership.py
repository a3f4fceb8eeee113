"""Which controller leads, as it can be told by looking: a name, a term, and a beat that goes on (FA-5, SAFETY rule 11). Pure.

The record is changed by compare-and-swap only, and its term is the log's: whoever takes the lead ends the right of whoever led
before to append. Nobody's wall clock is compared: each watcher counts, on a clock of its own that never jumps, for how long the
record has not changed. Leading gives no right to write to the hospital's database; that is `hmsdr.decide.authority`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NOBODY = ""


@dataclass(frozen=True, slots=True)
class Leadership:
    """The record. ``beat`` counts the signs of life of ``leader`` in ``term``; nobody leads while `leader` is empty."""

    term: int = 0
    leader: str = NOBODY
    beat: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A record, and since when (seconds on the watcher's clock) it has been seen unchanged."""

    record: Leadership
    since: float


def watched(before: Sighting | None, record: Leadership, now: float) -> Sighting:
    """What is known once `record` was read, at `now`."""
    if before is not None and before.record == record:
        return before
    return Sighting(record, now)


def vacant(seen: Sighting, now: float, patience: float) -> bool:
    """Whether somebody else may take the lead: nobody has it, or its holder gave no sign for `patience` seconds."""
    return seen.record.leader == NOBODY or now - seen.since >= patience


def taken(record: Leadership, leader: str) -> Leadership:
    """The record by which `leader` takes the lead, under the next term."""
    return Leadership(record.term + 1, leader, 0)


def beaten(record: Leadership) -> Leadership:
    """The next sign of life."""
    return replace(record, beat=record.beat + 1)


def resigned(record: Leadership) -> Leadership:
    """Nobody leads any more; the term is kept, so that the next one is newer."""
    return replace(record, leader=NOBODY, beat=0)
