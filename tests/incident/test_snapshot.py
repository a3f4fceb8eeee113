"""A snapshot says what the log says, or it is not used; nothing fails for want of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from casebook import declared
from hmsdr.decide.incident import Incident, Signal
from hmsdr.decide.incidents import Book, fold
from hmsdr.incident.snapshot import WORTH, beside, current, decode, encode, load, save
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore


def full() -> Book:
    """A book in which every kind of value stands."""
    log = declared()
    log.add("incident.acknowledged", "INC-1", log.incident().roles["incident-commander"][0])
    log.add("incident.severity", "INC-1", "Ada Quill", severity="SEV-0", reason="all of them")
    log.add("incident.noted", "INC-1", "Ada Quill", text="wards on paper", field="impact")
    log.add("incident.ticked", "INC-1", "Ada Quill", item="war-room", evidence="bridge 7")
    log.add("incident.called", "INC-1", "keeper", series="page/1", rung=1)
    log.add("incident.summarized", "INC-1", "keeper", round=1, number=1, digest="d1")
    log.add("incident.met", "INC-1", "keeper", key="INC-1/war-room/1/1", channel="slack:#war-room")
    log.add("incident.said", "INC-1", "Ada Quill", word="first")
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    log.ended("damage/us-east-1")
    alert = {"key": "am/1", "text": "slow", "effect": "down", "services": ["patient"], "severity": "SEV-2"}
    log.add("alerts.received", "alertmanager", "alertmanager", alerts=[alert])
    return log.book


def test_every_value_survives() -> None:
    book = full()
    empty = {
        name for name in Incident.__slots__ if getattr(book.incidents["INC-1"], name) in (None, (), {}, "", 0)
    }
    assert empty == {"passed_over"}
    assert set(Signal.__slots__) == set(Signal.__dataclass_fields__)
    again = decode(json.loads(json.dumps(encode(book))))
    assert again == book
    assert all(type(each.effect) is str for each in again.pending.values())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 0}', '{"format": 1, "seq": 1}', '{"format": 1, "seq": "x"}']
)
def test_what_cannot_be_read_is_no_snapshot(tmp_path: Path, text: str) -> None:
    path = tmp_path / "snapshot"
    path.write_text(text)
    assert load(path) is None
    assert load(tmp_path / "none") is None


async def store_with(path: Path, events: int) -> SqliteStore:
    store = await SqliteStore.open(path, create=True)
    head = await store.head()
    opened = {"title": "x", "severity": "SEV-1", "roles": {}, "signals": []}
    news = [NewEvent("incident.opened", "INC-1", "Ada Quill", opened)]
    news += [
        NewEvent("incident.noted", "INC-1", "Ada Quill", {"text": str(each)}) for each in range(events - 1)
    ]
    await store.append(news, expected=head)
    return store


async def test_a_long_log_leaves_a_snapshot_that_is_used_and_a_short_one_none(tmp_path: Path) -> None:
    path = beside(str(tmp_path / "log.db"))
    store = await store_with(tmp_path / "log.db", WORTH - 1)
    try:
        await current(store, path)
        assert not path.exists()
        note = NewEvent("incident.noted", "INC-1", "Ada Quill", {"text": "one more"})
        await store.append([note], expected=await store.head())
        cold = await current(store, path)
        assert load(path) == cold
        await store.append([note], expected=await store.head())
        # It is used: what it says, wrong as it is here, is what comes out.
        kept = load(path)
        assert kept is not None
        kept.incidents["INC-1"].title = "from the snapshot"
        save(path, kept)
        warm = await current(store, path)
        assert warm.incidents["INC-1"].title == "from the snapshot"
        assert warm.incidents["INC-1"].notes == WORTH
        assert warm.seq == WORTH + 1
    finally:
        await store.close()


async def test_a_snapshot_of_another_log_is_thrown_away(tmp_path: Path) -> None:
    store = await store_with(tmp_path / "log.db", 10)
    other = await store_with(tmp_path / "other.db", 5)
    path = tmp_path / "snapshot"
    try:
        save(path, fold(Book(), await other.read()))
        assert (await current(store, path)).seq == 10
        assert await current(store, path) == await current(store, None)
        # Of a log that is shorter by now, as after a restore: the same.
        save(path, Book(99, "hash", {}, {}))
        assert (await current(store, path)).seq == 10
    finally:
        await store.close()
        await other.close()


async def test_a_disk_that_takes_no_snapshot_is_no_error(tmp_path: Path) -> None:
    store = await store_with(tmp_path / "log.db", WORTH + 1)
    try:
        assert (await current(store, tmp_path / "missing" / "snapshot")).seq == WORTH + 1
    finally:
        await store.close()
