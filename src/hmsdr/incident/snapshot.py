"""A book of incidents kept beside the store, so that a long log is not folded afresh for every command. A cache, never the truth.

It names the event up to which it was folded, with that event's hash: one that is not of this log, or that cannot be read, is thrown
away, and the log is folded from its beginning. Nothing fails for want of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from hmsdr.decide.incident import Incident, Room, Round, Signal, Status, Tick, Told
from hmsdr.decide.incidents import Book, fold
from hmsdr.log.store import EventLog

FORMAT = 2
WORTH = 2000
"""So many new events make a new snapshot."""
_SIGNAL = tuple(each.name for each in fields(Signal))
_ROOM = tuple(each.name for each in fields(Room))
_ROUND = tuple(each.name for each in fields(Round))
_PLAIN = (
    "name",
    "title",
    "by",
    "opened_seq",
    "severity",
    "proposed",
    "notes",
    "called",
    "sign_seq",
)
_COUNTS = ("seq", "events", "passed_over")


async def current(log: EventLog, path: Path | None) -> Book:
    """The book as of now, from the snapshot at `path` where that is good, and a fresh one there when many events were new.

    Args:
        log: the truth.
        path: where the snapshot is; None without one.

    Raises:
        StoreError: the log cannot be read.
    """
    kept = None if path is None else load(path)
    book = Book()
    if kept is not None and kept.seq > 0:
        # One event more than is needed: the snapshot's last one must be the log's, too.
        events = await log.read(kept.seq - 1)
        if events and events[0].seq == kept.seq and events[0].hash == kept.head:
            book = fold(kept, events[1:])
    if book.seq == 0:
        kept = None
        book = fold(book, await log.read())
    if path is not None and book.seq - (0 if kept is None else kept.seq) >= WORTH:
        save(path, book)
    return book


def beside(store_path: str) -> Path:
    """Where the snapshot of the store at `store_path` is kept."""
    return Path(f"{store_path}.incidents.json")


def load(path: Path) -> Book | None:
    """The snapshot at `path`; None when there is none that this version can read."""
    try:
        return decode(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save(path: Path, book: Book) -> None:
    """Keep `book` at `path`, whole or not at all; a disk that takes it not is no error."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(
            json.dumps(encode(book), ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
        )
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()


def encode(book: Book) -> dict[str, Any]:
    """`book` as JSON values."""
    return {
        "format": FORMAT,
        "seq": book.seq,
        "head": book.head,
        "incidents": [_of_incident(each) for each in book.incidents.values()],
        "pending": [_of_signal(each) for each in book.pending.values()],
    }


def decode(raw: Mapping[str, Any]) -> Book:
    """The book in `raw`.

    Raises:
        ValueError: another version wrote it.
    """
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']}")
    incidents = [_incident(each) for each in raw["incidents"]]
    pending = [_signal(each) for each in raw["pending"]]
    return Book(
        int(raw["seq"]),
        str(raw["head"]),
        {each.name: each for each in incidents},
        {each.key: each for each in pending},
    )


def _of_incident(incident: Incident) -> dict[str, Any]:
    return {
        **{name: getattr(incident, name) for name in (*_PLAIN, *_COUNTS)},
        "status": str(incident.status),
        "reasons": list(incident.reasons),
        "sign_at": _text(incident.sign_at),
        "at": _text(incident.at),
        "roles": {role: list(chain) for role, chain in incident.roles.items()},
        "rounds": [[_value(getattr(each, name)) for name in _ROUND] for each in incident.rounds],
        "overruled": _of_told(incident.overruled),
        "signals": [_of_signal(each) for each in incident.signals.values()],
        "facts": {name: _of_told(each) for name, each in incident.facts.items()},
        "room": _of_room(incident.room),
        "ticks": {
            name: [each.done, each.evidence, each.by, _text(each.at)] for name, each in incident.ticks.items()
        },
    }


def _incident(raw: Mapping[str, Any]) -> Incident:
    signals = [_signal(each) for each in raw["signals"]]
    facts = {name: told for name, each in raw["facts"].items() if (told := _told(each)) is not None}
    return Incident(
        **{name: raw[name] for name in (*_PLAIN, *_COUNTS)},
        status=Status(raw["status"]),
        reasons=tuple(raw["reasons"]),
        sign_at=_at(raw["sign_at"]),
        at=_at(raw["at"]),
        roles={role: tuple(chain) for role, chain in raw["roles"].items()},
        rounds=tuple(_round(each) for each in raw["rounds"]),
        overruled=_told(raw["overruled"]),
        signals={each.key: each for each in signals},
        facts=facts,
        room=_room(raw["room"]),
        ticks={
            name: Tick(done, evidence, by, datetime.fromisoformat(at))
            for name, (done, evidence, by, at) in raw["ticks"].items()
        },
    )


def _of_signal(signal: Signal) -> list[Any]:
    return [_value(getattr(signal, name)) for name in _SIGNAL]


def _signal(raw: list[Any]) -> Signal:
    key, text, at, source, effect, regions, services, severity, ended, count = raw
    began = datetime.fromisoformat(at)
    return Signal(
        key, text, began, source, effect, tuple(regions), tuple(services), severity, _at(ended), count
    )


def _round(raw: list[Any]) -> Round:
    values: dict[str, Any] = dict(zip(_ROUND, raw, strict=True))
    return Round(**values | {name: _at(at) for name, at in values.items() if name.endswith("_at")})


def _of_room(room: Room | None) -> list[Any] | None:
    return None if room is None else [_value(getattr(room, name)) for name in _ROOM]


def _room(raw: list[Any] | None) -> Room | None:
    if raw is None:
        return None
    number, summary, digest, queued, arrived, channel = raw
    return Room(number, summary, digest, datetime.fromisoformat(queued), _at(arrived), channel)


def _of_told(told: Told | None) -> list[Any] | None:
    return None if told is None else [told.text, told.by, _text(told.at)]


def _told(raw: list[Any] | None) -> Told | None:
    return None if raw is None else Told(raw[0], raw[1], datetime.fromisoformat(raw[2]))


def _value(value: Any) -> Any:
    return _text(value) if isinstance(value, datetime) else list(value) if isinstance(value, tuple) else value


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
