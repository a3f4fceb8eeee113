"""Fencing real PostgreSQL: confirmed only when every process is dead, durable before it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress

import aiohttp
import psycopg
import pytest
from hospital import EAST, Hospital, Open, Region, until

from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.drivers.postgres import Postgres


async def commit_without_end(region: Region, acknowledged: list[float]) -> None:
    """A busy session: commits as fast as it can and notes when each commit was acknowledged."""
    with suppress(psycopg.Error):
        async with await region.connect() as connection:
            while True:
                await connection.execute("INSERT INTO patients (name) VALUES ('busy')")
                acknowledged.append(time.monotonic())


async def fence(here: Hospital, *, clean: bool = False, epoch: int = 1) -> float:
    began = time.monotonic()
    receipt = await here.east.client.fence(epoch=epoch, reason="test", run="t", clean=clean, deadline=30)
    assert receipt.survivors == 0
    assert here.east.processes() == {}
    return time.monotonic() - began


async def ready(here: Hospital) -> tuple[int, dict[str, object]]:
    """What the east's agent answers to whoever routes to it, without a key."""
    url = f"{here.book.regions[EAST].agent.url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


@pytest.mark.req("DB-1")
async def test_a_busy_backend_stops_committing_before_the_receipt(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    acknowledged: list[float] = []
    sessions = [asyncio.create_task(commit_without_end(here.east, acknowledged)) for _ in range(3)]

    async def busy() -> bool:
        return len(acknowledged) > 20

    await until("busy sessions", busy)
    seconds = await fence(here)
    confirmed = time.monotonic()
    print(f"fenced by killing in {seconds * 1000:.1f} ms")  # noqa: T201
    await asyncio.gather(*sessions)
    assert max(acknowledged) <= confirmed
    receipt = (await here.east.status()).fence
    assert receipt is not None
    assert receipt.last_lsn is not None
    assert not receipt.clean


@pytest.mark.req("DB-1")
async def test_a_backend_that_outlives_its_killed_postmaster_is_found_and_killed(hospital: Open) -> None:
    here = await hospital(lease="60s")
    await here.east_is_primary("--on-crash", "hold")
    async with await here.east.connect() as connection:
        spin = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 2000000000)"))
        await asyncio.sleep(0)

        async def spinning() -> int | None:
            return here.east.find(b" SELECT")

        backend = await until("a busy backend", spinning)
        here.east.agent.send_signal(signal.SIGSTOP)  # the agent must not be the one who cleans up at once
        os.kill(here.east.postmaster(), signal.SIGKILL)

        async def orphaned() -> bool:
            return here.east.postmaster() not in here.east.processes() and backend in here.east.processes()

        await until("an orphaned backend", orphaned)
        here.east.agent.send_signal(signal.SIGCONT)
        await fence(here)
        with pytest.raises(psycopg.Error):
            await spin


@pytest.mark.req("DB-1")
async def test_a_stopped_postmaster_is_fenced_clean_or_not(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    os.kill(here.east.postmaster(), signal.SIGSTOP)
    seconds = await fence(here)
    print(f"fenced with a stopped postmaster in {seconds * 1000:.1f} ms")  # noqa: T201


@pytest.mark.req("DB-1")
async def test_a_clean_fence_is_exact_and_the_same_order_gives_the_same_receipt(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('last') RETURNING id")
    seconds = await fence(here, clean=True)
    print(f"fenced clean in {seconds * 1000:.1f} ms")  # noqa: T201
    first = (await here.east.status()).fence
    again = await here.east.client.fence(epoch=1, reason="again", run="t2", clean=False, deadline=10)
    assert first == again
    assert first is not None
    assert (first.clean, first.killed) == (True, 0)

    async def all_there() -> bool:
        status = await Postgres(here.book.regions["us-west-2"].postgres).status(deadline=3)
        return status.lsn is not None and first.last_lsn is not None and status.lsn >= first.last_lsn

    await until("everything in the west", all_there)


async def test_an_agent_is_ready_while_its_database_runs_and_says_why_it_is_not(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    assert await ready(here) == (200, {"ready": True, "why": ""})
    await fence(here)
    assert await ready(here) == (503, {"ready": False, "why": "the database is fenced"})


@pytest.mark.req("DB-1")
async def test_a_fence_of_an_older_epoch_is_refused(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await fence(here, epoch=5)
    with pytest.raises(PermanentError, match="epoch 5 was accepted"):
        await fence(here, epoch=4)


@pytest.mark.req("DB-1")
async def test_the_receipt_is_durable_before_it_is_told(hospital: Open) -> None:
    """The agent is killed the moment its receipt is on disk; its next life gives the very same one."""
    here = await hospital()
    await here.east_is_primary()
    order = asyncio.create_task(
        here.east.client.fence(epoch=1, reason="test", run="t", clean=False, deadline=20)
    )
    path = here.east.state / "agent.json"

    async def written() -> bool:
        return json.loads(path.read_text())["fence"] is not None

    while not await written():
        await asyncio.sleep(0)
    here.east.kill_agent()
    on_disk = json.loads(path.read_text())["fence"]
    with suppress(DriverError):
        await order
    here.east.start()
    status = await here.east.wait_state("fenced")
    receipt = await here.east.client.fence(epoch=1, reason="test", run="t", clean=False, deadline=20)
    assert status.fence == receipt
    assert receipt.fenced_at.isoformat(timespec="microseconds") == on_disk["fenced_at"]
    assert receipt.incarnation == on_disk["incarnation"] != status.incarnation


@pytest.mark.req("DB-1")
async def test_what_is_fenced_stays_down_and_takes_no_old_epoch(hospital: Open) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    await fence(here)
    here.east.kill_agent()
    here.east.start()
    status = await here.east.wait_state("fenced")
    assert not status.lease.held  # although the record still says that the east holds epoch 1
    assert here.east.processes() == {}
    with pytest.raises(PermanentError, match="fenced under this epoch"):
        state = json.loads((here.east.state / "agent.json").read_text())
        assert state["promotion"]["epoch"] == 1
        await here.east.client.promote(epoch=1, min_lsn=None, deadline=10)
    assert EAST in here.book.regions
