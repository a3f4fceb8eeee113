"""What a site sees of systems that answer well, wrong, half or not at all, on real ports; and when that is news."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hospital import EAST, WEST
from ports import AGENT, World

from hmsdr.control.facets import Answer, Seen, judged
from hmsdr.control.view import View
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.runbook.systems import Systems

REDIS = 6379


@pytest_asyncio.fixture
async def view(world: World) -> AsyncIterator[View]:
    told.clear()
    playbook = world.systems.playbook
    regions = {
        name: region.model_copy(
            update={"redis": region.redis.model_copy(update={"host": world.hosts[name], "password": None})}
        )
        for name, region in playbook.regions.items()
    }
    systems = Systems(playbook.model_copy(update={"regions": regions}), world.store)
    made = View(systems, lambda *each: told.append(each))
    made.active = EAST
    yield made
    await systems.close()


told: list[tuple[str, str, Answer | None, Seen]] = []


async def answer(view: View, system: str, region: str = EAST) -> Answer:
    await view.ask(region, system)
    return view.known[region, system].seen.answer


@pytest.mark.req("FA-1")
async def test_what_refuses_what_is_silent_and_what_is_half_open(world: World, view: View) -> None:
    for system in ("database", "slots", "redis", "agent"):
        assert await answer(view, system) is Answer.REFUSED, view.known[EAST, system]

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    ports = [
        await asyncio.start_server(silent, world.hosts[EAST], port, reuse_address=True)
        for port in (5432, REDIS, AGENT)
    ]
    try:
        for system in ("database", "slots", "redis", "agent"):
            assert await answer(view, system) is Answer.HALF_OPEN, view.known[EAST, system]
    finally:
        for port in ports:
            port.close()


async def test_who_refuses_our_key_answers_and_wrongly(world: World, view: View) -> None:
    await world.serve(EAST, AGENT, status=401)
    assert await answer(view, "agent") is Answer.WRONG
    assert "as told" in view.known[EAST, "agent"].seen.words


async def test_a_change_is_news_when_it_was_seen_twice(world: World, view: View) -> None:
    await view.ask(EAST, "redis")
    assert told == []
    await view.ask(EAST, "redis")
    ((region, system, before, seen),) = told
    assert (region, system, before, seen.answer) == (EAST, "redis", None, Answer.REFUSED)
    await view.ask(EAST, "redis")
    assert len(told) == 1
    (row,) = view.as_json()
    assert (row["region"], row["system"], row["answer"]) == (EAST, "redis", "refused")


async def test_what_matters_of_the_active_region_alone_is_asked_there_alone(view: View) -> None:
    for system in ("slots", "backup", "alerts"):
        await view.ask(WEST, system)
    assert view.known == {}
    await view.ask(EAST, "slots")
    view.active = WEST
    await view.ask(EAST, "slots")
    assert view.known == {}


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (TemporaryError("asking", "connection refused", ""), Answer.REFUSED),
        (TemporaryError("asking", "no answer within 0.4 s", ""), Answer.SILENT),
        (TemporaryError("asking", "it is a standby, or read-only", ""), Answer.WRONG),
        (PermanentError("asking", "connection refused by pg_hba.conf", ""), Answer.WRONG),
    ],
)
def test_errors_are_told_apart(error: TemporaryError | PermanentError, found: Answer) -> None:
    assert judged(error).answer is found
