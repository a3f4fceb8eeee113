"""What happened: events, and the hash chain that binds each to all before it. Pure values.

Everything that people see is a fold of these; nothing here stores or sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

GENESIS = "0" * 64
"""Hash before the first event."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is to be appended.

    ``kind`` is dotted (``step.started``), ``subject`` what it is about (a run's id), ``actor`` who did it
    (``runner``, or a person's name), ``data`` JSON values only.
    """

    kind: str
    subject: str
    actor: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """An event in the log. ``at`` is UTC by the writer's wall clock; order is ``seq``, never time."""

    seq: int
    at: datetime
    term: int
    kind: str
    subject: str
    actor: str
    data: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log: what an append is compared with (SAFETY rule 11)."""

    seq: int
    term: int
    hash: str


def chain_hash(previous: str, seq: int, at: str, term: int, event: NewEvent) -> str:
    """SHA-256 over the previous hash and the event's canonical JSON."""
    body = json.dumps(
        [previous, seq, at, term, event.kind, event.subject, event.actor, event.data],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return hashlib.sha256(body.encode()).hexdigest()


def chain(events: Sequence[NewEvent], head: Head, at: datetime) -> tuple[Event, ...]:
    """The events as they follow `head`: numbered, dated `at` (UTC), each bound to the one before.

    Their data is what JSON makes of it: that is what will be read.
    """
    stored: list[Event] = []
    seq, digest = head.seq, head.hash
    text = at.isoformat(timespec="microseconds")
    for event in events:
        seq += 1
        previous, digest = digest, chain_hash(digest, seq, text, head.term, event)
        data = json.loads(json.dumps(event.data, ensure_ascii=False))
        stored.append(
            Event(seq, at, head.term, event.kind, event.subject, event.actor, data, previous, digest)
        )
    return tuple(stored)


def after(head: Head, stored: Sequence[Event]) -> Head:
    """The head once `stored` follow it."""
    return Head(stored[-1].seq, head.term, stored[-1].hash) if stored else head
