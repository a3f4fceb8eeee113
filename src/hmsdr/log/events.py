"""What happened: events, and the hash chain that binds each to all before it. Pure values.

Everything that people see is a fold of these; nothing here stores or sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
