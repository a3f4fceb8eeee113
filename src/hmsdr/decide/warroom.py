"""The war room of an incident (IR-1): where the team meets, and the pinned summary that is kept up to date there. Pure.

    queued -> arrived      the first one opens the room; each later one takes its place, numbered, when something in it has changed

A channel here can only be posted to: the newest summary counts, and says so. It has no clock in it, so that the same incident gives the
same words, and a quiet one posts nothing. The next is queued only when the last has arrived: a channel that is down piles up nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from hmsdr.decide.clocks import next_update
from hmsdr.decide.harmless import one_line
from hmsdr.decide.incident import Incident, Status
from hmsdr.decide.messages import MOST_SUBJECT, STATUS_WORDS, Page
from hmsdr.decide.suggestions import Suggestion, suggest
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import WarRoom

WORD = "war-room"
"""The kind of its messages."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is to be pinned. ``digest`` names its words, without the number; ``number`` counts from 1 in each round."""

    digest: str
    round: int
    number: int
    subject: str
    body: str


def due(incident: Incident, playbook: Playbook, now: datetime, active: str | None) -> Summary | None:
    """The summary that is to be posted now; None while the last one says it all, or is too fresh, or on its way.

    Args:
        incident: as the log has it.
        playbook: with its war room; without one nothing is ever due.
        now: the time.
        active: the region whose database holds the right to write; None when it is not known.
    """
    room = playbook.channels.war_room
    if room is None:
        return None
    last, number = incident.room, len(incident.rounds)
    opened = last is not None and last.round == number
    # Who meets there learns that it is over; an incident that never had a room gets none then.
    if not (incident.active or (opened and incident.status is Status.RESOLVED)):
        return None
    lines = list(_summary(incident, playbook, now, active))
    digest = sha256("\n".join(lines).encode()).hexdigest()[:16]
    count = 1
    if last is not None and opened:
        if last.arrived_at is None or last.digest == digest or now - last.queued_at < room.every:
            return None
        count = last.number + 1
    title = Page(incident, playbook, "technical", now).safe(incident.title, "title", foreign=True)
    subject = one_line(f"[{incident.severity}] War room of {incident.name}: {title}", MOST_SUBJECT)
    pin = "Pin this." if count == 1 else f"Pin this instead of summary {count - 1}."
    body = "\n".join((f"Summary {count}. {pin} The newest one counts.", *_where(room), *lines))
    return Summary(digest, number, count, subject, body)


def _where(room: WarRoom) -> Iterator[str]:
    yield f"- Channel: {room.channel.partition(':')[2]}"
    if room.bridge is not None:
        yield f"- Bridge: {room.bridge}"


def _summary(incident: Incident, playbook: Playbook, now: datetime, active: str | None) -> Iterator[str]:
    page = Page(incident, playbook, "technical", now)
    phones = {person.name: person.phone for person in playbook.people}
    yield f"- Severity: {page.severity}"
    yield f"- Status: {STATUS_WORDS[incident.status]}"
    yield f"- Detected: {page.time(incident.round.detected_at)}"
    yield f"- Impact: {page.impact}"
    yield f"- Services affected: {page.services}"
    yield f"- Root cause: {page.fact('cause')}"
    yield f"- Mitigation: {page.fact('mitigation')}"
    yield f"- Estimated end: {page.fact('eta')}"
    if (by := next_update(incident, playbook)) is not None:
        yield f"- Next update due: {page.time(by)}"
    yield from ("", "WHO:")
    for role, chain in incident.roles.items():
        title = playbook.roles[role].title if role in playbook.roles else role
        held = f"{chain[0]} {phones.get(chain[0], '')}".strip() if chain else "nobody"
        yield f"- {title}: {held}"
    yield from _ways(suggest(incident, playbook, active))
    yield from ("", f"ALL OF IT: hmsdr incident show {incident.name}")
    if incident.active:
        yield f"GATES, JUDGED NOW: hmsdr incident suggest {incident.name}"


def _ways(found: tuple[Suggestion, ...]) -> Iterator[str]:
    if not found:
        return
    yield from ("", "SUGGESTED BY WHAT IS SEEN:")
    for each in found[:_MOST_WAYS]:
        yield f"- {each.what} ({each.why}): {each.command}"
    if len(found) > _MOST_WAYS:
        yield f"- and {len(found) - _MOST_WAYS} more"


_MOST_WAYS = 5
