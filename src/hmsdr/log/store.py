"""The contract of the event log, the authority record and the controllers' council; one test suite runs against every store.

All promise compare-and-swap and nothing more. A store decides nothing about what may be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hmsdr.decide.authority import Authority
from hmsdr.decide.leadership import Leadership
from hmsdr.errors import FailedError
from hmsdr.log.events import Event, Head, NewEvent


class StoreError(FailedError):
    """The store could not be read or written; whether an append took effect is then not known."""


class StoreFullError(StoreError):
    """The store has no space left: nothing can be written, no right renewed, until somebody makes room."""


class HeadMovedError(StoreError):
    """Somebody else appended first; nothing was written. Read on, then try again."""


class TermOverError(StoreError):
    """Another writer took over under a newer term; nothing was written. Stop acting at once."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append made: the events as they are stored, and the head after them."""

    head: Head
    events: tuple[Event, ...]


class EventLog(Protocol):
    """Append-only log whose head (sequence and term) every append is compared with."""

    async def head(self) -> Head:
        """The current head."""
        ...

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        """Events with a sequence above `after`, in order; with `subject`, only those about it."""
        ...

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Appended:
        """Append all of `events` in one transaction if the head is still `expected`.

        Raises:
            HeadMovedError: the sequence moved on under the same term.
            TermOverError: a newer term began.
            StoreError: not stored, or not known to be.
        """
        ...

    async def begin_term(self, leader: str) -> Head:
        """Begin a new term for `leader`; every append under an older term is refused from then on."""
        ...


class AuthorityStore(Protocol):
    """Keeper of the one authority record."""

    async def read_authority(self) -> Authority:
        """The record as of now. Never a reason to take the right away (SAFETY rule 4)."""
        ...

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        """Put `new` in place of `expected`; False when the record is not `expected` any more.

        Raises:
            StoreError: unclear answer; it may or may not have been swapped.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sitting:
    """What the council saw, as of one moment: the log's end, who leads, who may write, and each site's last word."""

    head: Head
    leadership: Leadership
    authority: Authority
    words: Mapping[str, Mapping[str, Any]]


class Council(Protocol):
    """Where the sites' controllers leave their last word and settle who leads. What they say does not enter the log."""

    async def meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        """Read everything, then put the last word of `site` (JSON values) in place of the one before.

        The words are those from before: who speaks for one's own site can so be told.

        Raises:
            StoreError: unclear answer; the word may or may not have been put.
        """
        ...

    async def leadership(self) -> Leadership:
        """Who leads, as of now."""
        ...

    async def settle(self, expected: Leadership, new: Leadership) -> bool:
        """Put `new` in place of `expected`; False when the record is not `expected` any more. Its term is the log's.

        Raises:
            StoreError: unclear answer.
        """
        ...


class Store(EventLog, AuthorityStore, Council, Protocol):
    """All of it, in one place."""

    async def close(self) -> None:
        """Close connections and files."""
        ...
