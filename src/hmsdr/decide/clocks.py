"""What is due in an incident, and what was missed (CL-2, CM-2, CO-3): derived from the log alone, so it survives every restart. Pure.

Each expectation is a *series* of calls along a ladder, from the instant at which it was missed:

    nobody acknowledges, or a word is not said    the backup is called; a step later the phones ring; a step later everybody is called
    nothing is heard of the commander             the commander is asked; a step later the backup; then as above
    and then everybody again and again, until it is done

What was called is on the record as the last rung of its series: so nothing is called twice, and whoever was away finds each rung that
was missed. A series ends when what it waits for has happened; what happens next is a series of its own. Another severity re-times it.
Quiet hours move calls of SEV-2 and SEV-3 to the morning, never those of SEV-0 and SEV-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from hmsdr.decide.incident import Incident, Status
from hmsdr.decide.oncall import COMMANDER, awake
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import SeverityName

NEVER_QUIET: frozenset[SeverityName] = frozenset({"SEV-0", "SEV-1"})


class How(StrEnum):
    """How people are called."""

    PAGE = "page"
    CALL = "call"
    PHONE = "phone"
    EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class Due:
    """One call that is due. ``series`` and ``rung`` name it for good; ``text`` says why, for whoever is called."""

    incident: str
    series: str
    rung: int
    due_at: datetime
    how: How
    people: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Target:
    """One expectation against what happened. ``met`` is None while it is still open and not late."""

    name: str
    due_at: datetime
    done_at: datetime | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    base: datetime
    """When its first rung is due, without quiet hours."""
    ladder: tuple[How, ...]
    text: str
    again: bool = True


_MISSED = (How.CALL, How.PHONE, How.EVERYBODY)


def due(incident: Incident, playbook: Playbook, now: datetime) -> tuple[Due, ...]:
    """Every call that is due at `now` and was not made, in the order in which they were due."""
    found = [
        call
        for series in _waiting(incident, playbook)
        for call in _rungs(incident, playbook, series, now)
        if call.due_at <= now
    ]
    return tuple(sorted(found, key=lambda call: (call.due_at, call.series, call.rung)))


def next_due(incident: Incident, playbook: Playbook, now: datetime) -> datetime | None:
    """When the next call after `now` is due, if nothing happens until then; None when nothing is waited for."""
    return min(
        (
            call.due_at
            for series in _waiting(incident, playbook)
            for call in _rungs(incident, playbook, series, now)
            if call.due_at > now
        ),
        default=None,
    )


def targets(incident: Incident, playbook: Playbook, now: datetime) -> tuple[Target, ...]:
    """Every round's expectations against what happened; quiet hours excuse none."""
    response = playbook.severities[incident.severity].response
    cadence = playbook.cadence
    found: list[Target] = []
    for number, each in enumerate(incident.rounds, 1):
        of = f" (round {number})" if number > 1 else ""
        found.append(_target(f"acknowledged{of}", each.detected_at + response, each.acknowledged_at, now))
        if each.first_word_at is not None or each.resolved_at is None:
            by = each.detected_at + cadence.first_word
            found.append(_target(f"first word{of}", by, each.first_word_at, now))
        if each.resolved_at is not None:
            by = each.resolved_at + cadence.resolution
            found.append(_target(f"resolution notice{of}", by, each.resolution_word_at, now))
    if (by_then := next_update(incident, playbook)) is not None:
        found.append(_target("next update", by_then, None, now))
    return tuple(found)


def next_update(incident: Incident, playbook: Playbook) -> datetime | None:
    """When the next word is due, while it goes on and one was said; None otherwise."""
    last = incident.round.last_word_at
    return last + playbook.cadence.update if incident.active and last is not None else None


def commander_heard_at(incident: Incident) -> datetime | None:
    """The last sign of the acting commander; while there is none, when somebody acknowledged."""
    since = incident.round.acknowledged_at
    if incident.sign_at is None or since is None:
        return since
    return max(since, incident.sign_at)


def _target(name: str, by: datetime, done: datetime | None, now: datetime) -> Target:
    if done is None:
        return Target(name, by, None, False if now > by else None)
    return Target(name, by, done, done <= by)


def _waiting(incident: Incident, playbook: Playbook) -> Iterator[_Series]:
    """What is waited for now."""
    number, last = len(incident.rounds), incident.round
    cadence = playbook.cadence
    what = f"{incident.name} ({incident.severity})"
    if incident.active:
        yield _Series(
            f"page/{number}",
            last.declared_at,
            (How.PAGE,),
            f"{what}: you are on call: {incident.title}",
            False,
        )
    if incident.active and last.acknowledged_at is None:
        response = playbook.severities[incident.severity].response
        text = f"{what}: nobody has acknowledged within {format_duration(response)}"
        yield _Series(f"response/{number}", last.detected_at + response, _MISSED, text)
    if incident.active and last.first_word_at is None:
        text = f"{what}: nobody was told within {format_duration(cadence.first_word)} of detection"
        yield _Series(f"first-word/{number}", last.detected_at + cadence.first_word, _MISSED, text)
    if (by := next_update(incident, playbook)) is not None:
        text = f"{what}: no update for {format_duration(cadence.update)}"
        yield _Series(f"update/{last.last_word_seq}", by, _MISSED, text)
    if incident.status is Status.RESOLVED and last.resolved_at and last.resolution_word_at is None:
        text = f"{what}: resolved, and nobody was told within {format_duration(cadence.resolution)}"
        yield _Series(f"resolution/{number}", last.resolved_at + cadence.resolution, _MISSED, text)
    heard = commander_heard_at(incident)
    if incident.active and heard is not None:
        presence = playbook.on_call.calling.presence
        text = f"{what}: nothing was heard of the incident commander for {format_duration(presence)}"
        ladder = (How.PAGE, *_MISSED)
        yield _Series(f"commander/{number}/{incident.sign_seq}", heard + presence, ladder, text)


def _rungs(incident: Incident, playbook: Playbook, series: _Series, now: datetime) -> Iterator[Due]:
    """What of the series was not called: all that is due, and the next one."""
    rung = incident.called.get(series.name, 0)
    while series.again or rung < len(series.ladder):
        rung += 1
        at = series.base + _offset(playbook, len(series.ladder), rung)
        if incident.severity not in NEVER_QUIET:
            at = awake(playbook.on_call, at)
        how = series.ladder[min(rung, len(series.ladder)) - 1]
        people = _people(incident, series, how)
        yield Due(incident.name, series.name, rung, at, how, people, series.text)
        if at > now:
            return


def _offset(playbook: Playbook, length: int, rung: int) -> timedelta:
    calling = playbook.on_call.calling
    return calling.step * (min(rung, length) - 1) + calling.again * max(0, rung - length)


def _people(incident: Incident, series: _Series, how: How) -> tuple[str, ...]:
    """Who is called; nobody twice."""
    commander = incident.roles.get(COMMANDER, ())
    if series.name.startswith("page/"):
        return tuple(dict.fromkeys(chain[0] for chain in incident.roles.values() if chain))
    if how is How.PAGE:
        return commander[:1]
    if how is How.EVERYBODY:
        return tuple(dict.fromkeys(name for chain in incident.roles.values() for name in chain))
    return commander[:2]
