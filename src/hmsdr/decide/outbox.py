"""What is to be sent, on which channel, and what has become of it: a fold of the log, and a decision (CM-1, CM-2). Pure.

    queued -> sending -> sent -> receipt             where the channel tells what became of it: it arrived, or it did not
                         sent -> receipt -> sending   it did not: the next channel, when there is one that was not tried
              sending -> failed -> sending …     the next channel at once, the same one after a pause; for ever, never given up
              sending -> (nothing is heard)      whoever sent it died: after a while it is sent again, and may have come twice

Each message has a key, by which one that is queued again is known and one that comes twice can be told. Nothing is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hmsdr.decide.signals import Recorded
from hmsdr.playbook.people import Rates

QUEUED, SENDING, SENT, FAILED = "message.queued", "message.sending", "message.sent", "message.failed"
RECEIPT = "message.receipt"
_KINDS = frozenset({QUEUED, SENDING, SENT, FAILED, RECEIPT})
PAUSES = tuple(timedelta(seconds=each) for each in (2, 5, 15, 30, 60))
"""Before a channel that did not take a message is asked again."""
UNHEARD = timedelta(seconds=60)
"""A sender of whom nothing is heard for so long has died; longer than any sending may take."""
RECEIPTS_FOR = timedelta(hours=1)
"""What a channel has not told by then it is not asked any more."""
NOT_ARRIVED = frozenset({"undelivered", "failed", "canceled", "busy", "no-answer"})
"""Receipts by which nobody has it."""
_MINUTE = timedelta(minutes=1)
_LONGEST_PEACE = 3600
"""Seconds that a channel may ask for."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way. ``need`` is its place in the queue: 0 goes first."""

    key: str
    incident: str
    word: str
    audience: str
    channels: tuple[str, ...]
    """In order of preference: ``slack:#incident-response``."""
    subject: str
    body: str
    need: int
    queued_at: datetime
    queued_seq: int
    tried: Mapping[str, int] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    """Channels that cannot take it, as they are now."""
    sending_at: datetime | None = None
    sending_on: str = ""
    failed_at: datetime | None = None
    found: str = ""
    doubtful: bool = False
    """Somebody may have it already."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a message. ``maybe_twice``: an earlier sending may have arrived, too."""

    at: datetime
    channel: str
    maybe_twice: bool
    queued_at: datetime
    word: str
    audience: str
    incident: str
    reference: str = ""
    """By which the channel knows it, where it tells what became of it."""
    receipt: str = ""
    """What it told: ``delivered``, ``undelivered`` …; empty while it has told nothing that is final."""
    before: str = ""
    """What was found when it was tried last, before this."""
    parcel: Parcel | None = None
    """The message itself, kept where it may have to go another way: a long list's are not."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to do now."""

    key: str
    channel: str
    number: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """The log as far as it was read."""

    seq: int = 0
    waiting: Mapping[str, Parcel] = field(default_factory=dict)
    done: Mapping[str, Delivered] = field(default_factory=dict)
    recent: tuple[tuple[str, datetime], ...] = ()
    """Kind of channel and time of sendings in the last minute before the last one."""
    held: Mapping[str, datetime] = field(default_factory=dict)
    """Channels that asked for peace, and until when."""


def fold(outbox: Outbox, events: Iterable[Recorded]) -> Outbox:
    """The outbox with `events` more; those that were read before are passed over."""
    waiting, done, recent = dict(outbox.waiting), dict(outbox.done), list(outbox.recent)
    held = dict(outbox.held)
    seq = outbox.seq
    for event in events:
        fresh, seq = event.seq > seq, max(seq, event.seq)
        if not fresh or event.kind not in _KINDS:
            continue
        if event.kind == QUEUED:
            if event.subject not in waiting and event.subject not in done:
                waiting[event.subject] = _parcel(event)
            continue
        if event.kind == RECEIPT:
            _receipt(waiting, done, event)
            continue
        parcel = waiting.get(event.subject)
        if parcel is None:
            continue
        channel = str(event.data.get("channel", ""))
        if event.kind == SENDING:
            waiting[parcel.key] = _sending(parcel, channel, event.at)
            recent.append((kind_of(channel), event.at))
        elif event.kind == FAILED:
            waiting[parcel.key] = _failed(parcel, channel, event)
            _hold(held, channel, event)
        else:
            del waiting[parcel.key]
            done[parcel.key] = _delivered(parcel, channel, event)
    # Once for all events: at thousands a minute, once for each would take longer than sending them.
    last = max((at for _, at in recent), default=None)
    lately = tuple(each for each in recent if last is None or last - each[1] < _MINUTE)
    return Outbox(seq, waiting, done, lately, held)


def ready(
    outbox: Outbox,
    now: datetime,
    most: int = 50,
    unheard: timedelta = UNHEARD,
    rates: Rates = Rates(),  # noqa: B008 - frozen
) -> list[Attempt]:
    """What is to be sent now, most needed first; what a channel's rate forbids waits.

    Args:
        outbox: as of now.
        now: the time.
        most: at most so many.
        unheard: a sender of whom nothing is heard for so long has died.
        rates: messages that a kind of channel takes in a minute.
    """
    used = Counter(kind for kind, at in outbox.recent if now - at < _MINUTE)
    held = frozenset(name for name, until in outbox.held.items() if now < until)
    found: list[Attempt] = []
    for parcel in sorted(outbox.waiting.values(), key=lambda each: (each.need, each.queued_seq)):
        if len(found) == most:
            break
        channel = _channel(parcel, now, unheard, held)
        if channel is None:
            continue
        kind = kind_of(channel)
        if used[kind] >= rates.of(kind):
            continue
        used[kind] += 1
        found.append(Attempt(parcel.key, channel, sum(parcel.tried.values()) + 1))
    return found


def unreceipted(outbox: Outbox, now: datetime, most: int = 50) -> list[tuple[str, Delivered]]:
    """Messages of the last hour of which the channel can still tell what became of them, oldest first: key and what is known."""
    found = [
        (key, each)
        for key, each in outbox.done.items()
        if each.reference and not each.receipt and now - each.at < RECEIPTS_FOR
    ]
    return sorted(found, key=lambda each: each[1].at)[:most]


def kind_of(channel: str) -> str:
    """``slack`` of ``slack:#incident-response``; ``email`` of ``email@management``."""
    return channel.replace("@", ":").partition(":")[0]


def failing(outbox: Outbox) -> list[Parcel]:
    """Messages that no channel took so far, although each was tried: people must be told otherwise."""
    return [each for each in outbox.waiting.values() if all(each.tried.get(name) for name in each.channels)]


def _channel(parcel: Parcel, now: datetime, unheard: timedelta, held: frozenset[str]) -> str | None:
    """The channel that is to be tried now: the first of those that were tried least and did not ask for peace."""
    if parcel.sending_at is not None:
        if now - parcel.sending_at < unheard:
            return None
        # Nothing was heard of it: as if it had failed.
        free = [name for name in parcel.channels if name not in held]
        return min(free, key=lambda name: parcel.tried.get(name, 0), default=None)
    # When all refuse, all are asked now and then: somebody may have mended one.
    usable = [name for name in parcel.channels if name not in parcel.refused] or list(parcel.channels)
    usable = [name for name in usable if name not in held]
    if not usable:
        return None
    channel = min(usable, key=lambda name: parcel.tried.get(name, 0))
    times = parcel.tried.get(channel, 0)
    if times == 0 or parcel.failed_at is None or any(parcel.tried.get(name, 0) > times for name in usable):
        return channel
    return channel if now - parcel.failed_at >= PAUSES[min(times, len(PAUSES)) - 1] else None


def _parcel(event: Recorded) -> Parcel:
    data = event.data
    return Parcel(
        event.subject,
        str(data.get("incident", "")),
        str(data.get("word", "")),
        str(data.get("audience", "")),
        tuple(dict.fromkeys(map(str, data.get("channels", ())))) or ("none",),
        str(data.get("subject", "")),
        str(data.get("body", "")),
        int(data.get("need", 5)),
        event.at,
        event.seq,
    )


def _hold(held: dict[str, datetime], channel: str, event: Recorded) -> None:
    """A channel that did not take a message may have asked for peace."""
    after = event.data.get("after")
    if isinstance(after, int | float) and 0 < after <= _LONGEST_PEACE:
        held[channel] = max(held.get(channel, event.at), event.at + timedelta(seconds=after))


def _delivered(parcel: Parcel, channel: str, event: Recorded) -> Delivered:
    reference = str(event.data.get("reference", ""))
    kept = parcel if reference and _untried(parcel) else None
    return Delivered(
        event.at, channel, parcel.doubtful, parcel.queued_at, parcel.word, parcel.audience, parcel.incident, reference,
        before=parcel.found, parcel=kept,
    )  # fmt: skip


def _untried(parcel: Parcel) -> bool:
    return any(not parcel.tried.get(name) and name not in parcel.refused for name in parcel.channels)


def _receipt(waiting: dict[str, Parcel], done: dict[str, Delivered], event: Recorded) -> None:
    """What became of a message; one that did not arrive goes the next way, when there is one."""
    known = done.get(event.subject)
    if known is None or known.receipt:
        return
    status, channel = str(event.data.get("status", "")), str(event.data.get("channel", known.channel))
    if channel != known.channel:
        return  # of a way that it went before
    if status not in NOT_ARRIVED or known.parcel is None:
        done[event.subject] = replace(known, receipt=status, parcel=None)
        return
    parcel, found = known.parcel, f"{channel}: {status}"
    del done[event.subject]
    waiting[event.subject] = replace(
        parcel, sending_at=None, failed_at=event.at, found=found, refused=parcel.refused | {channel}
    )


def _sending(parcel: Parcel, channel: str, at: datetime) -> Parcel:
    # An earlier sending of which nothing was heard may have arrived.
    doubtful = parcel.doubtful or parcel.sending_at is not None
    tried = {**parcel.tried, channel: parcel.tried.get(channel, 0) + 1}
    return replace(parcel, sending_at=at, sending_on=channel, tried=tried, doubtful=doubtful)


def _failed(parcel: Parcel, channel: str, event: Recorded) -> Parcel:
    data: Mapping[str, Any] = event.data
    refused = parcel.refused | {channel} if data.get("permanent") else parcel.refused
    return replace(
        parcel,
        sending_at=None,
        failed_at=event.at,
        found=str(data.get("found", "")),
        refused=refused,
        doubtful=parcel.doubtful or data.get("unknown") is True,
    )
