"""Keeping incidents: alerts get theirs, who is due is called, what is queued is sent; round after round, by as many keepers as there are.

Each round is decided from the log as it is when it is written, so a second keeper, or one that begins anew, repeats nothing. A call and
its message are one append: nobody is on the record as called whose message is not on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from hmsdr.decide.clocks import Due, How, due
from hmsdr.decide.harmless import WITHHELD, shown, tells_of_a_patient
from hmsdr.decide.incident import Incident, Word
from hmsdr.decide.incidents import CALLED, SAID, Book
from hmsdr.decide.links import link_for
from hmsdr.decide.messages import TEAM, compose, ours
from hmsdr.decide.oncall import reach
from hmsdr.decide.outbox import QUEUED
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.incident.contacts import Contacts
from hmsdr.incident.desk import KEEPER, Desk, text_of
from hmsdr.incident.post import Post
from hmsdr.incident.warroom import summarize
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog, Store
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Language

MOST_CALLS = 40
"""In one append; the rest follow in the next round."""
ASK_SECONDS = 2.0
"""From asking what became of messages to asking again."""
_NEED = {TEAM: 1, "clinical-staff": 2, "patients": 4}
"""Who is told first: calls are 0, anybody else 3."""
_HOW = {
    How.PAGE: "on call",
    How.CALL: "called, with the backup",
    How.PHONE: "RING THEIR PHONES",
    How.EVERYBODY: "RING EVERYBODY",
}


class Keeper:
    """One keeper: what it does round after round.

    Args:
        playbook: the hospital's.
        store: its log.
        snapshot: where the folded book is kept; None without one.
        name: who sends, for the record.
    """

    def __init__(self, playbook: Playbook, store: Store, snapshot: Path | None, name: str) -> None:
        self._playbook = playbook
        self._store = store
        self.desk = Desk(playbook, store, snapshot)
        self.post = Post(playbook, store, name)
        self._contacts = Contacts(playbook, store)
        self._asking = Post(playbook, store, name)
        """A second one, for a gateway that is slow to tell what became of a message must not keep the next call waiting."""

    async def round(self) -> dict[str, int]:
        """One round; how many events it took to route, calls and sendings it made.

        Raises:
            StoreError: the log does not answer, or does not take it: the next round begins where this one ended.
        """
        record = await self._store.read_authority()
        holder = None if record.holder is None else record.holder.instance
        regions = self._playbook.regions.items()
        active = next((name for name, region in regions if region.postgres.instance == holder), None)
        book = await self.desk.book()
        # Nothing is appended when nothing is to be said: a quiet hospital's log stays as it is.
        routed = await self.desk.route(active) if book.pending else 0
        called = (
            await call(self.desk, self._store, self._playbook) if _due(book, self._playbook) or routed else 0
        )
        await summarize(self.desk, self._store, self._playbook, active)
        return {"routed": routed, "called": called, "sent": await self.post.deliver()}

    async def run(self, stop: asyncio.Event, interval: float, report: Callable[[str], None]) -> None:
        """Round after round until `stop`; no error of a round ends it, each new one is reported."""
        asking = asyncio.create_task(self._ask(stop))
        try:
            await self._rounds(stop, interval, report)
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking

    async def _ask(self, stop: asyncio.Event) -> None:
        """What became of what was sent, and whether people are still reached, until `stop`."""
        while not stop.is_set():
            with suppress(HmsdrError):  # a log that does not answer is reported by the rounds
                if self._asking.tells:
                    await self._asking.receipts()
                await self._contacts.ask_who_is_due(KEEPER)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), ASK_SECONDS)

    async def _rounds(self, stop: asyncio.Event, interval: float, report: Callable[[str], None]) -> None:
        said = ""
        while not stop.is_set():
            more = False
            try:
                more = (await self.round())["sent"] >= self.post.at_once
                said = ""
            except HmsdrError as error:
                if str(error) != said:
                    said = str(error)
                    report(said)
            if more:
                # Others may be waiting behind so many: a pause after each lot would be most of a long list's time.
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval)


async def call(desk: Desk, log: EventLog, playbook: Playbook) -> int:
    """Call everybody who is due, on the record; how many calls that was."""
    made: list[Due] = []

    async def calls() -> Sequence[NewEvent]:
        book = await desk.book()
        made[:] = _due(book, playbook)
        return [event for each in made for event in _call(each, book.incidents[each.incident], playbook)]

    await append_after(log, calls, doing="calling who is due")
    return len(made)


async def queue(
    desk: Desk, playbook: Playbook, name: str, word: Word, by: str, audiences: Collection[str] = (TEAM,)
) -> list[str]:
    """Queue the message `word` of an incident for these audiences; the keys.

    The team has one message on the first channel that takes it; any other audience one on each channel that has an endpoint, in each of
    its languages. Queued again before it was sent, it is the same message.

    Raises:
        RefusedError: there is no such incident, or it goes on and `word` says that it is over, or a field is withheld.
    """
    doing = f"sending the {word} message of {name}"
    keys: list[str] = []

    def made(_: Book, incident: Incident) -> Sequence[NewEvent]:
        _fitting(incident, word, doing)
        events = [each for one in audiences for each in _letters(incident, playbook, one, word, doing, by)]
        keys[:] = [each.subject for each in events]
        return events

    await desk.record(name, by, doing, made)
    return keys


def reachable(playbook: Playbook) -> tuple[str, ...]:
    """Audiences to which messages can be sent from here."""
    return (TEAM, *(name for name, each in playbook.audiences.items() if each.endpoints))


def _letters(
    incident: Incident, playbook: Playbook, audience: str, word: Word, doing: str, by: str
) -> list[NewEvent]:
    group = playbook.audiences.get(audience)
    languages: tuple[Language, ...] = ("en",) if group is None else group.languages
    ways = [_channels(playbook)] if group is None else [[f"{kind}@{audience}"] for kind in group.endpoints]
    first = tuple(dict.fromkeys(chain[0] for chain in incident.roles.values() if chain))
    asked = audience == TEAM and incident.active and incident.round.acknowledged_at is None
    links = _links(playbook, incident, first) if asked else []
    answers = ("", "TO ACKNOWLEDGE:", *links) if links else ()
    events = []
    for language in languages:
        message = compose(incident, playbook, audience, word, datetime.now(UTC), language)
        if message.withheld:
            what = ", ".join(f"{each.where} looks like {each.looks_like}" for each in message.withheld)
            raise RefusedError(doing, what, "Note it anew without a patient's data, then send")
        for channels in ways:
            data = {
                "incident": incident.name,
                "word": str(word),
                "audience": audience,
                "language": language,
                "channels": channels,
                "subject": message.subject,
                "body": "\n".join((message.body, *answers)),
                "need": _NEED.get(message.audience, 3),
            }
            way = channels[0] if group is not None else TEAM
            key = f"{incident.name}/{word}/{incident.seq}/{way}/{language}"
            events.append(NewEvent(QUEUED, key, by, data))
    return events


async def said_by_hand(
    desk: Desk, playbook: Playbook, name: str, word: Word, audience: str, how: str, by: str
) -> None:
    """Put on the record that somebody told an audience, and how.

    Raises:
        RefusedError: there is no such incident or audience, or the word does not fit.
    """
    doing = f"recording who was told of {name}"
    known = (TEAM, *playbook.audiences)
    if audience not in known:
        hint = nearest(audience, known) or ", ".join(known)
        raise RefusedError(doing, f"the playbook has no audience {audience!r}", hint)
    told = text_of(how, doing, "text")

    def made(_: Book, incident: Incident) -> Sequence[NewEvent]:
        _fitting(incident, word, doing)
        data = {"word": str(word), "audience": audience, "channel": f"by hand: {told}"}
        return [NewEvent(SAID, name, by, data)]

    await desk.record(name, by, doing, made)


def escalation(playbook: Playbook, now: datetime) -> str:
    """Whom to call when no channel takes a message (CM-1): who is on call for the role, and who after them, with numbers."""
    phones = {person.name: person.phone for person in playbook.people}
    names = reach(playbook, playbook.channels.escalation.partition(":")[2], now)
    return (
        ", ".join(f"{name} {phones.get(name, '')}".strip() for name in names) or playbook.channels.escalation
    )


def _fitting(incident: Incident, word: Word, doing: str) -> None:
    if word is Word.RESOLUTION and incident.active:
        remedy = f"`hmsdr incident resolve {incident.name} --by NAME` first"
        raise RefusedError(doing, f"it is {incident.status}", remedy)
    if word is not Word.RESOLUTION and not incident.active:
        remedy = f"Send its resolution, or `hmsdr incident reopen {incident.name} --reason TEXT --by NAME`"
        raise RefusedError(doing, f"it is {incident.status}", remedy)


def _channels(playbook: Playbook) -> list[str]:
    return [playbook.channels.primary, playbook.channels.backup]


def _links(playbook: Playbook, incident: Incident, people: Sequence[str]) -> list[str]:
    """A line for each who may answer with one tap; none when the playbook wants no links."""
    known = {person.name for person in playbook.people}
    made = ((name, link_for(playbook, incident, name, datetime.now(UTC))) for name in people if name in known)
    return [f"{name}: {url}" for name, url in made if url is not None]


def _ways(playbook: Playbook, kind: str, name: str, *, ringing: bool) -> list[str]:
    """A text that does not arrive is followed by a call, unless the phone rings anyway."""
    rings = kind == "sms" and not ringing and "phone" in playbook.channels.endpoints
    return [f"{kind}:{name}", *([f"phone:{name}"] if rings else [])]


def _due(book: Book, playbook: Playbook) -> list[Due]:
    now = datetime.now(UTC)
    found = [each for incident in book.incidents.values() for each in due(incident, playbook, now)]
    return found[:MOST_CALLS]


def _call(each: Due, incident: Incident, playbook: Playbook) -> list[NewEvent]:
    """Its messages, and that it was made: one for the team, and one for each who is called where a gateway reaches them."""
    people = {person.name: person for person in playbook.people}
    numbers = [f"{name} {people[name].phone}" if name in people else name for name in each.people]
    text = WITHHELD if tells_of_a_patient(each.text, ours(playbook)) else shown(each.text)
    message = {
        "incident": each.incident,
        "word": "call",
        "audience": TEAM,
        "channels": _channels(playbook),
        "subject": text,
        "body": "\n".join(
            (
                f"{_HOW[each.how]}: {', '.join(numbers)}.",
                *_links(playbook, incident, each.people),
                f"To answer: hmsdr incident acknowledge {each.incident} --by NAME",
            )
        ),
        "need": 0,
    }
    key = f"{each.incident}/{each.series}/{each.rung}"
    called = {
        "series": each.series,
        "rung": each.rung,
        "how": str(each.how),
        "people": list(each.people),
        "due_at": each.due_at.isoformat(),
    }
    ringing = each.how in (How.PHONE, How.EVERYBODY)
    ways = [
        kind
        for kind in ("sms", "phone")
        if kind in playbook.channels.endpoints and (kind == "sms" or ringing)
    ]
    own = [
        NewEvent(
            QUEUED,
            f"{key}/{kind}/{name}",
            KEEPER,
            message
            | {
                "channels": _ways(playbook, kind, name, ringing=ringing),
                "body": "\n".join(_links(playbook, incident, [name])),
            },
        )
        for name in each.people
        if name in people
        for kind in ways
    ]
    return [NewEvent(QUEUED, key, KEEPER, message), *own, NewEvent(CALLED, each.incident, KEEPER, called)]
