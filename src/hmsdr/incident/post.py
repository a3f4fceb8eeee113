"""Sending what the outbox holds: intent on the record, then the message, then what became of it. At least once, never dropped.

Several may do it at once, and any may die at any moment: whoever records the sending of a message has it; when nothing is heard of it
for a while, the next one sends it again, and says that it may have come twice. What is sent when, `hmsdr.decide.outbox` decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hmsdr.decide.harmless import one_line
from hmsdr.decide.incident import Word
from hmsdr.decide.incidents import MET, SAID
from hmsdr.decide.outbox import (
    FAILED,
    RECEIPT,
    RECEIPTS_FOR,
    SENDING,
    SENT,
    UNHEARD,
    Attempt,
    Delivered,
    Outbox,
    fold,
    kind_of,
    ready,
    unreceipted,
)
from hmsdr.decide.warroom import WORD as WAR_ROOM
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.gateway import FINAL, SCHEMES, Gateway, Kind
from hmsdr.drivers.notifier import Notifier
from hmsdr.drivers.webhook import Webhook
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog
from hmsdr.playbook.model import Playbook

CALLBACK_PATH = "/v1/gateway"
"""Where a keeper that listens takes what a gateway tells (`hmsdr.incident.receiving`)."""
SEND_SECONDS = 10.0
"""For one message on one channel."""
AT_ONCE = 50
_SHORT = {"sms": 300}
"""Most characters of a message there."""
_SPOKEN = 600
"""Most characters that a call says: a minute of them."""
_RECEIPT_PAUSE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _Result:
    attempt: Attempt
    events: tuple[NewEvent, ...]


def callback_url(playbook: Playbook) -> str | None:
    """Where gateways call back to; None when nothing of ours is reached from outside."""
    links = playbook.channels.links
    return None if links is None else f"{links.url.rstrip('/')}{CALLBACK_PATH}"


class Post:
    """The outbox of one log, and its channels.

    Args:
        playbook: where the channels are.
        log: the record.
        name: who sends, for the record.
        at_once: messages that are sent side by side.
        unheard: a sender of whom nothing is heard for so long has died; longer than `SEND_SECONDS`.
    """

    def __init__(
        self,
        playbook: Playbook,
        log: EventLog,
        name: str,
        *,
        at_once: int = AT_ONCE,
        unheard: timedelta = UNHEARD,
    ) -> None:
        self._playbook = playbook
        self._log = log
        self._name = name
        self.at_once, self._unheard = at_once, unheard
        self._outbox = Outbox()
        self._asked: dict[str, datetime] = {}

    async def outbox(self) -> Outbox:
        """As of now."""
        self._outbox = fold(self._outbox, await self._log.read(self._outbox.seq))
        return self._outbox

    async def deliver(self) -> int:
        """Send what is to be sent now; how many were tried.

        Raises:
            StoreError: the log does not take it: nothing more is sent then.
        """
        mine: list[Attempt] = []
        if not await self._ready():
            return 0

        async def claimed() -> Sequence[NewEvent]:
            mine[:] = await self._ready()
            return [
                NewEvent(SENDING, each.key, self._name, {"channel": each.channel, "attempt": each.number})
                for each in mine
            ]

        await append_after(self._log, claimed, doing="recording what is sent")
        if not mine:
            return 0
        await self.outbox()
        results = await asyncio.gather(*(self._send(each) for each in mine))

        async def settled() -> Sequence[NewEvent]:
            # Whoever took us for dead may have sent it meanwhile: what is done is done.
            waiting = (await self.outbox()).waiting
            return [event for each in results if each.attempt.key in waiting for event in each.events]

        await append_after(self._log, settled, doing="recording what was sent")
        await self.outbox()
        return len(mine)

    async def _ready(self) -> list[Attempt]:
        rates = self._playbook.channels.rates
        return ready(await self.outbox(), datetime.now(UTC), self.at_once, self._unheard, rates)

    async def _send(self, attempt: Attempt) -> _Result:
        parcel = self._outbox.waiting[attempt.key]
        data: dict[str, Any] = {"channel": attempt.channel}
        try:
            reference = await self._post(attempt, parcel.subject, parcel.body)
        except DriverError as error:
            data |= {
                "found": error.found,
                "permanent": isinstance(error, PermanentError),
                "unknown": isinstance(error, OutcomeUnknownError),
            }
            if isinstance(error, TemporaryError) and error.after:
                data["after"] = error.after
            return _Result(attempt, (NewEvent(FAILED, attempt.key, self._name, data),))
        if reference:
            data["reference"] = reference
        sent = NewEvent(SENT, attempt.key, self._name, data)
        if parcel.word == WAR_ROOM:
            met = {"key": attempt.key, "channel": attempt.channel}
            return _Result(attempt, (sent, NewEvent(MET, parcel.incident, self._name, met)))
        if parcel.word not in tuple(Word):
            return _Result(attempt, (sent,))
        said = {"word": parcel.word, "audience": parcel.audience, "channel": attempt.channel}
        return _Result(attempt, (sent, NewEvent(SAID, parcel.incident, self._name, said)))

    async def _post(self, attempt: Attempt, subject: str, body: str) -> str:
        """Send it; gives the channel's reference, where it has one."""
        kind, url = kind_of(attempt.channel), self._url(attempt.channel)
        if url is None:
            raise PermanentError(
                f"sending on {attempt.channel}",
                f"no endpoint for {kind}",
                "Add it to channels.endpoints, or to the audience's endpoints",
            )
        if url.startswith(SCHEMES):
            way = _way(kind, attempt.channel)
            text = (
                _said(attempt.channel, subject, body)
                if way == "phone"
                else short(subject, body, _SHORT["sms"])
            )
            gateway = Gateway(url, kind)
            number, told = self._number(attempt.channel), callback_url(self._playbook)
            return await gateway.send(way, text, number, deadline=SEND_SECONDS, callback=told)
        if not url.startswith(("http://", "https://")):
            if kind in _SHORT:
                subject, body = "", short(subject, body, _SHORT[kind])
            await Notifier(url, attempt.channel).send(subject, body, deadline=SEND_SECONDS)
            return ""
        webhook = Webhook(url, self._playbook.traffic.ca_file)
        text = f"{subject}\n\n{body}"
        message = {"channel": attempt.channel.partition(":")[2], "text": text, "key": attempt.key}
        await webhook.post(message, deadline=SEND_SECONDS)
        return ""

    def _number(self, channel: str) -> str | None:
        """The number of the person that a channel such as ``sms:Ada Quill`` names."""
        name = channel.partition(":")[2]
        return next((person.phone for person in self._playbook.people if person.name == name), None)

    @property
    def tells(self) -> bool:
        """Whether a channel of the playbook can tell what became of a message."""
        groups = [
            self._playbook.channels.endpoints,
            *(each.endpoints for each in self._playbook.audiences.values()),
        ]
        return any(url.get_secret_value().startswith(SCHEMES) for group in groups for url in group.values())

    async def receipts(self) -> int:
        """Ask what became of messages whose channel can tell; how many are known now.

        Raises:
            StoreError: the log does not answer, or does not take it.
        """
        now = datetime.now(UTC)
        asked = [
            (key, each)
            for key, each in unreceipted(await self.outbox(), now)
            if now - self._asked.get(key, each.at) >= _RECEIPT_PAUSE
        ]
        if not asked:
            return 0
        self._asked = {key: at for key, at in self._asked.items() if now - at < RECEIPTS_FOR}
        self._asked |= {key: now for key, _ in asked}
        found = await asyncio.gather(*(self._became(key, each) for key, each in asked))
        told = [(key, status) for key, status in found if status in FINAL]
        went = {key: each.channel for key, each in asked}
        if not told:
            return 0

        async def known() -> Sequence[NewEvent]:
            done = (await self.outbox()).done
            return [
                NewEvent(RECEIPT, key, self._name, {"channel": went[key], "status": status})
                for key, status in told
                # Whoever else asked may have been faster, and the message on its next way already.
                if key in done and not done[key].receipt and done[key].channel == went[key]
            ]

        await append_after(self._log, known, doing="recording what became of messages")
        return len(told)

    async def _became(self, key: str, each: Delivered) -> tuple[str, str]:
        url, kind = self._url(each.channel), kind_of(each.channel)
        if url is None or not url.startswith(SCHEMES):
            return key, ""
        try:
            way = _way(kind, each.channel)
            return key, await Gateway(url, kind).status(way, each.reference, deadline=SEND_SECONDS)
        except DriverError:
            return key, ""  # asked again in a while; after an hour it stays unknown

    def _url(self, channel: str) -> str | None:
        kind, _, audience = channel.partition("@")
        if not audience:
            endpoints = self._playbook.channels.endpoints
        elif audience in self._playbook.audiences:
            endpoints = self._playbook.audiences[audience].endpoints
        else:
            return None
        url = endpoints.get(kind_of(kind))
        return None if url is None else url.get_secret_value()


def _way(kind: str, channel: str) -> Kind:
    """Whether a gateway writes or calls.

    Raises:
        PermanentError: neither is meant.
    """
    if kind == "phone":
        return "phone"
    if kind == "sms":
        return "sms"
    if kind == "automated-message":
        return "phone"
    raise PermanentError(
        f"sending on {channel}", f"a gateway carries no {kind}", "Give its URL to sms or phone"
    )


def _said(channel: str, subject: str, body: str) -> str:
    """What a call says: to whoever is called why, for links cannot be heard; to an audience all of it."""
    return one_line(f"{subject}. {body}" if "@" in channel else subject, _SPOKEN)


def short(subject: str, body: str, most: int) -> str:
    """On one line of at most `most` characters; a later line that does not fit is left out whole: half a link leads nowhere."""
    first, *rest = body.split("\n")
    text = one_line(f"{subject}. {first}", most)
    for line in rest:
        longer = one_line(f"{text} {line}", most + 1)
        if len(longer) <= most:
            text = longer
    return text
