"""Watching a region against real ports: who answers, who is silent, who refuses, and who cannot see at all."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hospital import EAST, WEST
from ports import AGENT, PORT, World

from hmsdr.control import bootstrap, pgconf
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.control.watch import RegionWatch
from hmsdr.decide.outage import Sight, Watch


async def looks(watch: RegionWatch, sight: Sight, count: int = 3) -> Watch:
    """Wait until `count` looks in a row gave `sight`."""
    seen: set[float] = set()
    ends = time.monotonic() + 15
    while len(seen) < count:
        assert time.monotonic() < ends, watch.watch
        last = watch.watch.last
        if last is not None:
            seen = seen | {last.at} if last.sight is sight else set()
        await asyncio.sleep(0.01)
    return watch.watch


@pytest.mark.req("FA-1")
async def test_it_is_lost_only_after_the_whole_hold_down_and_the_trigger_says_why(world: World) -> None:
    await world.serve(WEST)
    await world.serve(EAST)
    watch = world.watch()
    task = world.until_lost(watch)
    await looks(watch, Sight.REACHABLE)
    stopped = datetime.now(UTC)
    await world.stop(EAST)
    trigger = await asyncio.wait_for(task, 15)
    assert (trigger.kind, trigger.region) == ("region-unreachable", EAST)
    assert (trigger.decided_at - trigger.unreachable_since).total_seconds() >= 1
    # A look that was under way when it stopped may still have begun before.
    assert -0.5 < (trigger.unreachable_since - stopped).total_seconds() < 1.5
    assert trigger.evidence.keys() == {"ingress", "agent", "database"}
    assert trigger.evidence["ingress"] == "refused"
    told = json.loads(json.dumps(trigger.as_json()))
    assert told["hold_down_seconds"] == 1
    assert told["seen_seconds"] >= 1
    assert [change.since is None for change in world.changes] == [True, False]


@pytest.mark.req("FA-1")
async def test_one_answer_sets_the_hold_down_back(world: World) -> None:
    await world.serve(WEST)
    watch = world.watch()
    task = world.until_lost(watch)
    first = (await looks(watch, Sight.UNREACHABLE, 2)).since
    await world.serve(EAST)
    await looks(watch, Sight.REACHABLE, 1)
    await world.stop(EAST)
    trigger = await asyncio.wait_for(task, 15)
    assert (watch.watch.since or 0) > (first or 0)
    assert (trigger.decided_at - trigger.unreachable_since).total_seconds() >= 1


async def test_who_sees_nothing_at_all_says_nothing_of_the_region(world: World) -> None:
    watch = world.watch()
    task = world.until_lost(watch)
    blind = await looks(watch, Sight.BLIND, 12)  # longer than the hold-down
    assert blind.since is None
    assert not task.done()
    assert blind.last is not None
    assert blind.last.evidence["references"] == "none of 3 answers"
    began = datetime.now(UTC)
    await world.serve(WEST)
    trigger = await asyncio.wait_for(task, 15)
    assert (trigger.decided_at - began).total_seconds() >= 1


@pytest.mark.req("FA-1")
async def test_silence_counts_from_the_beginning_of_the_first_look(world: World) -> None:
    """Ports that accept and say nothing: each look then costs its whole timeout."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    await world.serve(WEST)
    ports = [
        await asyncio.start_server(silent, world.hosts[EAST], port, reuse_address=True)
        for port in (PORT, AGENT, 5432)
    ]
    began = datetime.now(UTC)
    trigger = await asyncio.wait_for(world.until_lost(world.watch()), 15)
    for port in ports:
        port.close()
    assert abs((trigger.unreachable_since - began).total_seconds()) < 0.3
    assert trigger.evidence["ingress"] == "half_open"
    assert "no answer within 0.4 s" in trigger.evidence["agent"]
    assert "no answer within 0.4 s" in trigger.evidence["database"]


@pytest.mark.req("FA-1")
async def test_an_ingress_with_nothing_behind_it_does_not_save_a_region(world: World) -> None:
    await world.serve(WEST)
    await world.serve(EAST, status=503)
    trigger = await asyncio.wait_for(world.until_lost(world.watch()), 15)
    assert trigger.evidence["ingress"] == "HTTP 503"


async def test_an_agent_that_refuses_our_key_is_there(world: World) -> None:
    await world.serve(WEST)
    await world.serve(EAST, AGENT, status=401)
    watch = world.watch()
    task = world.until_lost(watch)
    seen = await looks(watch, Sight.REACHABLE, 12)
    assert not task.done()
    assert seen.last is not None
    assert seen.last.evidence["agent"] == "refuses us: as told"


async def test_a_database_that_refuses_us_is_there_and_does_not_end_the_watch(
    world: World, template: Path
) -> None:
    data = world.directory / "data"
    bootstrap.clone(template, data, choose())
    server = PostgresServer(data, postgres_bin(), choose(), world.directory / "log")
    east = world.systems.playbook.regions[EAST].postgres
    settings = pgconf.settings(east, listen=east.host, sockets=None, upstream=None)
    await server.start(writable=True, settings=settings, deadline=30)
    try:
        await world.serve(WEST)
        world.systems.postgres(EAST).instance = east.model_copy(update={"database": "none"})
        watch = world.watch()
        task = world.until_lost(watch)
        seen = await looks(watch, Sight.REACHABLE, 3)
        assert not task.done()
        assert seen.last is not None
        assert "does not exist" in seen.last.evidence["database"]
    finally:
        await server.kill(10)
