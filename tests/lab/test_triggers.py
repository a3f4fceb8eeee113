"""Triggers on a whole hospital with three controllers: what they decide by themselves, and what they leave alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
import pytest_asyncio
from pages import change, garbage

from hmsdr.control.chronicle import DECIDED, PROPOSED
from hmsdr.lab import control
from hmsdr.lab.hms.ledger import Ledger, dual_writers, lost_writes, present_ids, tables
from hmsdr.lab.layout import DATABASE, REGIONS, WITNESS, Layout
from hmsdr.lab.processes import lab_processes
from hmsdr.log.events import Event
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store, StoreError
from hmsdr.playbook.load import load
from hmsdr.runbook.launch import runs
from hmsdr.runbook.state import RunStatus

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
EAST, WEST = REGIONS
_T = TypeVar("_T")


async def until(what: str, ask: Callable[[], Awaitable[_T | None]], seconds: float = 60) -> _T:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if (found := await ask()) is not None:
                return found
        except StoreError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest_asyncio.fixture
async def council(tmp_path: Path) -> AsyncIterator[Layout]:
    layout = await control.up(tmp_path / "lab", ha=True)
    yield layout
    await control.down(layout)
    assert not lab_processes(layout.lab_id, layout.directory)


async def first(store: Store, kind: str) -> Event | None:
    return next((event for event in await store.read() if event.kind == kind), None)


async def decided(store: Store) -> Event | None:
    return await first(store, DECIDED)


async def ended(store: Store) -> RunStatus | None:
    found = runs(await store.read())
    return found[-1].status if found and found[-1].status is not RunStatus.RUNNING else None


@pytest.mark.req("FA-1", "FA-3", "FA-4")
async def test_a_region_that_answers_without_its_services_is_left_and_loses_nothing(
    council: Layout, tmp_path: Path
) -> None:
    lab, ledger = council, tmp_path / "ledger.jsonl"
    clinics = await control.start_clinics(lab, ledger)
    store = await open_store(load(lab.playbook), site=WITNESS)
    try:
        await asyncio.sleep(2)
        began = time.monotonic()
        await control.break_(lab, "service-killed", region=EAST, service="patient", hold=True)
        found = await until("decided", lambda: decided(store))
        took = time.monotonic() - began
        status = await until("ended", lambda: ended(store), 90)
        await asyncio.sleep(2)
    finally:
        await clinics.stop()
        await store.close()
    print(f"decided after {took:.1f} s of a hold-down of 10 s")  # noqa: T201
    assert (found.data["kind"], found.data["services"]) == ("critical-services-unavailable", ["patient"])
    assert len(found.data["finding"]["lost"]) >= 2
    assert took >= 9
    assert status is RunStatus.SUCCEEDED
    entries = Ledger.read(ledger)
    assert dual_writers(entries) == 0
    assert any(entry.ok and entry.region == WEST for entry in entries)
    where = lab.regions[WEST].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname={DATABASE}"
    assert lost_writes(entries, await present_ids(conninfo, tables(entries), deadline=15)) == []


@pytest.mark.req("FA-1", "FA-3", "FA-4")
async def test_a_primary_with_a_bad_page_is_proposed_and_left_for_a_standby_that_checked_itself(
    council: Layout,
) -> None:
    lab = council
    store = await open_store(load(lab.playbook), site=WITNESS)
    here = lab.regions[EAST].postgres
    conninfo = f"host={here.host} port={here.port} user=postgres dbname={DATABASE}"
    try:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            await connection.execute("CREATE EXTENSION pg_buffercache")
            await connection.execute(
                "CREATE TABLE notes AS SELECT g, repeat('x', 100) FROM generate_series(1, 2000) g"
            )
            await connection.execute("CHECKPOINT")
            rows = await (await connection.execute("SELECT pg_relation_filepath('notes')")).fetchone()
            assert rows is not None
            change(lab.regions[EAST].postgres_data / str(rows[0]), 3, garbage, honest=False)
            await connection.execute("SELECT pg_buffercache_evict_relation('notes')")
            with pytest.raises(psycopg.Error, match="invalid page"):
                await connection.execute("SELECT count(g) FROM notes")
        began = time.monotonic()
        proposed = await until("proposed", lambda: first(store, PROPOSED))
        found = await until("decided", lambda: decided(store))
        took = time.monotonic() - began
        status = await until("ended", lambda: ended(store), 90)
    finally:
        await store.close()
    print(f"decided after {took:.1f} s, 5 of them for a veto")  # noqa: T201
    assert proposed.data["kind"] == found.data["kind"] == "database-corruption"
    assert {"page", "checksum"} <= {sign["kind"] for sign in found.data["signs"]}
    assert status is RunStatus.SUCCEEDED
