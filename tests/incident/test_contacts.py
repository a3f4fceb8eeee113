"""Contacts are confirmed with one tap, go stale, and are asked for in time; the papers have every number."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from pydantic import SecretStr

from casebook import BOOK, START, Log
from hmsdr.cli.contacts import contacts as command
from hmsdr.decide.contacts import ASK_AGAIN, Directory, Known, Standing, fold, known, to_ask
from hmsdr.decide.links import Link, sign
from hmsdr.decide.outbox import QUEUED
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.incident.contacts import Contacts
from hmsdr.incident.desk import Desk
from hmsdr.incident.listening import application
from hmsdr.incident.paper import printed
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.people import AnswerLinks

KEY = "0123456789abcdef" * 2
EVERY = BOOK.contacts.verify_every
NAMES = [person.name for person in BOOK.people]


def of(log: Log, name: str = "Ada Quill") -> Known:
    found = known(fold(Directory(), log.events), BOOK, log.now)
    return next(each for each in found if each.person.name == name)


def confirm(log: Log, name: str, **other: str) -> None:
    person = next(each for each in BOOK.people if each.name == name)
    log.add("contact.confirmed", name, name, **{"phone": person.phone, "email": person.email, **other})


@pytest.mark.req("CO-4")
def test_a_confirmation_holds_for_a_time_and_for_that_number() -> None:
    log = Log()
    assert of(log).standing is Standing.NEVER
    confirm(log, "Ada Quill")
    assert (of(log).standing, of(log).due_at) == (Standing.CONFIRMED, log.now + EVERY)
    log.later(seconds=EVERY.total_seconds() - 1)
    assert of(log).standing is Standing.CONFIRMED
    log.later(seconds=1)
    assert of(log).standing is Standing.STALE
    confirm(log, "Ada Quill", phone="+12025550000")
    assert of(log).standing is Standing.CHANGED


@pytest.mark.req("CO-4")
def test_people_are_asked_before_it_is_stale_again_after_a_week_and_never_at_night() -> None:
    log = Log()
    assert to_ask(fold(Directory(), log.events), BOOK, log.now) == tuple(NAMES)
    for name in NAMES:
        log.add("contact.asked", name, "keeper")
        confirm(log, name)

    def asked() -> tuple[str, ...]:
        return to_ask(fold(Directory(), log.events), BOOK, log.now)

    assert asked() == ()
    log.later(seconds=(EVERY - timedelta(days=7)).total_seconds())
    assert asked() == tuple(NAMES)
    log.add("contact.asked", "Ada Quill", "keeper")
    assert asked() == tuple(NAMES[1:])
    log.later(seconds=ASK_AGAIN.total_seconds())
    assert asked() == tuple(NAMES)
    log.later(hours=14)  # one in the morning in New York
    assert asked() == ()


def test_who_is_alone_or_in_several_places_is_said() -> None:
    roles = {
        **BOOK.roles,
        "security-lead": BOOK.roles["security-lead"].model_copy(update={"primary": "Celia Marsh"}),
    }
    found = known(Directory(), BOOK.model_copy(update={"roles": roles}), START)
    celia = next(each for each in found if each.person.name == "Celia Marsh")
    assert (celia.alone, celia.several) == (("operations-manager", "security-lead"), True)
    ada = next(each for each in found if each.person.name == "Ada Quill")
    assert (ada.roles, ada.alone, ada.several) == (("incident-commander",), (), False)


@pytest.mark.req("CO-4")
async def test_one_tap_confirms_once_for_each_question(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)

    def linked(url: str) -> Any:
        links = AnswerLinks(url=url, key=SecretStr(KEY))
        on_call = BOOK.on_call.model_copy(update={"quiet_hours": None})
        channels = BOOK.channels.model_copy(update={"links": links})
        return BOOK.model_copy(update={"channels": channels, "on_call": on_call})

    book = linked("http://127.0.0.1:1")
    runner = web.AppRunner(application(Desk(book, store), store, book), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    book = linked(f"http://127.0.0.1:{runner.addresses[0][1]}")
    people = Contacts(book, store)
    counts = await asyncio.gather(people.ask_who_is_due("a"), Contacts(book, store).ask_who_is_due("b"))
    assert sum(counts) == len(NAMES)
    assert await people.ask_who_is_due("a") == 0
    bodies = [str(each.data["body"]) for each in await store.read() if each.kind == QUEUED]
    urls = [url for body in bodies for url in re.findall(r"http://\S+", body)]
    assert len(urls) == len(NAMES)
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, url: str) -> int:
            async with session.request(method, url) as answer:
                return answer.status

        head = await store.head()
        assert {await ask("GET", url) for url in urls} == {200}
        assert await store.head() == head
        answers = await asyncio.gather(*(ask("POST", urls[0]) for _ in range(4)))
        assert set(answers) == {200}
        # A link to acknowledge is none to confirm with, and the other way round.
        other = sign(KEY.encode(), Link("contact", 1, 1, NAMES[0], datetime.now(UTC) + timedelta(days=1)))
        assert await ask("POST", urls[0].rpartition("/")[0] + "/" + other) == 403
        assert await ask("POST", urls[0].replace("/c/", "/a/")) == 403
        assert await ask("GET", urls[0][:-1]) == 403
    done = [each.subject for each in await store.read() if each.kind == "contact.confirmed"]
    assert done == [NAMES[0]]
    assert [each.person.name for each in await people.known() if each.standing is Standing.CONFIRMED] == done
    with pytest.raises(RefusedError, match="Did you mean"):
        await people.ask(["Ada Quil"], "x")
    await runner.cleanup()
    await store.close()


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.found.append(data.strip())


@pytest.mark.req("AP-2", "CO-1", "CO-2")
def test_the_papers_have_everybody_and_every_list() -> None:
    person = BOOK.people[0].model_copy(update={"name": "<Ada> & Co"})
    book = BOOK.model_copy(update={"people": (person, *BOOK.people[1:])})
    text = printed(book, START)
    assert "<Ada>" not in text
    card, _, sheet = text.partition('<section class="sheet">')
    on_sheet, on_card = Cells(sheet).found, Cells(card).found
    for each in book.people:
        assert {each.name, each.phone, each.email} <= set(on_sheet)
    lists = (*book.contacts.emergency.values(), *book.contacts.vendors.values())
    assert all({each.name, each.reach} <= set(on_sheet) for entries in lists for each in entries)
    assert all({each.name, each.reach} <= set(on_card) for entries in lists for each in entries)
    for role in book.roles.values():
        assert role.primary in on_card
    assert "overflow: hidden" not in text  # a card that is too small must not hide a number
    assert "<script" not in text


def test_the_commands_say_who_is_not_confirmed(tmp_path: Path) -> None:
    secrets = {
        "HMSDR_POSTGRES_PASSWORD": "x",
        "HMSDR_AGENT_KEY_US_EAST_1": "x",
        "HMSDR_AGENT_KEY_US_WEST_2": "x",
    }
    book = tmp_path / "playbook.yaml"
    book.write_text(f"extends: hms\nstore: {{path: {tmp_path / 'log.db'}}}\n")

    def run(*words: str) -> Any:
        return CliRunner(env=secrets).invoke(command, [*words, "--playbook", str(book)])

    async def create() -> None:
        await (await SqliteStore.open(tmp_path / "log.db", create=True)).close()

    asyncio.run(create())
    for name in NAMES[1:]:
        assert run("confirm", name, "--by", "Ada Quill").exit_code == 0
    done = run("list")
    assert isinstance(done.exception, HmsdrError)
    assert "not confirmed: Ada Quill." in str(done.exception)
    assert "! Ada Quill" in done.output
    assert run("ask", "Ada Quill", "--by", "x").exit_code == 0
    assert run("confirm", "Ada Quill", "--by", "x").exit_code == 0
    assert run("list").exit_code == 0
    assert isinstance(run("confirm", "Nobody", "--by", "x").exception, RefusedError)
    assert run("print", "--out", str(tmp_path / "p.html")).exit_code == 0
    assert isinstance(run("print", "--out", str(tmp_path / "no" / "p.html")).exception, RefusedError)
