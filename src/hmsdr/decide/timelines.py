"""Where two databases that once were one went different ways: PostgreSQL's timelines, read and compared. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hmsdr.decide.lsn import parse_lsn


@dataclass(frozen=True, slots=True)
class Stretch:
    """One timeline of a database's history, in bytes of WAL. ``ends`` is None for the one it is on."""

    timeline: int
    begins: int
    ends: int | None


def history(timeline: int, text: str) -> tuple[Stretch, ...]:
    """The stretches that led to `timeline`, from the text of its history file (empty for the first timeline).

    Raises:
        ValueError: not a history file.
    """
    switches: list[tuple[int, int]] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) < 2:  # noqa: PLR2004 - a timeline and where it was left
            msg = f"expected a timeline and an LSN, found {line!r}"
            raise ValueError(msg)
        switches.append((int(words[0]), parse_lsn(words[1])))
    if any(earlier >= later for (earlier, _), (later, _) in pairwise(switches)) or any(
        number >= timeline for number, _ in switches
    ):
        msg = f"its timelines do not lead to {timeline}"
        raise ValueError(msg)
    begins = [0, *(switch for _, switch in switches)]
    numbers = [*(number for number, _ in switches), timeline]
    ends: list[int | None] = [*(switch for _, switch in switches), None]
    return tuple(Stretch(*each) for each in zip(numbers, begins, ends, strict=True))


def fork(ours: Sequence[Stretch], theirs: Sequence[Stretch]) -> int | None:
    """Up to where both have the same, in bytes of WAL: what `ours` has from there on, `theirs` never saw.

    None when they are on one timeline: then one only has less than the other.

    Raises:
        ValueError: they have nothing in common.
    """
    common: tuple[Stretch, Stretch] | None = None
    for mine, other in zip(ours, theirs, strict=False):
        if (mine.timeline, mine.begins) != (other.timeline, other.begins):
            break
        common = mine, other
    if common is None:
        msg = "their histories have no timeline in common"
        raise ValueError(msg)
    ends = [stretch.ends for stretch in common if stretch.ends is not None]
    return min(ends, default=None)
