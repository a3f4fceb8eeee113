"""A gateway for text messages and calls with Twilio's API, at whatever address: one message or one call, asked for once.

It delivers and judges nothing. The URL is a secret: it is in no error, and neither is anybody's number.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import aiohttp

from hmsdr.drivers.errors import (
    DriverError,
    OutcomeUnknownError,
    PermanentError,
    TemporaryError,
    asked_to_wait,
)

SCHEMES = ("twilio+https://", "twilio+http://")
Kind = Literal["sms", "phone"]
FINAL = frozenset(
    {"delivered", "undelivered", "failed", "read", "completed", "busy", "no-answer", "canceled"}
)
"""What a message or call does not leave any more, in the gateway's own words."""
_CREATED, _UNAUTHORISED, _MISSING, _TOO_MANY = 201, 401, 404, 429
_TRY_AGAIN = frozenset({408, 425, _TOO_MANY, 500, 502, 503, 504})
_READ = 64 * 1024
_FORM = "It is twilio+https://ACCOUNT:TOKEN@HOST/FROM, or with /TO"


@dataclass(frozen=True, slots=True)
class _Where:
    base: str
    account: str
    token: str
    sender: str
    to: str


class Gateway:
    """One account of a gateway.

    Args:
        url: ``twilio+https://ACCOUNT:TOKEN@HOST/FROM``, or with ``/TO`` for one fixed number; a secret.
        name: what it is called in errors.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name

    def account(self) -> tuple[str, str]:
        """Name and token of the account, by which the gateway signs what it calls back with.

        Raises:
            PermanentError: the URL has none.
        """
        where = self._where("reading a gateway's account")
        return where.account, where.token

    async def send(
        self, kind: Kind, text: str, to: str | None, *, deadline: float, callback: str | None = None
    ) -> str:
        """Send a text message, or call and say `text` twice, within `deadline` seconds; gives the gateway's reference.

        Args:
            kind: ``sms`` or ``phone``.
            text: what is said.
            to: the number (E.164), where the URL has none.
            deadline: seconds for all of it.
            callback: where the gateway is to tell what became of it; None: it is only asked.

        Raises:
            TemporaryError: not taken; it may be tried again.
            PermanentError: refused: the number or the account is wrong.
            OutcomeUnknownError: the answer was lost: it may have been taken.
        """
        doing = f"{'calling' if kind == 'phone' else 'sending'} on {self._name}"
        where = self._where(doing)
        number = where.to or to
        if not number:
            raise PermanentError(doing, "no number to send to", _FORM)
        form = {"To": number, "From": where.sender}
        if callback is not None:
            form["StatusCallback"] = callback
        if kind == "phone":
            form["Twiml"] = f'<Response><Pause/><Say loop="2">{escape(text)}</Say></Response>'
        else:
            form["Body"] = text
        status, said, wait = await self._ask(doing, "POST", _of(kind), form, deadline)
        if status != _CREATED:
            raise _refused(doing, status, said, wait)
        reference = said.get("sid")
        return reference if isinstance(reference, str) else ""

    async def status(self, kind: Kind, reference: str, *, deadline: float) -> str:
        """What has become of it, in the gateway's words (`FINAL`: it stays so).

        Raises:
            DriverError: it was not found out.
        """
        doing = f"asking what became of a message on {self._name}"
        path = f"{_of(kind).removesuffix('.json')}/{reference}.json"
        status, said, wait = await self._ask(doing, "GET", path, None, deadline)
        found = said.get("status")
        if status == _MISSING:
            raise PermanentError(doing, "the gateway does not know it any more", "Look in its own log")
        if status != 200 or not isinstance(found, str):  # noqa: PLR2004 - HTTP's own
            raise _refused(doing, status, said, wait)
        return found

    async def _ask(
        self, doing: str, method: str, path: str, form: dict[str, str] | None, deadline: float
    ) -> tuple[int, dict[str, Any], float | None]:
        where = self._where(doing)
        secret = b64encode(f"{where.account}:{where.token}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}"}
        url = f"{where.base}/2010-04-01/Accounts/{where.account}/{path}"
        try:
            async with (
                asyncio.timeout(deadline),
                aiohttp.ClientSession(headers=headers) as session,
                session.request(method, url, data=form, allow_redirects=False) as answer,
            ):
                wait = asked_to_wait(answer.headers.get("Retry-After"), datetime.now(UTC))
                return answer.status, _read(await answer.content.read(_READ)), wait
        except aiohttp.ClientConnectorError as error:
            raise TemporaryError(doing, f"not reachable: {error.os_error}", "Try again") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The library's words may have the URL in them: only the kind of error is told.
            found = (
                f"no answer within {deadline:g} s"
                if isinstance(error, TimeoutError)
                else f"the answer was lost ({type(error).__name__})"
            )
            kind = TemporaryError if method == "GET" else OutcomeUnknownError
            raise kind(doing, found, "Look in the gateway's log before repeating") from None

    def _where(self, doing: str) -> _Where:
        try:
            parts = urlsplit(self._url.removeprefix("twilio+"))
            numbers = [unquote(each) for each in parts.path.split("/") if each]
            host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        except ValueError:
            raise PermanentError(doing, "its URL cannot be read", _FORM) from None
        if not host or not parts.username or not parts.password or len(numbers) not in (1, 2):
            raise PermanentError(doing, "its URL lacks account, token, host or number", _FORM)
        return _Where(
            f"{parts.scheme}://{host}",
            unquote(parts.username),
            unquote(parts.password),
            numbers[0],
            numbers[1] if len(numbers) > 1 else "",
        )


def _of(kind: Kind) -> str:
    return "Calls.json" if kind == "phone" else "Messages.json"


def _read(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(doing: str, status: int, said: dict[str, Any], wait: float | None) -> DriverError:
    """By status and the gateway's own code; its words may have the number in them, and are not passed on."""
    code = said.get("code")
    found = f"HTTP {status}" + (f", code {code}" if isinstance(code, int) else "")
    if status in _TRY_AGAIN:
        return TemporaryError(doing, found, "Try again", after=wait)
    if status == _UNAUTHORISED:
        return PermanentError(doing, found, "Correct account and token of the endpoint")
    return PermanentError(
        doing, found, "Look the code up at the gateway: number, account or permission is wrong"
    )
