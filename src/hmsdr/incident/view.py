"""An incident as faces show it: the command line, the console, a report. Values only; words for people are the faces' own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hmsdr.decide.clocks import due, next_due, targets
from hmsdr.decide.incident import Incident, Signal, Told
from hmsdr.decide.incidents import Book
from hmsdr.decide.outbox import NOT_ARRIVED, Outbox
from hmsdr.decide.response import checklist
from hmsdr.log.events import Event
from hmsdr.playbook.model import Playbook


def book_as_json(book: Book, playbook: Playbook, now: datetime) -> dict[str, Any]:
    """All incidents in short, and the signals that have none yet."""
    return {
        "incidents": [_short(each, playbook, now) for each in book.incidents.values()],
        "alerts_without_incident": [_signal(each) for each in book.pending.values()],
    }


def as_json(incident: Incident, playbook: Playbook, now: datetime) -> dict[str, Any]:
    """Everything that is known of one, as of `now`."""
    following = next_due(incident, playbook, now)
    return {
        **_short(incident, playbook, now),
        "reasons": list(incident.reasons),
        "overruled": _told(incident.overruled),
        "roles": {role: list(chain) for role, chain in incident.roles.items()},
        "targets": [
            {"name": each.name, "due_at": _at(each.due_at), "done_at": _at(each.done_at), "met": each.met}
            for each in targets(incident, playbook, now)
        ],
        "checklist": [
            {
                "item": line.key,
                "phase": line.phase,
                "title": line.title,
                "owner": line.owner,
                "due_at": _at(line.due_at),
                "done": line.seen is not None,
                "overdue": line.overdue,
                "by": line.seen and line.seen.by,
                "at": line.seen and _at(line.seen.at),
                "evidence": line.seen and line.seen.evidence,
            }
            for line in checklist(incident, playbook, now)
        ],
        "due": [
            {
                "series": each.series,
                "rung": each.rung,
                "due_at": _at(each.due_at),
                "how": str(each.how),
                "people": list(each.people),
                "text": each.text,
            }
            for each in due(incident, playbook, now)
        ],
        "next_due_at": _at(following),
        "alerts": [_signal(each) for each in incident.signals.values()],
        "facts": {name: _told(each) for name, each in incident.facts.items()},
        "rounds": [
            {name: value if isinstance(value, int | str) else _at(value) for name, value in _fields(each)}
            for each in incident.rounds
        ],
        "events": incident.events,
        "passed_over": incident.passed_over,
    }


def messages(outbox: Outbox, incident: str) -> list[dict[str, Any]]:
    """Every message of an incident in the order in which they were queued, and what became of it."""
    done = [
        {
            "key": key,
            "word": each.word,
            "audience": each.audience,
            "queued_at": _at(each.queued_at),
            "state": "not arrived" if each.receipt in NOT_ARRIVED else "arrived" if each.receipt else "sent",
            "channel": each.channel,
            "sent_at": _at(each.at),
            "receipt": each.receipt or None,
            "maybe_twice": each.maybe_twice,
            "tried": None,
            "found": each.before,
        }
        for key, each in outbox.done.items()
        if each.incident == incident
    ]
    waiting = [
        {
            "key": key,
            "word": each.word,
            "audience": each.audience,
            "queued_at": _at(each.queued_at),
            "state": "sending" if each.sending_at is not None else "waiting",
            "channel": each.sending_on or ", ".join(each.channels),
            "sent_at": None,
            "receipt": None,
            "maybe_twice": each.doubtful,
            "tried": sum(each.tried.values()),
            "found": each.found,
        }
        for key, each in outbox.waiting.items()
        if each.incident == incident
    ]
    return sorted([*done, *waiting], key=lambda each: (str(each["queued_at"]), str(each["key"])))


def timeline(events: list[Event]) -> list[dict[str, Any]]:
    """What happened, in order: who, when, what."""
    return [
        {"seq": each.seq, "at": _at(each.at), "kind": each.kind, "by": each.actor, "data": dict(each.data)}
        for each in events
    ]


def _short(incident: Incident, playbook: Playbook, now: datetime) -> dict[str, Any]:
    last = incident.round
    return {
        "incident": incident.name,
        "title": incident.title,
        "status": str(incident.status),
        "severity": incident.severity,
        "proposed": incident.proposed,
        "declared_by": incident.by,
        "detected_at": _at(last.detected_at),
        "declared_at": _at(last.declared_at),
        "acknowledged_at": _at(last.acknowledged_at),
        "acknowledged_by": last.acknowledged_by,
        "resolved_at": _at(last.resolved_at),
        "services": list(incident.services),
        "regions": list(incident.regions),
        "missed": [each.name for each in targets(incident, playbook, now) if each.met is False],
    }


def _fields(value: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(value, name)) for name in type(value).__dataclass_fields__]


def _signal(signal: Signal) -> dict[str, Any]:
    return {
        "key": signal.key,
        "text": signal.text,
        "source": signal.source,
        "effect": signal.effect,
        "at": _at(signal.at),
        "ended_at": _at(signal.ended_at),
        "count": signal.count,
    }


def _told(told: Told | None) -> dict[str, Any] | None:
    return None if told is None else {"text": told.text, "by": told.by, "at": _at(told.at)}


def _at(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
