"""People act at once, on a real store: the log puts them in order, and alerts get their incident exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from casebook import BOOK
from hmsdr.cli.incident_view import list_lines, plain, shown_lines
from hmsdr.decide.severity import Situation
from hmsdr.errors import RefusedError
from hmsdr.incident.desk import Declaration, Desk
from hmsdr.incident.view import as_json, book_as_json
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore

EAST = "us-east-1"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "log.db", create=True)
    yield opened
    await opened.close()


async def add(store: SqliteStore, *events: NewEvent) -> None:
    async def made() -> list[NewEvent]:
        return list(events)

    await append_after(store, made, doing="testing")


def began(key: str, text: str = "") -> NewEvent:
    return NewEvent("alert.began", key, "controller", {"text": text or key, "remedy": "look"})


async def test_several_who_declare_at_once_declare_one_incident(store: SqliteStore) -> None:
    desks = [Desk(BOOK, store) for _ in range(8)]
    declared = [Declaration(f"title {number}", f"person {number}") for number in range(8)]
    found = await asyncio.gather(
        *(desk.declare(said, EAST) for desk, said in zip(desks, declared, strict=True))
    )
    assert {incident.name for incident, _ in found} == {"INC-1"}
    assert sum(fresh for _, fresh in found) == 1
    incident = await desks[0].incident("INC-1", "testing")
    assert incident.notes == 7
    assert incident.passed_over == 0


async def test_several_keepers_give_an_alert_one_incident(store: SqliteStore) -> None:
    await add(store, *(began(f"damage/{EAST}"), began("right-to-write")))
    desks = [Desk(BOOK, store) for _ in range(5)]
    written = await asyncio.gather(*(desk.route(EAST) for desk in desks))
    book = await desks[0].book()
    assert list(book.incidents) == ["INC-1"]
    assert set(book.incidents["INC-1"].signals) == {f"damage/{EAST}", "right-to-write"}
    assert max(written) == 1
    assert [event.kind for event in await store.read()].count("incident.opened") == 1


async def test_who_declares_takes_the_alerts_that_nobody_has(store: SqliteStore) -> None:
    await add(store, began(f"damage/{EAST}"))
    incident, fresh = await Desk(BOOK, store).declare(Declaration("It is slow", "Ada Quill"), EAST)
    assert fresh
    assert incident.severity == "SEV-1"
    assert list(incident.signals) == [f"damage/{EAST}"]
    second, fresh = await Desk(BOOK, store).declare(
        Declaration("Another", "Ada Quill", apart=True, severity="SEV-3", reason="small"), EAST
    )
    assert fresh
    assert (second.name, second.severity) == ("INC-2", "SEV-3")


async def test_who_comes_second_is_judged_by_what_the_first_did(store: SqliteStore) -> None:
    one, other = Desk(BOOK, store), Desk(BOOK, store)
    await one.declare(Declaration("x", "Ada Quill"), EAST)
    await other.incident("INC-1", "testing")
    await one.status("INC-1", "Ada Quill", "resolved")
    with pytest.raises(RefusedError, match="it is resolved"):
        await other.acknowledge("INC-1", "Edda Thorne")
    with pytest.raises(RefusedError, match="it is resolved"):
        await other.status("INC-1", "Edda Thorne", "mitigating")


async def test_what_an_alert_says_cannot_move_a_terminal(store: SqliteStore) -> None:
    nasty = "a\x1b[2Jb\r\nSUBJECT: x\u202e\u2028<!channel>"
    await add(store, began("damage/" + nasty, nasty))
    desk = Desk(BOOK, store)
    before = await desk.book()
    now = (await store.read())[0].at
    lines = list_lines(book_as_json(before, BOOK, now))
    await desk.route(EAST)
    incident = await desk.incident("INC-1", "testing")
    lines += shown_lines(as_json(incident, BOOK, now))
    lines += list_lines(book_as_json(await desk.book(), BOOK, now))
    assert not [line for line in lines if not line.isprintable() and line]
    assert plain("x" * 500, 10) == "x" * 9 + "…"


async def test_what_a_person_sees_is_part_of_the_incident_and_raises_its_severity(store: SqliteStore) -> None:
    desk = Desk(BOOK, store)
    one = Situation(regions=2, services=5, active=EAST, down=("auth",))
    incident, _ = await desk.declare(Declaration("Nobody can log in", "Ada Quill", one), EAST)
    assert (incident.severity, incident.services) == ("SEV-2", ("auth",))
    more = Situation(regions=2, services=5, active=EAST, lost=(EAST,))
    incident, fresh = await desk.declare(Declaration("The east is gone", "Celia Marsh", more), EAST)
    assert not fresh
    assert (incident.severity, incident.services, incident.regions) == ("SEV-1", ("auth",), (EAST,))
    assert incident.reasons == ("auth is down", f"the active region {EAST} is lost")
    assert {each.source for each in incident.signals.values()} == {"Ada Quill", "Celia Marsh"}
    assert incident.passed_over == 0
    over = await desk.status("INC-1", "Ada Quill", "resolved")
    assert all(each.ended_at is not None for each in over.signals.values())
