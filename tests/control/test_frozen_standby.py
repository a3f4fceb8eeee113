"""A frozen standby, and a checkpoint that does not come to its end, before a planned switchover: a bound, and words, before any fence."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from hospital import EAST, WEST, Hospital, Open, until
from support import plan, step

from hmsdr.decide.authority import Phase
from hmsdr.drivers.postgres import Postgres
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems


async def checked(here: Hospital, action: str, arguments: dict[str, str], deadline: str) -> RunState:
    """One step of a planned failover, by the runner."""
    systems = Systems(here.book, here.store)
    try:
        one = step(f"readiness/{action}", action, arguments, deadline=deadline, attempts=1)
        return await Runner(here.store, systems, installed(), f"run-{action}").start(
            plan([("readiness", (), [[one]])]), "tester", {}
        )
    finally:
        await systems.close()


async def found(here: Hospital, run: str) -> str:
    events = await here.store.read(subject=run)
    return str([event.data for event in events if event.kind == "step.failed"])


@pytest.mark.req("DB-1")
async def test_a_checkpoint_that_does_not_end_stops_the_run_before_anything_is_taken(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    checkpointer = here.east.find(b"checkpointer")
    assert checkpointer is not None
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        state = await checked(here, "postgres.checkpoint", {"region": EAST}, "3s")
    finally:
        os.kill(checkpointer, signal.SIGCONT)
    assert state.status is not RunStatus.SUCCEEDED
    words = await found(here, state.run)
    assert "nothing was taken from us-east-1" in words
    record = await here.store.read_authority()
    assert (record.phase, record.epoch) == (Phase.HELD, 1)
    assert (await here.east.status()).database.state == "primary"


@pytest.mark.req("DB-1")
async def test_a_frozen_standby_whose_slot_is_invalidated_holds_no_checkpoint_up_and_is_not_handed_over_to(
    hospital: Open,
) -> None:
    here = await hospital()
    await here.east_is_primary()
    async with await here.east.connect() as connection:
        for setting, value in (("max_slot_wal_keep_size", "1MB"), ("wal_keep_size", "0")):
            await connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")
    frozen = list(here.west.processes())
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    sql = Postgres(here.book.regions[EAST].postgres)
    try:
        async with await here.east.connect() as connection:
            for number in range(6):
                await connection.execute(
                    "INSERT INTO patients (name) SELECT repeat('x', 200) FROM generate_series(1, 3000)"
                )
                await connection.execute("SELECT pg_switch_wal()")
                began = time.monotonic()
                await sql.checkpoint(deadline=20)
                print(f"checkpoint {number}: {time.monotonic() - began:.2f} s")  # noqa: T201
        slots = {slot.name: slot.wal_status for slot in await sql.slots(deadline=5)}
        assert slots["us_west_2_slot"] == "lost"
        arguments = {"region": WEST, "follows": EAST}
        state = await asyncio.wait_for(checked(here, "verify.standby-ready", arguments, "3s"), 20)
        assert state.status is not RunStatus.SUCCEEDED
    finally:
        await sql.close()
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    record = await here.store.read_authority()
    assert (record.phase, record.epoch) == (Phase.HELD, 1)

    async def well() -> bool:
        return (await here.east.status()).database.state == "primary"

    await until("east goes on", well)
