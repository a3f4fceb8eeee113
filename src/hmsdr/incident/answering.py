"""``GET`` and ``POST /a/TOKEN``: the page behind a signed link, by which one person acknowledges one incident (CO-3).

Opening it changes nothing, for mail scanners and chats open every link; only its button does, and once. It needs no script and no log-in:
the signature is the right. It is answered when the answer is on the record, or says that it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from zoneinfo import ZoneInfo

from aiohttp import web

from hmsdr.decide.harmless import WITHHELD, shown, tells_of_a_patient
from hmsdr.decide.incident import Incident
from hmsdr.decide.incidents import ACKNOWLEDGED
from hmsdr.decide.links import PATH, Link, read
from hmsdr.decide.messages import ours
from hmsdr.errors import HmsdrError
from hmsdr.incident.desk import Desk
from hmsdr.log.append import append_after
from hmsdr.log.events import Event, NewEvent
from hmsdr.log.store import EventLog
from hmsdr.playbook.model import Playbook

_LOG_SECONDS = 8.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --act: #0b57d0; --on-act: #ffffff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #eeeef2; --paper: #17181c; --act: #a8c7fa; --on-act: #062e6f; }} }}
body {{ font: 1.125rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 34rem; margin: 0 auto; padding: 2rem 1rem; }}
h1 {{ font-size: 1.4rem; line-height: 1.25; }}
button {{ font: inherit; font-weight: 600; width: 100%; min-height: 3.5rem; border: 0; border-radius: .5rem; color: var(--on-act); background: var(--act); cursor: pointer; }}
button:focus-visible {{ outline: 3px solid var(--ink); outline-offset: 3px; }}
</style>
</head>
<body><main>
<h1>{title}</h1>
{body}
</main></body>
</html>
"""


def add_routes(
    app: web.Application, desk: Desk, log: EventLog, playbook: Playbook, key: bytes, lock: asyncio.Lock
) -> None:
    """Serve the links of `playbook` in `app`.

    Args:
        app: where.
        desk: of the log; used by one request at a time.
        log: where answers go.
        playbook: its people; who is no longer among them answers nothing.
        key: what signed the links.
        lock: held while the desk is used.
    """
    answers = _Answers(desk, log, playbook, key, lock)
    app.router.add_get(PATH + "{token}", answers.look)
    app.router.add_post(PATH + "{token}", answers.press)


class _Answers:
    def __init__(self, desk: Desk, log: EventLog, playbook: Playbook, key: bytes, lock: asyncio.Lock) -> None:
        self._desk = desk
        self._log = log
        self._playbook = playbook
        self._key = key
        self._lock = lock

    async def look(self, request: web.Request) -> web.Response:
        """The page with the button; nothing is written."""
        return await self._answer(request, press=False)

    async def press(self, request: web.Request) -> web.Response:
        """The button."""
        return await self._answer(request, press=True)

    async def _answer(self, request: web.Request, *, press: bool) -> web.Response:
        link = read(self._key, request.match_info["token"])
        if link is None or link.person not in {person.name for person in self._playbook.people}:
            return page(
                403,
                "This link is not valid",
                "It was cut off, or it is not ours. Open the whole link from the message.",
            )
        how = f"Use the link of a newer message, or say it by hand: hmsdr incident acknowledge {link.incident} --by NAME"
        if datetime.now(UTC) > link.expires:
            return page(410, f"This link to {link.incident} is too old", how)
        try:
            async with self._lock, asyncio.timeout(_LOG_SECONDS):
                return await (self._press(link, how) if press else self._look(link, how))
        except (HmsdrError, TimeoutError):
            found = "The log did not answer in time. Press again: it counts once. Or say it by hand: "
            return page(
                503,
                "It is not known yet whether this was recorded",
                f"{found}hmsdr incident acknowledge {link.incident} --by NAME",
            )

    async def _look(self, link: Link, how: str) -> web.Response:
        incident, answered = await self._found(link)
        if (refused := self._refused(link, incident, how)) is not None or incident is None:
            return refused or _gone(link, how)
        if answered is not None:
            return self._done(link, incident, answered.at)
        title = f"{incident.name} ({incident.severity}): {self._title(incident)}"
        taken = incident.round.acknowledged_by
        so_far = (
            f"<p>Acknowledged by {escape(taken)} already; you can still say that you are on it.</p>"
            if taken
            else ""
        )
        button = f'{so_far}<form method="post"><button type="submit">I have it in hand: {escape(link.person)}</button></form>'
        return page(200, title, f"Since {self._time(incident.round.detected_at)}.", button)

    async def _press(self, link: Link, how: str) -> web.Response:
        refused: web.Response | None = None

        async def made() -> Sequence[NewEvent]:
            nonlocal refused
            incident, answered = await self._found(link)
            refused = self._refused(link, incident, how)
            if refused is not None or answered is not None:
                return ()
            return [NewEvent(ACKNOWLEDGED, link.incident, link.person, {"through": "link"})]

        await append_after(self._log, made, doing=f"acknowledging {link.incident}")
        if refused is not None:
            return refused
        incident, answered = await self._found(link)
        if incident is None or answered is None:
            return _gone(link, how)
        return self._done(link, incident, answered.at)

    async def _found(self, link: Link) -> tuple[Incident | None, Event | None]:
        """The incident, and the answer that this link was there for."""
        book = await self._desk.book()
        events = await self._log.read(link.seq, subject=link.incident)
        answers = (each for each in events if each.kind == ACKNOWLEDGED and each.actor == link.person)
        return book.incidents.get(link.incident), next(answers, None)

    def _refused(self, link: Link, incident: Incident | None, how: str) -> web.Response | None:
        if incident is None:
            return _gone(link, how)
        if not incident.active:
            return page(409, f"{incident.name} is {incident.status}", "There is nothing to acknowledge.")
        if len(incident.rounds) != link.number:
            return page(409, f"{incident.name} came back since this message", how)
        return None

    def _done(self, link: Link, incident: Incident, at: datetime) -> web.Response:
        others = incident.round.acknowledged_by
        more = "" if others == link.person else f" {others} was first."
        words = f"On the record since {self._time(at)}.{more} Next: hmsdr incident show {incident.name}"
        return page(200, f"{link.person} has {incident.name} in hand", words)

    def _title(self, incident: Incident) -> str:
        if tells_of_a_patient(incident.title, ours(self._playbook)):
            return WITHHELD
        return shown(incident.title)

    def _time(self, at: datetime) -> str:
        return f"{at.astimezone(ZoneInfo(self._playbook.on_call.time_zone)):%H:%M:%S %Z}"


def _gone(link: Link, how: str) -> web.Response:
    return page(404, f"There is no {link.incident} here", how)


def page(status: int, title: str, words: str, more: str = "") -> web.Response:
    """A page of one message. Texts are escaped here; `more` is HTML of ours."""
    body = f"<p>{escape(words)}</p>\n{more}"
    text = _PAGE.format(title=escape(title), body=body)
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)
