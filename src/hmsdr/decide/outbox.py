"""What is to be sent, on which channel, and what has become of it: a fold of the log, and a decision (CM-1, CM-2). Pure.

    queued -> sending -> sent
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
_KINDS = frozenset({QUEUED, SENDING, SENT, FAILED})
PAUSES = tuple(timedelta(seconds=each) for each in (2, 5, 15, 30, 60))
"""Before a channel that did not take a message is asked again."""
UNHEARD = timedelta(seconds=60)
"""A sender of whom nothing is heard for so long has died; longer than any sending may take."""
_MINUTE = timedelta(minutes=1)


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


def fold(outbox: Outbox, events: Iterable[Recorded]) -> Outbox:
    """The outbox with `events` more; those that were read before are passed over."""
    waiting, done, recent = dict(outbox.waiting), dict(outbox.done), list(outbox.recent)
    seq = outbox.seq
    for event in events:
        if event.seq <= seq:
            continue
        seq = event.seq
        if event.kind not in _KINDS:
            continue
        if event.kind == QUEUED:
            if event.subject not in waiting and event.subject not in done:
                waiting[event.subject] = _parcel(event)
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
        else:
            del waiting[parcel.key]
            done[parcel.key] = Delivered(
                event.at, channel, parcel.doubtful, parcel.queued_at, parcel.word, parcel.audience, parcel.incident
            )  # fmt: skip
    # Once for all events: at thousands a minute, once for each would take longer than sending them.
    last = max((at for _, at in recent), default=None)
    return Outbox(
        seq, waiting, done, tuple(each for each in recent if last is None or last - each[1] < _MINUTE)
    )


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
    found: list[Attempt] = []
    for parcel in sorted(outbox.waiting.values(), key=lambda each: (each.need, each.queued_seq)):
        if len(found) == most:
            break
        channel = _channel(parcel, now, unheard)
        if channel is None:
            continue
        kind = kind_of(channel)
        if used[kind] >= rates.of(kind):
            continue
        used[kind] += 1
        found.append(Attempt(parcel.key, channel, sum(parcel.tried.values()) + 1))
    return found


def kind_of(channel: str) -> str:
    """``slack`` of ``slack:#incident-response``; ``email`` of ``email@management``."""
    return channel.replace("@", ":").partition(":")[0]


def failing(outbox: Outbox) -> list[Parcel]:
    """Messages that no channel took so far, although each was tried: people must be told otherwise."""
    return [each for each in outbox.waiting.values() if all(each.tried.get(name) for name in each.channels)]


def _channel(parcel: Parcel, now: datetime, unheard: timedelta) -> str | None:
    """The channel that is to be tried now: the first of those that were tried least."""
    if parcel.sending_at is not None:
        if now - parcel.sending_at < unheard:
            return None
        # Nothing was heard of it: as if it had failed.
        return min(parcel.channels, key=lambda name: parcel.tried.get(name, 0))
    # When all refuse, all are asked now and then: somebody may have mended one.
    usable = [name for name in parcel.channels if name not in parcel.refused] or list(parcel.channels)
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
