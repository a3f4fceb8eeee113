"""Opening the war room and keeping its summary up to date (IR-1): what is due is queued, on the record, and the outbox carries it.

The summary and the note that it was queued are one append, decided from the log as it is then: several keepers post nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from hmsdr.decide.incident import Incident
from hmsdr.decide.incidents import SUMMARIZED, Book, room_key
from hmsdr.decide.messages import TEAM
from hmsdr.decide.outbox import QUEUED
from hmsdr.decide.warroom import WORD, Summary, due
from hmsdr.incident.desk import KEEPER, Desk
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import WarRoom

_NEED_FIRST, _NEED_LATER = 1, 3


async def summarize(desk: Desk, log: EventLog, playbook: Playbook, active: str | None) -> int:
    """Queue each war room's summary that is due; how many those are.

    Args:
        desk: the incidents.
        log: their record.
        playbook: with its war room; without one nothing is done.
        active: the region whose database holds the right to write; None when it is not known.

    Raises:
        StoreError: the log does not answer, or does not take it.
    """
    room = playbook.channels.war_room
    if room is None or not _due(await desk.book(), playbook, active):
        # Nothing is appended when nothing is to be said.
        return 0
    made: list[tuple[Incident, Summary]] = []

    async def summaries() -> Sequence[NewEvent]:
        made[:] = _due(await desk.book(), playbook, active)
        return [event for each in made for event in _posted(*each, room, playbook)]

    await append_after(log, summaries, doing="keeping the war room's summary up to date")
    return len(made)


def _due(book: Book, playbook: Playbook, active: str | None) -> list[tuple[Incident, Summary]]:
    now = datetime.now(UTC)
    found = ((each, due(each, playbook, now, active)) for each in book.incidents.values())
    return [(incident, summary) for incident, summary in found if summary is not None]


def _posted(incident: Incident, summary: Summary, room: WarRoom, playbook: Playbook) -> list[NewEvent]:
    channels = dict.fromkeys((room.channel, playbook.channels.primary, playbook.channels.backup))
    message = {
        "incident": incident.name,
        "word": WORD,
        "audience": TEAM,
        "channels": list(channels),
        "subject": summary.subject,
        "body": summary.body,
        "need": _NEED_FIRST if summary.number == 1 else _NEED_LATER,
    }
    said = {"round": summary.round, "number": summary.number, "digest": summary.digest}
    key = room_key(incident.name, summary.round, summary.number)
    return [NewEvent(QUEUED, key, KEEPER, message), NewEvent(SUMMARIZED, incident.name, KEEPER, said)]
