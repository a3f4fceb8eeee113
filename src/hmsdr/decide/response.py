"""The response checklist of an incident (IR-1..4): what has been seen to, by whom, what is left, whose it is and until when. Pure.

An item is ticked by the system from what is on the record, with that as its evidence, or by a person, whose word goes before: also
when it opens an item again. Nothing is ticked on faith.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hmsdr.decide.incident import Incident
from hmsdr.decide.oncall import COMMANDER
from hmsdr.playbook.model import Playbook

Phase = Literal["initial", "assessment", "mitigation"]
_SYSTEM = "system"
_LEAD, _OPERATIONS = "technical-lead", "operations-manager"


@dataclass(frozen=True, slots=True)
class Seen:
    """What shows that an item is done."""

    evidence: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One item as it stands. ``owner`` is a person; ``hint`` how it gets done."""

    key: str
    phase: Phase
    title: str
    role: str
    owner: str
    due_at: datetime
    seen: Seen | None
    overdue: bool
    hint: str


@dataclass(frozen=True, slots=True)
class _Item:
    key: str
    phase: Phase
    title: str
    role: str
    shown: Callable[[Incident], Seen | None]
    hint: str


def _fact(name: str) -> Callable[[Incident], Seen | None]:
    """Somebody noted it, in this round."""

    def shown(incident: Incident) -> Seen | None:
        told = incident.facts.get(name)
        if told is None or told.at < incident.round.detected_at:
            return None
        return Seen(told.text, told.by, told.at)

    return shown


def _moment(name: str, words: str) -> Callable[[Incident], Seen | None]:
    """It is on the record that it happened in this round."""

    def shown(incident: Incident) -> Seen | None:
        at = getattr(incident.round, name)
        return None if at is None else Seen(words, _SYSTEM, at)

    return shown


def _declared(incident: Incident) -> Seen:
    return Seen(f"{incident.name}, declared by {incident.by}", _SYSTEM, incident.round.declared_at)


def _log(incident: Incident) -> Seen:
    words = f"{incident.events} events about it are in the log, up to event {incident.seq}"
    return Seen(words, _SYSTEM, incident.at or incident.round.declared_at)


def _impact(incident: Incident) -> Seen | None:
    if (told := _fact("impact")(incident)) is not None:
        return told
    said = incident.overruled
    if said is None or said.at < incident.round.detected_at:
        return None
    return Seen(f"{incident.severity}: {said.text}", said.by, said.at)


def _updated(incident: Incident) -> Seen | None:
    last = incident.round
    if not last.updates or last.last_word_at is None:
        return None
    return Seen(f"{last.updates} updates since the first word", _SYSTEM, last.last_word_at)


def _war_room(incident: Incident) -> Seen | None:
    if (told := _fact("war-room")(incident)) is not None:
        return told
    at, room = incident.round.room_at, incident.room
    if at is None or room is None:
        return None
    return Seen(f"opened on {room.channel}, where its summary is kept up to date", _SYSTEM, at)


def _failover(incident: Incident) -> Seen | None:
    for signal in incident.signals.values():
        if signal.key.startswith("failover/") and signal.at >= incident.round.detected_at:
            return Seen(signal.text, signal.source, signal.at)
    return _fact("failover")(incident)


def _note(field: str) -> str:
    return f"hmsdr incident note INCIDENT --field {field} TEXT"


_ITEMS = (
    _Item("declare", "initial", "Declare the incident", COMMANDER, _declared, "hmsdr incident declare"),
    _Item(
        "activate-team",
        "initial",
        "Activate the team",
        _OPERATIONS,
        _moment("paged_at", "everybody on call was paged"),
        "call those who did not answer: hmsdr incident show",
    ),
    _Item("assess-impact", "initial", "Assess scope and severity", _LEAD, _impact, _note("impact")),
    _Item(
        "first-word",
        "initial",
        "First word to stakeholders",
        COMMANDER,
        _moment("first_word_at", "the first word was sent"),
        "hmsdr incident send INCIDENT first",
    ),
    _Item(
        "war-room",
        "initial",
        "Open the war room",
        _OPERATIONS,
        _war_room,
        f"set channels.war_room, and the keeper opens it; or {_note('war-room')}",
    ),
    _Item("incident-log", "initial", "Keep the incident log", _OPERATIONS, _log, "it keeps itself"),
    _Item(
        "gather",
        "assessment",
        "Gather logs, metrics and error reports",
        _LEAD,
        _fact("evidence"),
        _note("evidence"),
    ),
    _Item("root-cause", "assessment", "Find the root cause", _LEAD, _fact("cause"), _note("cause")),
    _Item(
        "affected",
        "assessment",
        "Determine affected services and users",
        _OPERATIONS,
        _fact("patients"),
        _note("patients"),
    ),
    _Item(
        "choose-mitigation",
        "assessment",
        "Choose the mitigation",
        _LEAD,
        _fact("mitigation"),
        f"hmsdr incident suggest INCIDENT, then {_note('mitigation')}",
    ),
    _Item("estimate", "assessment", "Estimate when it is over", COMMANDER, _fact("eta"), _note("eta")),
    _Item(
        "mitigate",
        "mitigation",
        "Carry the mitigation out",
        _LEAD,
        _moment("mitigating_at", "it is being mitigated"),
        "hmsdr incident status INCIDENT mitigating",
    ),
    _Item(
        "watch",
        "mitigation",
        "Watch its effect",
        _LEAD,
        _moment("monitoring_at", "its effect is being watched"),
        "hmsdr incident status INCIDENT monitoring",
    ),
    _Item(
        "update",
        "mitigation",
        "Keep stakeholders up to date",
        COMMANDER,
        _updated,
        "hmsdr incident send INCIDENT update",
    ),
    _Item(
        "prepare-failover",
        "mitigation",
        "Prepare a failover, if it may be needed",
        _LEAD,
        _failover,
        "hmsdr plan failover FROM TO, then " + _note("failover"),
    ),
    _Item("record-actions", "mitigation", "Record every action", _OPERATIONS, _log, "it keeps itself"),
)
ITEMS: Mapping[str, str] = {item.key: item.title for item in _ITEMS}
"""Title of each item, by the key that ticks it."""


def checklist(incident: Incident, playbook: Playbook, now: datetime) -> tuple[Line, ...]:
    """Every item of the current round, in the source's order."""
    phases = playbook.procedures.response
    lines = []
    for item in _ITEMS:
        by = incident.round.detected_at + getattr(phases, item.phase)
        seen = _seen(incident, item)
        owner = next(iter(incident.roles.get(item.role, ())), item.role)
        late = seen is None and incident.active and now > by
        hint = item.hint.replace("INCIDENT", incident.name)
        lines.append(Line(item.key, item.phase, item.title, item.role, owner, by, seen, late, hint))
    return tuple(lines)


def _seen(incident: Incident, item: _Item) -> Seen | None:
    """A person's word in this round, else what the record shows."""
    tick = incident.ticks.get(item.key)
    if tick is not None and tick.at >= incident.round.detected_at:
        return Seen(tick.evidence or "ticked by hand", tick.by, tick.at) if tick.done else None
    return item.shown(incident)
