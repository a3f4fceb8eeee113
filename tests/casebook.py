"""A log in memory for tests of incidents: events as the store has them, written where and when a test says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hmsdr.decide.incident import Incident
from hmsdr.decide.incidents import Book, fold
from hmsdr.decide.joining import Entry, route
from hmsdr.log.events import Event
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

BOOK: Playbook = load("hms", environ={}, secrets=False)
START = datetime(2026, 6, 3, 15, 0, tzinfo=UTC)
"""A Wednesday, 11:00 in New York: Ada Quill is the commander on call or her backup is."""


class Log:
    """Events in order; ``now`` is the time of the next one."""

    def __init__(self, now: datetime = START) -> None:
        self.events: list[Event] = []
        self.now = now

    def later(self, **time: float) -> Log:
        """Let time pass."""
        self.now += timedelta(**time)
        return self

    def add(self, kind: str, subject: str, actor: str = "controller", /, **data: Any) -> Event:
        """An event, now."""
        seq = len(self.events) + 1
        event = Event(seq, self.now, 1, kind, subject, actor, data, "", f"hash-{seq}")
        self.events.append(event)
        return event

    def began(self, key: str, text: str = "") -> Event:
        """A controller's alert begins."""
        return self.add("alert.began", key, text=text or key, remedy="look")

    def ended(self, key: str) -> Event:
        """A controller's alert ends."""
        return self.add("alert.ended", key)

    def write(self, entries: list[Entry], actor: str = "keeper") -> None:
        """What was decided goes on the record."""
        for entry in entries:
            self.add(entry.kind, entry.subject, actor, **entry.data)

    def route(self, active: str | None = None) -> list[Entry]:
        """Give every pending signal its incident."""
        entries = route(self.book, BOOK, self.now, active)
        self.write(entries)
        return entries

    @property
    def book(self) -> Book:
        """All of it, folded from cold."""
        return fold(Book(), self.events)

    def incident(self, name: str = "INC-1") -> Incident:
        """One of them."""
        return self.book.incidents[name]


def declared(now: datetime = START, key: str = "damage/us-east-1") -> Log:
    """A log with one incident, which a controller's alert opened."""
    log = Log(now)
    log.began(key, "The database of us-east-1 shows damage")
    log.route("us-east-1")
    return log
