"""All incidents as a fold of the log, and the signals that no incident has yet. Pure; the same events give the same book.

A hundred thousand events are folded in under a second, so a batch is folded into copies that are its own, made once. An event that no
command of ours writes in the state it finds changes nothing: one bad line must not hide an incident from those who work on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hmsdr.decide import signals
from hmsdr.decide.incident import (
    ACTIVE,
    MOVES,
    SEVERITIES,
    Incident,
    Room,
    Round,
    Signal,
    Status,
    Tick,
    Told,
    Word,
    graver,
)
from hmsdr.decide.oncall import COMMANDER
from hmsdr.decide.signals import Recorded

OPENED, JOINED, REOPENED = "incident.opened", "incident.joined", "incident.reopened"
SEVERITY, ACKNOWLEDGED, STATUS = "incident.severity", "incident.acknowledged", "incident.status"
ASSIGNED, NOTED, TICKED = "incident.assigned", "incident.noted", "incident.ticked"
SAID, CALLED = "incident.said", "incident.called"
SUMMARIZED, MET = "incident.summarized", "incident.met"
"""The war room's summary was queued; it arrived, so that the team can meet there."""


@dataclass(frozen=True, slots=True)
class Book:
    """The log as far as it was read. ``head`` is the last event's hash, where it is known."""

    seq: int = 0
    head: str = ""
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    pending: Mapping[str, Signal] = field(default_factory=dict)
    """Signals that no incident has yet, by key."""

    def active(self) -> list[Incident]:
        """Those that go on, oldest first."""
        return [each for each in self.incidents.values() if each.active]


def fold(book: Book, events: Iterable[Recorded]) -> Book:
    """The book with `events` more; those that were read before are passed over."""
    draft = _Draft(book)
    for event in events:
        draft.take(event)
    return draft.book()


class _Draft:
    """A book that is being written: incidents are copied when the first event of the batch is about them."""

    def __init__(self, book: Book) -> None:
        self._seq, self._head = book.seq, book.head
        self._incidents = dict(book.incidents)
        self._pending = dict(book.pending)
        self._mine: set[str] = set()
        self._open: dict[str, set[str]] = {}
        """Which incidents have a signal that has not ended."""
        for incident in book.incidents.values():
            for key, signal in incident.signals.items():
                if signal.ended_at is None:
                    self._open.setdefault(key, set()).add(incident.name)

    def book(self) -> Book:
        return Book(self._seq, self._head, self._incidents, self._pending)

    def take(self, event: Recorded) -> None:
        if event.seq <= self._seq:
            return
        self._seq, self._head = event.seq, getattr(event, "hash", "")
        if event.kind == OPENED:
            self._begin(event)
        elif event.kind.startswith("incident."):
            self._about(event)
        elif event.kind in signals.KINDS:
            for key in signals.ended(event):
                self._end(key, event)
            for signal in signals.began(event):
                self._signal(signal)

    def _mine_of(self, name: str) -> Incident:
        if name not in self._mine:
            self._incidents[name] = self._incidents[name].copy()
            self._mine.add(name)
        return self._incidents[name]

    def _begin(self, event: Recorded) -> None:
        data = event.data
        severity = data.get("severity")
        if event.subject in self._incidents or severity not in SEVERITIES:
            return
        roles = {str(role): tuple(map(str, chain)) for role, chain in data.get("roles", {}).items()}
        taken = self._taken(event)
        since = min((signal.at for signal in taken), default=event.at)
        overruled = data.get("overruled")
        self._mine.add(event.subject)
        incident = self._incidents[event.subject] = Incident(
            name=event.subject,
            title=str(data.get("title", "")),
            by=event.actor,
            opened_seq=event.seq,
            severity=severity,
            proposed=data.get("proposed", severity),
            reasons=tuple(map(str, data.get("reasons", ()))),
            rounds=(Round(min(since, event.at), event.at),),
            roles=roles,
            overruled=Told(str(overruled), event.actor, event.at) if overruled else None,
            seq=event.seq,
            at=event.at,
            events=1,
        )
        self._join(incident, taken)

    def _about(self, event: Recorded) -> None:
        if event.subject not in self._incidents:
            return
        incident = self._mine_of(event.subject)
        incident.seq, incident.at = event.seq, event.at
        incident.events += 1
        if event.actor == next(iter(incident.roles.get(COMMANDER, ())), None):
            incident.sign_at, incident.sign_seq = event.at, event.seq
        if event.kind == JOINED:
            self._join(incident, self._taken(event))
            _propose(incident, event.data)
        elif event.kind == REOPENED:
            self._reopen(incident, event)
        elif (write := _WRITERS.get(event.kind)) is None or not write(incident, event):
            incident.passed_over += 1

    def _reopen(self, incident: Incident, event: Recorded) -> None:
        if incident.active:
            incident.passed_over += 1
            return
        taken = self._taken(event)
        since = min((signal.at for signal in taken), default=event.at)
        incident.status = Status.DECLARED
        incident.rounds = (*incident.rounds, Round(min(since, event.at), event.at))
        incident.notes += 1
        _assign_all(incident, event.data)
        self._join(incident, taken)
        if event.data.get("proposed") in SEVERITIES:
            # It is judged afresh: a word that made it milder was said of what was then.
            incident.overruled, incident.severity = None, event.data["proposed"]
        _propose(incident, event.data)

    def _taken(self, event: Recorded) -> list[Signal]:
        """The signals that this event gives to an incident: pending ones, and what a person saw."""
        keys = event.data.get("signals", ())
        pending = [signal for key in keys if (signal := self._pending.pop(str(key), None)) is not None]
        seen = (signals.received(raw, event) for raw in event.data.get("seen", ()))
        return [*pending, *(signal for signal in seen if signal is not None)]

    def _join(self, incident: Incident, taken: list[Signal]) -> None:
        for signal in taken:
            before = incident.signals.get(signal.key)
            count = signal.count + (before.count if before else 0)
            incident.signals[signal.key] = replace(signal, count=count)
            if signal.ended_at is None:
                self._open.setdefault(signal.key, set()).add(incident.name)

    def _signal(self, signal: Signal) -> None:
        """A signal that is known and goes on is no new one."""
        if any(self._incidents[name].active for name in self._open.get(signal.key, ())):
            return
        before = self._pending.get(signal.key)
        if before is None:
            self._pending[signal.key] = signal
        elif before.ended_at is not None:
            self._pending[signal.key] = replace(signal, at=before.at, count=before.count + 1)

    def _end(self, key: str, event: Recorded) -> None:
        for name in self._open.pop(key, ()):
            incident = self._mine_of(name)
            incident.signals[key] = replace(incident.signals[key], ended_at=event.at)
        if key in self._pending:
            self._pending[key] = replace(self._pending[key], ended_at=event.at)


def _propose(incident: Incident, data: Mapping[str, Any]) -> None:
    """A graver proposal counts at once, unless a person has overruled it: then it is shown beside."""
    proposed = data.get("proposed")
    if proposed not in SEVERITIES:
        return
    incident.proposed, incident.reasons = proposed, tuple(map(str, data.get("reasons", ())))
    if incident.overruled is None:
        incident.severity = graver(incident.severity, proposed)


def _assign_all(incident: Incident, data: Mapping[str, Any]) -> None:
    roles = data.get("roles")
    if isinstance(roles, Mapping):
        incident.roles.update({str(role): tuple(map(str, chain)) for role, chain in roles.items()})


def _acknowledged(incident: Incident, event: Recorded) -> bool:
    if not incident.active:
        return False
    if incident.status is Status.DECLARED:
        incident.status = Status.ACKNOWLEDGED
    return _answered(incident, event)


def _answered(incident: Incident, event: Recorded) -> bool:
    """Somebody has answered; the first one counts."""
    last = incident.round
    if last.acknowledged_at is None:
        _mark(incident, acknowledged_at=event.at, acknowledged_by=event.actor)
    return True


def _status(incident: Incident, event: Recorded) -> bool:
    status = event.data.get("status")
    if status not in tuple(Status) or Status(status) not in MOVES[incident.status]:
        return False
    status = Status(status)
    if status is Status.DECLARED:
        return False
    if status in ACTIVE or status is Status.RESOLVED:
        _answered(incident, event)
    incident.status = status
    if status is Status.RESOLVED:
        _mark(incident, resolved_at=event.at)
        # Nothing else would end what a person saw.
        for key, signal in incident.signals.items():
            if key.startswith("person/") and signal.ended_at is None:
                incident.signals[key] = replace(signal, ended_at=event.at)
    elif status is Status.MITIGATING:
        _mark(incident, mitigating_at=incident.round.mitigating_at or event.at)
    elif status is Status.MONITORING:
        _mark(incident, monitoring_at=incident.round.monitoring_at or event.at)
    return True


def _mark(incident: Incident, **what: Any) -> None:
    """In the current round."""
    incident.rounds = (*incident.rounds[:-1], replace(incident.round, **what))


def _severity(incident: Incident, event: Recorded) -> bool:
    severity = event.data.get("severity")
    if severity not in SEVERITIES:
        return False
    incident.severity = severity
    incident.overruled = Told(str(event.data.get("reason", "")), event.actor, event.at)
    return True


def _assigned(incident: Incident, event: Recorded) -> bool:
    role, person = str(event.data.get("role", "")), str(event.data.get("person", ""))
    if role not in incident.roles or not person:
        return False
    incident.roles[role] = (person, *(name for name in incident.roles[role] if name != person))
    if role == COMMANDER:
        # Whoever is made commander has so long to be heard of.
        incident.sign_at, incident.sign_seq = event.at, event.seq
    return True


def _noted(incident: Incident, event: Recorded) -> bool:
    incident.notes += 1
    if name := event.data.get("field"):
        incident.facts[str(name)] = Told(str(event.data.get("text", "")), event.actor, event.at)
    return True


def _ticked(incident: Incident, event: Recorded) -> bool:
    item = event.data.get("item")
    if not item:
        return False
    done = event.data.get("done", True) is True
    incident.ticks[str(item)] = Tick(done, str(event.data.get("evidence", "")), event.actor, event.at)
    return True


def _said(incident: Incident, event: Recorded) -> bool:
    word = event.data.get("word")
    if word not in tuple(Word):
        return False
    last = incident.round
    if word == Word.RESOLUTION and last.resolved_at is None:
        return False
    _mark(
        incident,
        first_word_at=last.first_word_at or event.at,
        last_word_at=event.at,
        last_word_seq=event.seq,
        updates=last.updates + (word == Word.UPDATE),
        resolution_word_at=last.resolution_word_at or (event.at if word == Word.RESOLUTION else None),
    )
    return True


def _called(incident: Incident, event: Recorded) -> bool:
    series, rung = str(event.data.get("series", "")), event.data.get("rung")
    if not series or not isinstance(rung, int) or rung <= incident.called.get(series, 0):
        return False
    incident.called[series] = rung
    if series == f"page/{len(incident.rounds)}":
        _mark(incident, paged_at=event.at)
    return True


def _summarized(incident: Incident, event: Recorded) -> bool:
    data = event.data
    round_, number, digest = data.get("round"), data.get("number"), data.get("digest")
    if round_ != len(incident.rounds) or not isinstance(number, int) or not isinstance(digest, str):
        return False
    last = incident.room
    if last is not None and (last.round, last.number) >= (round_, number):
        return False
    channel = last.channel if last is not None and last.round == round_ else ""
    incident.room = Room(round_, number, digest, event.at, channel=channel)
    return True


def _met(incident: Incident, event: Recorded) -> bool:
    last = incident.room
    if last is None or event.data.get("key") != room_key(incident.name, last.round, last.number):
        return False
    if last.arrived_at is None:
        incident.room = replace(last, arrived_at=event.at, channel=str(event.data.get("channel", "")))
    if incident.round.room_at is None and last.round == len(incident.rounds):
        _mark(incident, room_at=event.at)
    return True


def room_key(incident: str, number: int, summary: int) -> str:
    """The key of a war room's message: of the incident's round `number`, its summary `summary`."""
    return f"{incident}/war-room/{number}/{summary}"


_WRITERS: Mapping[str, Callable[[Incident, Recorded], bool]] = {
    ACKNOWLEDGED: _acknowledged,
    STATUS: _status,
    SEVERITY: _severity,
    ASSIGNED: _assigned,
    NOTED: _noted,
    TICKED: _ticked,
    SAID: _said,
    CALLED: _called,
    SUMMARIZED: _summarized,
    MET: _met,
}
