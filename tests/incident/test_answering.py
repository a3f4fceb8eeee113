"""One tap on a real socket: a page that changes nothing, a button that counts once, and nothing for whoever has no link of ours."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from casebook import BOOK
from hmsdr.decide.incident import Incident, Word
from hmsdr.decide.links import Link, link_for, sign
from hmsdr.decide.outbox import QUEUED
from hmsdr.errors import RefusedError
from hmsdr.incident.desk import Declaration, Desk
from hmsdr.incident.keeper import call, queue
from hmsdr.incident.listening import application
from hmsdr.incident.post import short
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import AnswerLinks

KEY = "0123456789abcdef" * 2
LINK = re.compile(r"^(.+): (http://\S+/a/\S+)$", re.MULTILINE)


def linked(url: str, key: str = KEY) -> Playbook:
    links = AnswerLinks(url=url, key=SecretStr(key))
    return BOOK.model_copy(update={"channels": BOOK.channels.model_copy(update={"links": links})})


class Place:
    def __init__(self, store: SqliteStore, playbook: Playbook, session: aiohttp.ClientSession) -> None:
        self.store, self.playbook, self.session = store, playbook, session
        self.desk = Desk(playbook, store)

    async def declare(self, title: str = "The wards <b>cannot</b> log in @channel") -> Incident:
        incident, _ = await self.desk.declare(Declaration(title, "Celia Marsh"), None)
        return incident

    async def links(self) -> dict[str, str]:
        """Who may answer, and by which link, by the messages of everybody who is due."""
        await call(self.desk, self.store, self.playbook)
        bodies = [str(each.data["body"]) for each in await self.store.read() if each.kind == QUEUED]
        return {name: url for body in bodies for name, url in LINK.findall(body)}

    async def ask(self, url: str, method: str = "POST") -> tuple[int, str]:
        async with self.session.request(method, url) as answer:
            assert "no-store" in answer.headers["Cache-Control"]
            return answer.status, await answer.text()

    async def answers(self) -> list[tuple[str, str]]:
        found = await self.store.read()
        return [(each.subject, each.actor) for each in found if each.kind == "incident.acknowledged"]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)
    playbook = linked("http://127.0.0.1:1")
    runner = web.AppRunner(application(Desk(playbook, store), store, playbook), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Place(store, linked(f"http://127.0.0.1:{runner.addresses[0][1]}"), session)
    await runner.cleanup()
    await store.close()


@pytest.mark.req("CO-3", "CL-2")
async def test_one_tap_acknowledges_in_that_persons_name_and_once(place: Place) -> None:
    await place.declare()
    links = await place.links()
    assert {"Bram Fennick", "Celia Marsh", "Dov Larkspur"} < set(links)
    before = await place.store.head()
    # Mail scanners and chats open every link, some with HEAD.
    for method in ("GET", "HEAD", "GET"):
        status, text = await place.ask(links["Bram Fennick"], method)
        assert status == 200
    assert "I have it in hand: Bram Fennick" in text
    assert 'method="post"' in text
    assert "<script" not in text
    assert "<b>" not in text
    assert "@channel" not in text
    assert await place.store.head() == before
    answers = await asyncio.gather(*(place.ask(links["Bram Fennick"]) for _ in range(5)))
    assert {status for status, _ in answers} == {200}
    assert await place.answers() == [("INC-1", "Bram Fennick")]
    incident = await place.desk.incident("INC-1", "testing")
    assert incident.round.acknowledged_by == "Bram Fennick"
    # A second person may say so, too, and is told who was first; what was used is said to be.
    assert "Bram Fennick already" in (await place.ask(links["Celia Marsh"], "GET"))[1]
    assert "Bram Fennick was first" in (await place.ask(links["Celia Marsh"]))[1]
    status, text = await place.ask(links["Bram Fennick"], "GET")
    assert (status, "On the record since" in text, "<form" in text) == (200, True, False)


async def test_the_next_call_has_a_link_of_its_own(place: Place) -> None:
    await place.declare()
    incident = await place.desk.acknowledge("INC-1", "Bram Fennick")
    url = link_for(place.playbook, incident, "Bram Fennick", datetime.now(UTC))
    assert url is not None
    for _ in range(2):
        assert (await place.ask(url))[0] == 200
    assert await place.answers() == [("INC-1", "Bram Fennick")] * 2


async def test_what_is_not_ours_too_old_or_over_changes_nothing(place: Place) -> None:
    incident = await place.declare()
    base = (await place.links())["Bram Fennick"].rpartition("/")[0]
    link = Link("INC-1", 1, incident.seq, "Bram Fennick", datetime.now(UTC) + timedelta(hours=1))

    def url(other: Link = link, key: str = KEY) -> str:
        return f"{base}/{sign(key.encode(), other)}"

    past = datetime.now(UTC) - timedelta(seconds=1)
    before = await place.store.head()
    cases: list[tuple[str, int]] = [
        (url(key="another key of the same length.."), 403),
        (f"{base}/x", 403),
        (url()[:-1], 403),
        (url(replace(link, person="Mallory")), 403),
        (url(replace(link, expires=past)), 410),
        (url(replace(link, incident="INC-9")), 404),
        (url(replace(link, number=2)), 409),
    ]
    for method in ("GET", "POST"):
        for address, status in cases:
            assert (await place.ask(address, method))[0] == status, address
    assert await place.store.head() == before
    await place.desk.status("INC-1", "Celia Marsh", "resolved")
    assert (await place.ask(url()))[0] == 409
    await place.desk.reopen("INC-1", "Celia Marsh", "it came back")
    assert "came back" in (await place.ask(url()))[1]
    assert await place.answers() == []


async def test_a_log_that_is_too_slow_is_said_and_pressing_again_counts_once(
    place: Place, tmp_path: Path
) -> None:
    await place.declare()
    url = (await place.links())["Bram Fennick"]
    with closing(sqlite3.connect(tmp_path / "log.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        status, text = await place.ask(url)
        assert (status, "not known yet" in text) == (503, True)
    # The first press may still be written when the log moves again; the second is the same answer.
    assert (await place.ask(url))[0] == 200
    assert await place.answers() == [("INC-1", "Bram Fennick")]


async def test_words_to_the_team_have_links_until_somebody_has_answered(place: Place) -> None:
    await place.declare()

    async def body(word: Word, audience: str = "response-team") -> str:
        [key] = await queue(place.desk, place.playbook, "INC-1", word, "Celia Marsh", (audience,))
        found: list[dict[str, Any]] = [
            dict(each.data) for each in await place.store.read(subject=key) if each.kind == QUEUED
        ]
        return str(found[-1]["body"])

    assert "TO ACKNOWLEDGE:" in await body(Word.FIRST)
    await place.ask((await place.links())["Bram Fennick"])
    assert "/a/" not in await body(Word.UPDATE)


def test_a_short_key_is_refused_where_links_are_served(tmp_path: Path) -> None:
    playbook = linked("https://incidents.hospital.example", "short")
    desk: Any = None
    with pytest.raises(RefusedError, match="5 characters"):
        application(desk, desk, playbook)


async def test_a_call_leaves_without_its_link_rather_than_not_at_all(place: Place) -> None:
    await place.declare()
    place.playbook = linked("https://incidents.hospital.example", "short")
    assert await place.links() == {}
    assert any(each.kind == QUEUED for each in await place.store.read())


def test_a_text_message_has_a_whole_link_or_none() -> None:
    link = "Ada Quill: https://x.example/a/" + "t" * 90
    text = short("INC-1", f"on call: Ada Quill.\n{link}\n{link}\n{link}\nTo answer: hmsdr", 300)
    assert (text.count(link), text.endswith("To answer: hmsdr"), len(text) <= 300) == (2, True, True)
    assert short("x" * 400, "y", 300).endswith("…")
