"""What an incident is: its life, who has which role, what was said. The one file that owns an incident's states. Pure values.

    declared -> acknowledged -> mitigating <-> monitoring -> resolved -> reviewed
    declared -> mitigating | monitoring | resolved    whoever works on it has answered: it counts as acknowledged, too
    acknowledged -> monitoring | resolved
    resolved | reviewed -> declared                   reopened: it came back, and somebody must answer again

Each time that it is declared or reopened begins a round, with its own clocks. Only the fold (`decide/incidents.py`) writes these
values, and only copies of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, get_args

from hmsdr.playbook.people import SeverityName

SEVERITIES: tuple[SeverityName, ...] = get_args(SeverityName)
"""Gravest first."""
Effect = Literal["lost", "down", "damaged", "unwritable", "degraded"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)


class Status(StrEnum):
    """Where an incident is in its life."""

    DECLARED = "declared"
    ACKNOWLEDGED = "acknowledged"
    MITIGATING = "mitigating"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    REVIEWED = "reviewed"


ACTIVE = frozenset({Status.DECLARED, Status.ACKNOWLEDGED, Status.MITIGATING, Status.MONITORING})
MOVES: Mapping[Status, frozenset[Status]] = {
    Status.DECLARED: frozenset({Status.ACKNOWLEDGED, Status.MITIGATING, Status.MONITORING, Status.RESOLVED}),
    Status.ACKNOWLEDGED: frozenset({Status.MITIGATING, Status.MONITORING, Status.RESOLVED}),
    Status.MITIGATING: frozenset({Status.MONITORING, Status.RESOLVED}),
    Status.MONITORING: frozenset({Status.MITIGATING, Status.RESOLVED}),
    Status.RESOLVED: frozenset({Status.REVIEWED, Status.DECLARED}),
    Status.REVIEWED: frozenset({Status.DECLARED}),
}


class Word(StrEnum):
    """The source's three messages (CM-4)."""

    FIRST = "first"
    UPDATE = "update"
    RESOLUTION = "resolution"


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that was seen: by a controller, by monitoring.

    ``key`` names it for good; ``text`` may come from outside, and is never trusted with more than being shown.
    """

    key: str
    text: str
    at: datetime
    source: str
    effect: Effect = "degraded"
    regions: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    severity: SeverityName | None = None
    """What its source proposes."""
    ended_at: datetime | None = None
    count: int = 1
    """How often it began."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something a person or the system said, for the record."""

    text: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Tick:
    """An item of the checklist, ticked or opened again."""

    done: bool
    evidence: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Round:
    """From declaring, or reopening, to the notice that it is over. What has not happened is None."""

    detected_at: datetime
    declared_at: datetime
    paged_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    first_word_at: datetime | None = None
    last_word_at: datetime | None = None
    last_word_seq: int = 0
    updates: int = 0
    mitigating_at: datetime | None = None
    monitoring_at: datetime | None = None
    resolved_at: datetime | None = None
    resolution_word_at: datetime | None = None
    room_at: datetime | None = None
    """When the war room was opened: its first summary arrived."""


@dataclass(frozen=True, slots=True)
class Room:
    """The war room's newest summary: ``digest`` names its words; ``number`` counts in its round."""

    round: int
    number: int
    digest: str
    queued_at: datetime
    arrived_at: datetime | None = None
    channel: str = ""
    """Which took the last one that arrived."""


@dataclass(slots=True)
class Incident:
    """One incident, as the log has it. Read it; only the fold writes, to a copy of its own."""

    name: str
    """``INC-7``: the seventh of this log."""
    title: str
    by: str
    """Who, or what, declared it."""
    opened_seq: int
    severity: SeverityName
    proposed: SeverityName
    reasons: tuple[str, ...]
    rounds: tuple[Round, ...]
    roles: dict[str, tuple[str, ...]]
    """By role: who has it, then who is called in turn."""
    status: Status = Status.DECLARED
    overruled: Told | None = None
    """A person's word for the severity, and why."""
    signals: dict[str, Signal] = field(default_factory=dict)
    facts: dict[str, Told] = field(default_factory=dict)
    """What is known, by field of the templates: impact, cause, next-steps … The last word counts."""
    notes: int = 0
    ticks: dict[str, Tick] = field(default_factory=dict)
    called: dict[str, int] = field(default_factory=dict)
    """By series of calls: the last rung that was called."""
    room: Room | None = None
    """The war room, once its first summary was queued."""
    sign_at: datetime | None = None
    """The acting commander's last sign of life."""
    sign_seq: int = 0
    seq: int = 0
    at: datetime | None = None
    events: int = 0
    passed_over: int = 0
    """Events that no command of ours writes in this state: they change nothing, and are counted."""

    @property
    def round(self) -> Round:
        """The current one."""
        return self.rounds[-1]

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self.status in ACTIVE

    @property
    def services(self) -> tuple[str, ...]:
        """Services that its signals name."""
        return tuple(sorted({name for signal in self.signals.values() for name in signal.services}))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that its signals name."""
        return tuple(sorted({name for signal in self.signals.values() for name in signal.regions}))

    def copy(self) -> Incident:
        """One's own, to write to."""
        return replace(
            self,
            roles=dict(self.roles),
            signals=dict(self.signals),
            facts=dict(self.facts),
            ticks=dict(self.ticks),
            called=dict(self.called),
        )


def graver(one: SeverityName, other: SeverityName) -> SeverityName:
    """The graver of two severities."""
    return min(one, other, key=SEVERITIES.index)
