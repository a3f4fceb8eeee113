"""The lab's gateway for text messages and calls: Twilio's API as far as messages and calls go, with its codes, limits and states.

What is accepted is kept before it is answered. Nobody is written to or called; what would become of a message follows from its number:
`UNREACHABLE` never gets anything, `INVALID` is refused, any other number gets it after a moment.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from base64 import b64encode
from typing import Any
from xml.etree import ElementTree as ET

from aiohttp import web

from hmsdr.lab.channels.allowance import Allowance
from hmsdr.lab.channels.kept import Kept, received
from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import gateway_account

UNREACHABLE, INVALID = "+15005550009", "+15005550001"
"""Numbers as Twilio reserves them for tests."""
_ROOT = "/2010-04-01/Accounts/{account}"
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_LONGEST = 1600
_SENT_SECONDS, _ARRIVED_SECONDS = 0.3, 1.0
_KINDS = {"Messages": "sms", "Calls": "phone"}
_STATES = {
    "sms": ("queued", "sent", "delivered", "undelivered"),
    "phone": ("queued", "ringing", "completed", "no-answer"),
}


class PhoneGateway:
    """One account with one number.

    Args:
        layout: the lab, with the account's secrets.
        kept: where messages are kept.
    """

    def __init__(self, layout: Layout, kept: Kept) -> None:
        self._layout = layout
        self._kept = kept
        self._account, self._token, self._number = gateway_account(layout)
        # A plain number sends one a second; a queue at the gateway takes short bursts.
        self._allowed = {"sms": Allowance(1.0, 30), "phone": Allowance(1.0, 30)}

    def add_routes(self, app: web.Application) -> None:
        """Serve it in `app`."""
        for what in _KINDS:
            app.router.add_post(f"{_ROOT}/{what}.json", self._create)
            app.router.add_get(f"{_ROOT}/{what}/{{sid}}.json", self._look)

    async def _create(self, request: web.Request) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        kind = _KINDS[request.path.rpartition("/")[2].removesuffix(".json")]
        form = {name: str(value) for name, value in (await request.post()).items()}
        text = form.get("Body", "") if kind == "sms" else _spoken(form.get("Twiml", ""))
        if (wrong := self._wrong(kind, form, text)) is not None:
            return _error(400, *wrong)
        if wait := self._allowed[kind].wait(time.monotonic()):
            return _error(429, 20429, "Too Many Requests", {"Retry-After": str(wait)})
        sid = f"{'SM' if kind == 'sms' else 'CA'}{secrets.token_hex(16)}"
        try:
            self._kept.add(kind, form["To"], text, key=None, sid=sid, sender=form["From"])
        except OSError:
            return _error(500, 20500, "Internal Server Error")
        return web.json_response(self._resource(sid, form["To"], "queued"), status=201)

    async def _look(self, request: web.Request) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        sid = request.match_info["sid"]
        found = next((each for each in received(self._layout) if each.get("sid") == sid), None)
        if found is None:
            return _error(404, 20404, "The requested resource was not found")
        return web.json_response(self._resource(sid, found["channel"], state(found, time.time())))

    def _refused(self, request: web.Request) -> web.Response | None:
        """Twilio's answer to whoever is not the account."""
        right = "Basic " + b64encode(f"{self._account}:{self._token}".encode()).decode()
        given = request.headers.get("Authorization", "")
        known = hmac.compare_digest(right.encode(), given.encode("utf-8", "surrogateescape"))
        if not known or request.match_info["account"] != self._account:
            return _error(401, 20003, "Authenticate", {"WWW-Authenticate": 'Basic realm="Twilio API"'})
        return None

    def _wrong(self, kind: str, form: dict[str, str], text: str) -> tuple[int, str] | None:
        """Twilio's code and words for what is wrong with a request; None when nothing is."""
        to, sender = form.get("To", ""), form.get("From", "")
        nothing = (
            (21602, "Message body is required.") if kind == "sms" else (21205, "Url parameter is required.")
        )
        rules = (
            (not to, (21604, "A 'To' phone number is required.")),
            (not sender, (21603, "A 'From' phone number is required.")),
            (not _E164.fullmatch(to) or to == INVALID, (21211, f"Invalid 'To' Phone Number: {to}")),
            (
                sender != self._number,
                (21606, f"The 'From' phone number {sender} is not one of this account."),
            ),
            (not text.strip(), nothing),
            (len(text) > _LONGEST, (21617, "The concatenated message body exceeds the 1600 character limit")),
        )
        return next((said for broken, said in rules if broken), None)

    def _resource(self, sid: str, to: str, status: str) -> dict[str, Any]:
        return {
            "sid": sid,
            "account_sid": self._account,
            "to": to,
            "from": self._number,
            "status": status,
            "error_code": 30003 if status == "undelivered" else None,
        }


def state(message: dict[str, Any], now: float) -> str:
    """What became of a kept message by `now` (seconds since 1970)."""
    first, on_the_way, arrived, lost = _STATES[message["kind"]]
    age = now - float(message["at"])
    if age < _SENT_SECONDS:
        return first
    if age < _ARRIVED_SECONDS:
        return on_the_way
    return lost if message["channel"] == UNREACHABLE else arrived


def _spoken(twiml: str) -> str:
    """What a call says; empty when it says nothing, or the document is none."""
    if "<!" in twiml:  # declarations: Twilio takes none, and they could be made to grow
        return ""
    try:
        document = ET.fromstring(twiml)  # noqa: S314 - a document without declarations, of limited size
    except ET.ParseError:
        return ""
    return " ".join(each.text or "" for each in document.iter("Say"))


def _error(status: int, code: int, words: str, headers: dict[str, str] | None = None) -> web.Response:
    said = {
        "code": code,
        "message": words,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return web.json_response(said, status=status, headers=headers)
