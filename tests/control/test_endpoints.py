"""The playbook's further endpoints in a real controller: seen, shown, measured, and on the record when they change."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hospital import EAST, WEST
from manners import Server, until
from ports import World

from hmsdr.control.controller import Controller
from hmsdr.control.endpoints import SEEN, EndpointsWatch
from hmsdr.control.site_api import site_application
from hmsdr.drivers.http import HttpProbe
from hmsdr.log.events import Event
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.endpoints import Endpoint

SITE = "us-east-2"


def endpoint(url: str, **more: Any) -> Endpoint:
    pace = {"interval": timedelta(seconds=0.2), "timeout": timedelta(seconds=0.1)}
    return Endpoint(url=url, **{**pace, **more})


@asynccontextmanager
async def controller(
    world: World, tmp_path: Path, **watch: Endpoint
) -> AsyncIterator[tuple[Controller, str]]:
    """A controller of the witness with its real loops and its HTTP interface."""
    copy = await SqliteStore.open(tmp_path / "copy.db", create=True, lease_seconds=4)
    playbook = world.systems.playbook.model_copy(update={"watch": watch})
    made, stop = Controller(playbook, SITE, world.store, copy), asyncio.Event()
    runner = web.AppRunner(site_application(made), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, world.hosts[WEST], 7444)
    await site.start()
    work = asyncio.create_task(made.run(stop))
    try:
        yield made, f"http://{world.hosts[WEST]}:7444"
    finally:
        stop.set()
        await asyncio.wait_for(work, 15)
        await runner.cleanup()
        await copy.close()


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, Server]]:
    made = {name: Server() for name in ("laboratory", "portal")}
    for server in made.values():
        await server.start()
    yield made
    for server in made.values():
        await server.stop()


async def told(world: World) -> list[dict[str, Any]]:
    events: list[Event] = await world.store.read(subject=SITE)
    return [change for event in events if event.kind == SEEN for change in event.data["changes"]]


@pytest.mark.req("FA-1")
async def test_a_controller_watches_what_the_playbook_names_and_records_changes_only(
    world: World, tmp_path: Path, servers: dict[str, Server]
) -> None:
    await world.serve(WEST)
    servers["portal"].status = 302
    watch = {
        "laboratory": endpoint(servers["laboratory"].url),
        "portal": endpoint(servers["portal"].url, region=EAST, expect=(302,)),
    }
    async with controller(world, tmp_path, **watch) as (made, url):
        await until(lambda: {known.told for _, known, _ in made.endpoints.rows()} == {"well"})
        assert await told(world) == [], "what is well from the beginning is no news"
        servers["laboratory"].status = 503
        while not await told(world):
            await asyncio.sleep(0.05)
        looks = servers["laboratory"].requests
        async with ClientSession() as session:
            async with session.get(f"{url}/v1/view") as answer:
                seen = {each["endpoint"]: each for each in (await answer.json())["endpoints"]["seen"]}
            async with session.get(f"{url}/metrics") as answer:
                figures = await answer.text()
        servers["laboratory"].status = 200
        while len(await told(world)) < 2:
            await asyncio.sleep(0.05)
        changes = await told(world)
    assert looks > 3
    assert (seen["laboratory"]["verdict"], seen["laboratory"]["found"]) == ("wrong", "HTTP 503")
    assert (seen["portal"]["told"], seen["portal"]["region"]) == ("well", EAST)
    assert 'hmsdr_endpoint_up{endpoint="laboratory",region=""} 0.0' in figures
    assert f'hmsdr_endpoint_up{{endpoint="portal",region="{EAST}"}} 1.0' in figures
    assert 'hmsdr_endpoints{verdict="wrong"} 1.0' in figures
    assert "hmsdr_endpoint_looks_skipped_total" in figures
    assert [(each["endpoint"], each["before"], each["seen"]) for each in changes] == [
        ("laboratory", "well", "wrong"),
        ("laboratory", "wrong", "well"),
    ]


def watching(url: str, count: int, *, sees: bool = True) -> tuple[EndpointsWatch, list[list[dict[str, Any]]]]:
    changes: list[list[dict[str, Any]]] = []
    watch = EndpointsWatch(
        {f"endpoint-{number}": endpoint(url) for number in range(count)},
        HttpProbe,
        lambda: sees,
        changes.append,
    )
    return watch, changes


@asynccontextmanager
async def running(watch: EndpointsWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_that_go_away_together_are_one_event(servers: dict[str, Server]) -> None:
    watch, changes = watching(servers["laboratory"].url, 30)
    async with running(watch):
        await until(lambda: len(list(watch.rows())) == 30)
        await servers["laboratory"].stop()
        servers["laboratory"].mute = True
        await until(lambda: sum(map(len, changes)) == 30)
    assert len(changes) <= 2
    assert {each["seen"] for event in changes for each in event} == {"silent"}


async def test_a_blind_site_does_not_say_that_endpoints_are_down(servers: dict[str, Server]) -> None:
    servers["laboratory"].mute = True
    watch, changes = watching(servers["laboratory"].url, 3, sees=False)
    async with running(watch):
        await until(lambda: watch.asked >= 12)
        watch.tell()
        assert list(watch.rows()) == []
        assert changes == []
        assert watch.as_json()["unseen"] == 3, "and says that it sees nothing"


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 300), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
async def test_the_bound_on_open_files_is_raised_for_so_many(servers: dict[str, Server]) -> None:
    watch, _ = watching(servers["laboratory"].url, 100)
    async with running(watch):
        await until(lambda: watch.asked >= 100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 356


async def test_what_cannot_ask_at_all_says_why_and_ends_nobody(tmp_path: Path) -> None:
    watch = EndpointsWatch(
        {"laboratory": endpoint("https://127.0.0.1:1/health")},
        lambda: HttpProbe(ca_file=tmp_path / "gone.pem"),
        lambda: True,
        lambda _: None,
    )
    async with running(watch):
        await until(lambda: "gone.pem" in watch.why)
        assert watch.as_json()["why"] == watch.why
