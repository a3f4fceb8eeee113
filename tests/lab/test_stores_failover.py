"""Failing the stores over on a whole lab: real PostgreSQL, Redis, agents, guards, Route 53 and DNS, under writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from commands import hmsdr
from hmsdr.decide.authority import Phase
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import DriverError
from hmsdr.lab import control
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import lab_processes
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.observe import mode_of
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

pytestmark = [pytest.mark.lab, pytest.mark.timeout(170)]
EAST, WEST = "us-east-1", "us-west-2"


@dataclass
class Writer:
    """Writes patients to one server as fast as it answers, and keeps what was acknowledged and when."""

    layout: Layout
    region: str
    acknowledged: list[tuple[str, float]] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        """Until `stopping`: a cancellation could be swallowed as a cancelled query."""
        where = self.layout.regions[self.region].postgres
        conninfo = f"host={where.host} port={where.port} user=postgres dbname=postgres connect_timeout=2"
        while not self.stopping:
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
                    while not self.stopping:
                        identifier = str(uuid.uuid4())
                        await asyncio.wait_for(
                            connection.execute(
                                "INSERT INTO patients (id, name, born, clinic) VALUES (%s, 'x', '1980-02-03', 'tests')",
                                [identifier],
                            ),
                            2,
                        )
                        self.acknowledged.append((identifier, time.monotonic()))
            await asyncio.sleep(0.005)


async def _answers(agent: AgentClient) -> bool:
    try:
        return (await agent.status(deadline=1)).database.state != "primary"
    except DriverError:
        return False


async def present(layout: Layout, region: str) -> set[str]:
    where = layout.regions[region].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname=postgres connect_timeout=2"
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        rows = await (await connection.execute("SELECT id::text FROM patients")).fetchall()
    return {row[0] for row in rows}


async def execute(layout: Layout, region: str, statement: str) -> None:
    where = layout.regions[region].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname=postgres connect_timeout=2"
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute(statement)  # type: ignore[arg-type]


async def fail_over(layout: Layout, source: str, target: str) -> tuple[RunState, Playbook]:
    playbook = load(layout.playbook)
    store = await SqliteStore.open(layout.store)
    systems = Systems(playbook, store)
    try:
        found = definition.load(Path(__file__).parent / "stores-failover.yaml")
        mode = await mode_of(systems, source)
        epoch = (await store.read_authority()).epoch
        plan = freeze(found, playbook, installed(), {"from": source, "to": target}, mode=mode, epoch=epoch)
        runner = Runner(store, systems, installed(), f"run-{uuid.uuid4().hex[:8]}")
        return await runner.start(plan, "tester", {}), playbook
    finally:
        await systems.close()
        await store.close()


@pytest.mark.req("DB-2", "RD-1", "RD-3", "DB-4")
async def test_a_region_that_dies_is_replaced_and_never_do_two_write(fresh_lab: Layout) -> None:
    lab = fresh_lab
    east, west = Writer(lab, EAST), Writer(lab, WEST)
    tasks = [asyncio.create_task(east.run()), asyncio.create_task(west.run())]
    while len(east.acknowledged) < 200:
        await asyncio.sleep(0.02)
    assert not west.acknowledged, "a standby accepted a write"
    await control.break_(lab, "region-down", region=EAST)
    assert not [p for p in lab_processes(lab.lab_id, lab.directory) if p.region == EAST]
    state, _ = await fail_over(lab, EAST, WEST)
    assert state.plan.mode == "unplanned"
    assert state.status is RunStatus.SUCCEEDED, [r.error for r in state.steps.values()]
    while len(west.acknowledged) < 50:
        await asyncio.sleep(0.02)
    east.stopping = west.stopping = True
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert max(at for _, at in east.acknowledged) < min(at for _, at in west.acknowledged)
    assert state.record("fencing/taken").output["proof"] == "lease waited out"
    assert state.record("fencing/taken").output["seconds"] >= 4.2 - 0.01
    lost = {name for name, _ in east.acknowledged} - await present(lab, WEST)
    last = max(at for _, at in east.acknowledged)
    recent = {name for name, at in east.acknowledged if at > last - 2}
    assert lost <= recent, "more was lost than the last moments of an asynchronous standby"
    assert state.record("promotion/redis").observed["role"] == "master"
    known = state.record("validation/database").observed
    assert known["known_gap_bytes"] >= 0
    assert 0 <= known["known_gap_age_seconds"] < 60
    # The dead region comes back: its database must not come up writable (SAFETY rule 6).
    probe = Writer(lab, EAST)
    task = asyncio.create_task(probe.run())
    healed = await control.heal(lab)
    # Where nothing of it was lost, its history is the new primary's, and it may follow at once.
    assert "neither writing nor streaming" in healed[EAST] or healed[EAST] == "standby, streaming"
    assert not lost or healed[EAST] != "standby, streaming", "a diverged database follows"
    probe.stopping = True
    await asyncio.wait_for(task, 20)
    assert not probe.acknowledged
    assert lost <= await asyncio.to_thread(reconciled, lab, EAST), "acknowledged, lost, and in no file"


def reconciled(layout: Layout, region: str) -> set[str]:
    """The patients in the files of what `region` committed alone."""
    shown = hmsdr("reconcile", region, "--json", lab=layout)
    assert shown.status == 0, shown
    found = shown.json()
    files = [Path(found["directory"]) / lost["file"] for lost in found["lost"] if lost["file"]]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {
        row["new"]["id"] for row in rows if (row["table"], row["operation"]) == ("public.patients", "insert")
    }


@pytest.mark.req("DB-1")
async def test_a_planned_hand_over_loses_nothing(fresh_lab: Layout) -> None:
    lab = fresh_lab
    east, west = Writer(lab, EAST), Writer(lab, WEST)
    tasks = [asyncio.create_task(east.run()), asyncio.create_task(west.run())]
    while len(east.acknowledged) < 200:
        await asyncio.sleep(0.02)
    state, _ = await fail_over(lab, EAST, WEST)
    assert state.plan.mode == "planned"
    assert state.status is RunStatus.SUCCEEDED, [r.error for r in state.steps.values()]
    while len(west.acknowledged) < 50:
        await asyncio.sleep(0.02)
    east.stopping = west.stopping = True
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert state.record("fencing/handed-over").output["proof"] == "receipt"
    assert state.record("fencing/handed-over").output["clean"]
    assert max(at for _, at in east.acknowledged) < min(at for _, at in west.acknowledged)
    assert not {name for name, _ in east.acknowledged} - await present(lab, WEST)
    store = await SqliteStore.open(lab.store)
    record = await store.read_authority()
    await store.close()
    assert (record.epoch, record.phase) == (2, Phase.HELD)


@pytest.mark.req("DB-1")
async def test_a_side_that_lacks_what_was_handed_over_is_not_granted_and_the_old_one_goes_on(
    fresh_lab: Layout,
) -> None:
    """The simulator's seed 72: granted, it could never have promoted, and nobody could have written."""
    lab = fresh_lab
    east = Writer(lab, EAST)
    task = asyncio.create_task(east.run())
    await execute(lab, WEST, "SELECT pg_wal_replay_pause()")
    known = len(east.acknowledged)
    while len(east.acknowledged) < known + 50:
        await asyncio.sleep(0.02)
    state, playbook = await fail_over(lab, EAST, WEST)
    assert state.status is RunStatus.FAILED
    assert "handed over was" in str(state.record("promotion/grant").error)
    assert "Back to the old side" in str(state.record("promotion/grant").error)
    store = await SqliteStore.open(lab.store)
    record = await store.read_authority()
    assert (record.epoch, record.phase, record.handover_from) == (
        1,
        Phase.HANDING_OVER,
        "postgres-primary-0@us-east-1",
    )
    assert hmsdr("authority", "grant", EAST, "--epoch", "2", "--by", "pat", lab=lab).status == 0
    systems = Systems(playbook, store)
    try:
        await systems.agent(EAST).promote(epoch=2, min_lsn=None, deadline=20)
    finally:
        await systems.close()
        await store.close()
    written = len(east.acknowledged)
    while len(east.acknowledged) < written + 50:
        await asyncio.sleep(0.02)
    await execute(lab, WEST, "SELECT pg_wal_replay_resume()")
    east.stopping = True
    await asyncio.wait_for(task, 20)
    names, ends = {name for name, _ in east.acknowledged}, time.monotonic() + 20
    assert not names - await present(lab, EAST)
    while names - await present(lab, WEST):
        assert time.monotonic() < ends, "the standby does not follow the side that went on"
        await asyncio.sleep(0.2)
