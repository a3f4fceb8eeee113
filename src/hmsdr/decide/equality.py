"""What two sides' tables, added up at one moment, say of each other; and what of it still counts when users are to move. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

COMPARED = "data.compared"
"""The event of a comparison that was finished: when, at which LSN, and whether all was equal."""


class Kind(StrEnum):
    """How a row, or a table, is not the same. Words are seen from the standby, which should be as the primary is."""

    CHANGED = "changed"
    MISSING = "missing"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class Odd:
    """One row that is not the same; ``key`` names it: ``id=42``, or where it lies in a table without a primary key."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a table is not the same.

    ``rows`` are the first of them, in the order in which the table has them; ``more`` that there are others beside them.
    """

    table: str
    pages: tuple[int, int | None] | None = None
    rows: tuple[Odd, ...] = ()
    more: bool = False
    found: str = ""
    """What is wrong with the table as a whole, where it cannot be compared row by row."""

    def words(self) -> str:
        """For people, in one line."""
        if self.found:
            return f"{self.table}: {self.found}"
        pages = ""
        if self.pages is not None:
            end = "the end" if self.pages[1] is None else str(self.pages[1] - 1)
            pages = f" (pages {self.pages[0]} to {end})"
        if not self.rows:
            return f"{self.table}{pages}: rows differ"
        first, last = self.rows[0].key, self.rows[-1].key
        where = first if first == last else f"{first} … {last}"
        each = ", ".join(f"{row.key} {row.kind}" for row in self.rows)
        return f"{self.table}{pages}: {where}: {each}{', and more' if self.more else ''}"


def odd_rows(primary: Mapping[str, int], standby: Mapping[str, int]) -> tuple[Odd, ...]:
    """The rows (key to hash, in the table's order) that are not the same, those of the primary first."""
    found = [
        Odd(Kind.MISSING if key not in standby else Kind.CHANGED, key)
        for key, number in primary.items()
        if standby.get(key) != number
    ]
    return (*found, *(Odd(Kind.EXTRA, key) for key in standby if key not in primary))


def only_on_one_side(primary: Sequence[str], standby: Sequence[str]) -> tuple[Difference, ...]:
    """Tables that the other side lacks."""
    lacking = [
        Difference(name, found="the standby has no such table") for name in primary if name not in standby
    ]
    more = [
        Difference(name, found="only the standby has such a table") for name in standby if name not in primary
    ]
    return (*lacking, *more)
