"""Asking people whether they are still reached, and what they answer, on the record (CO-4).

Each question is one append with its message, so nobody is on the record as asked whose message is not on its way; a second asker finds it
asked. What a confirmation holds for is taken from the playbook as it is when it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web

from hmsdr.decide.contacts import ASKED, CONFIRMED, Directory, Known, fold, known, to_ask
from hmsdr.decide.links import CONTACT, CONTACT_PATH, Link, key_of, read, sign
from hmsdr.decide.messages import TEAM
from hmsdr.decide.outbox import QUEUED
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.incident.answering import page
from hmsdr.incident.desk import text_of
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Person

_WORDS = "Contact check: is this still the way to reach you"


class Contacts:
    """The team's contacts in one log.

    Args:
        playbook: the hospital's.
        log: the record.
    """

    def __init__(self, playbook: Playbook, log: EventLog) -> None:
        self._playbook = playbook
        self._log = log
        self._directory = Directory()

    async def known(self) -> tuple[Known, ...]:
        """Everybody, as of now."""
        return known(await self._read(), self._playbook, datetime.now(UTC))

    async def ask(self, names: Sequence[str], by: str) -> int:
        """Ask these people now; how many messages that are.

        Raises:
            RefusedError: one of them is not in the playbook.
        """
        people = [self._person(name, "asking for a confirmation") for name in names]

        async def asked() -> Sequence[NewEvent]:
            directory = await self._read()
            return [event for person in people for event in self._question(directory, person, by)]

        await append_after(self._log, asked, doing="asking for confirmations")
        return len(people)

    async def ask_who_is_due(self, by: str) -> int:
        """Ask everybody whose turn it is; nobody, when the playbook has no links to answer by."""
        if self._playbook.channels.links is None or not to_ask(
            await self._read(), self._playbook, datetime.now(UTC)
        ):
            return 0
        count = 0

        async def asked() -> Sequence[NewEvent]:
            nonlocal count
            directory = await self._read()
            names = to_ask(directory, self._playbook, datetime.now(UTC))
            count = len(names)
            doing = "asking for a confirmation"
            return [
                event for name in names for event in self._question(directory, self._person(name, doing), by)
            ]

        await append_after(self._log, asked, doing="asking for confirmations")
        return count

    async def confirm(self, name: str, by: str, *, since: int = 0, through: str = "by hand") -> None:
        """Number and address of `name` are right, as they are in the playbook now.

        Args:
            name: whose.
            by: who says so.
            since: nothing is written when they were confirmed after this event.
            through: how it is known.

        Raises:
            RefusedError: nobody of that name is in the playbook.
        """
        doing = f"confirming {name}"
        person = self._person(name, doing)
        text_of(by, doing, "name", most=100, lines=False)

        async def confirmed() -> Sequence[NewEvent]:
            events = await self._log.read(since, subject=name) if since else []
            if any(each.kind == CONFIRMED for each in events):
                return ()
            data = {"phone": person.phone, "email": person.email, "through": through}
            return [NewEvent(CONFIRMED, name, by, data)]

        await append_after(self._log, confirmed, doing=doing)

    async def _read(self) -> Directory:
        self._directory = fold(self._directory, await self._log.read(self._directory.seq))
        return self._directory

    def _person(self, name: str, doing: str) -> Person:
        for person in self._playbook.people:
            if person.name == name:
                return person
        names = [person.name for person in self._playbook.people]
        raise RefusedError(doing, f"the playbook has no {name!r}", nearest(name, names) or ", ".join(names))

    def _question(self, directory: Directory, person: Person, by: str) -> list[NewEvent]:
        channels = self._playbook.channels
        own = "sms" in channels.endpoints
        number = directory.asked.get(person.name, (None, 0))[1] + 1
        how = f"hmsdr contacts confirm {person.name!r} --by NAME"
        links = channels.links
        try:
            key = key_of(self._playbook)
        except RefusedError:
            key = None
        if links is not None and key is not None:
            expires = datetime.now(UTC) + self._playbook.contacts.verify_every
            token = sign(key, Link("contact", number, max(1, directory.seq), person.name, expires), CONTACT)
            how = f"{links.url.rstrip('/')}{CONTACT_PATH}{token}"
        message = {
            "incident": "",
            "word": "contact",
            "audience": TEAM,
            "channels": [f"sms:{person.name}"] if own else [channels.primary, channels.backup],
            "subject": f"{_WORDS}, {person.name}?",
            "body": f"{person.phone}, {person.email}\nYes: {how}",
            "need": 5,
        }
        return [
            NewEvent(ASKED, person.name, by, {"number": number}),
            NewEvent(QUEUED, f"contact/{person.name}/{number}", by, message),
        ]


def add_routes(app: web.Application, contacts: Contacts, playbook: Playbook, key: bytes) -> None:
    """Serve ``GET`` and ``POST /c/TOKEN``: opening it changes nothing, its button confirms, once for each question."""
    people = {person.name: person for person in playbook.people}

    async def answer(request: web.Request) -> web.Response:
        link = read(key, request.match_info["token"], CONTACT)
        person = None if link is None else people.get(link.person)
        if link is None or person is None:
            return page(403, "This link is not valid", "Open the whole link from the message.")
        if datetime.now(UTC) > link.expires:
            return page(410, "This link is too old", "The next question has a new one.")
        if request.method != "POST":
            button = '<form method="post"><button type="submit">Yes, both are right</button></form>'
            return page(
                200, f"{person.name}: {person.phone}, {person.email}", "Do these still reach you?", button
            )
        try:
            await contacts.confirm(person.name, person.name, since=link.seq, through="link")
        except HmsdrError:
            return page(503, "It is not known yet whether this was recorded", "Press again: it counts once.")
        return page(200, f"Thank you, {person.name}", "Your number and address are confirmed.")

    app.router.add_get(CONTACT_PATH + "{token}", answer)
    app.router.add_post(CONTACT_PATH + "{token}", answer)
