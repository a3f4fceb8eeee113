"""A lost region comes back on a whole lab: by each path of its database, whoever is killed meanwhile, while the hospital works.

In the order in which they stand: each leaves the west serving and the east its standby, but for the first, which leaves the lab as it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from pages import change, garbage
from test_crashes import begun, kill, once, ready

from commands import Done, begin, hmsdr
from hmsdr.control.proctable import database_processes
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.lab import control, probe
from hmsdr.lab.layout import DATABASE, Layout
from hmsdr.lab.processes import lab_processes
from hmsdr.lab.regions import Agents
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.systems import Systems
from hospital_state import EAST, WEST, epochs, events, head, judged, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
POINTS = os.environ.get("HMSDR_RECOVERY_CRASH_POINTS", "2,database/recover,services/scale-billing").split(",")
"""Where a recovery is killed: after so many events, or inside this step, right after its start was journaled."""
_T = TypeVar("_T")


async def until(what: str, ask: Callable[[], Awaitable[_T | None]], seconds: float = 60) -> _T:
    ends, last = time.monotonic() + seconds, ""
    while time.monotonic() < ends:
        try:
            if found := await ask():
                return found
        except (psycopg.Error, OSError) as error:
            last = str(error)
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what} ({last})")


async def sql(lab: Layout, region: str, query: str) -> Any:
    where = lab.regions[region].postgres
    async with await psycopg.AsyncConnection.connect(
        f"host={where.host} port={where.port} user=postgres dbname={DATABASE} connect_timeout=3",
        autocommit=True,
    ) as connection:
        cursor = await connection.execute(query.encode())
        row = await cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]


async def status_of(lab: Layout, region: str) -> AgentStatus | None:
    async with Agents(lab) as agents:
        return await agents.status(region, deadline=2)


def agents_of(lab: Layout, region: str) -> list[int]:
    found = lab_processes(lab.lab_id, lab.directory)
    return [each.pid for each in found if each.region == region and " agent " in each.command]


async def command(lab: Layout, *words: str) -> Done:
    return await asyncio.to_thread(hmsdr, *words, lab=lab)


async def planned(lab: Layout, *words: str) -> dict[str, Any]:
    """What is planned for the east; planning writes nothing into the log."""
    before = await head(lab)
    done = await command(lab, "plan", "recover", EAST, "--json", *words)
    assert done.status == 0, done
    assert await head(lab) == before
    found: dict[str, Any] = done.json()
    assert all(path["seconds"] is None or path["estimated_by"] for path in found["paths"])
    assert all(path["why_not"] for path in found["paths"] if path["path"] != found["picked"])
    return found


def state_of(plan: dict[str, Any], component: str) -> str:
    (found,) = [each for each in plan["components"] if each["name"] == component]
    assert found["evidence"]
    return str(found["condition"])


async def is_standby_region(lab: Layout, region: str) -> None:
    """It follows in everything, and answers."""
    other = WEST if region == EAST else EAST
    status = await status_of(lab, region)
    assert status is not None
    assert (status.database.state, status.replication.streaming) == ("standby", True)
    assert await sql(lab, region, "SELECT pg_is_in_recovery()") is True
    slot = load(lab.playbook).regions[region].postgres.slot
    assert (
        await sql(lab, other, f"SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'") is True
    )
    seen = await look(lab)
    assert seen.primaries == (other,)
    wanted = {each.deployment: each.replicas.standby for each in load(lab.playbook).services.values()}
    assert seen.replicas[region] == wanted
    for service in ("patient", "billing"):
        where = lab.regions[region].ingress_http
        assert await probe.answers(where, f"/{service}-service/health", deadline=5)


@pytest.mark.req("RC-1", "RC-2", "RC-4")
async def test_a_region_that_was_only_away_follows_again(module_lab: Layout) -> None:
    lab = module_lab
    kept = await command(lab, "backup", "run", "--only", "kubernetes", "--region", EAST)
    assert kept.status == 0, kept
    await control.break_(lab, "region-down", region=WEST)
    silent = await command(lab, "plan", "recover", WEST, "--json")
    assert silent.status == 2, silent
    told = silent.json()
    assert (state_of(told, "database"), told["picked"], told["allowed"]) == ("unknown", None, False)
    await control.heal(lab)
    done = await command(lab, "recover", WEST)
    assert (done.status, "not done" in done.out) == (0, False), done
    assert "→ follow" in done.out
    await is_standby_region(lab, WEST)
    # The side that writes is nobody's to recover.
    refused = await command(lab, "recover", EAST)
    assert (refused.status, "primary-writes" in refused.err) == (2, True), refused


@pytest.mark.req("RC-1", "RC-2", "RC-4", "AP-3")
async def test_a_primary_that_wrote_alone_is_rewound_while_the_hospital_works(
    module_lab: Layout, tmp_path: Path
) -> None:
    lab, path = module_lab, tmp_path / "ledger.jsonl"
    await ready(lab, EAST, WEST)
    clinics = await control.start_clinics(lab, path)
    try:
        data = str(lab.regions[WEST].postgres_data)
        (receiver,) = [
            pid
            for pid in database_processes(data)
            if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(receiver, signal.SIGSTOP)
        await sql(lab, EAST, "CREATE TABLE alone AS SELECT g FROM generate_series(1, 500) AS g")
        await control.break_(lab, "region-down", region=EAST)
        os.kill(receiver, signal.SIGKILL)  # with what it had not read yet

        async def stands() -> bool:
            found = await status_of(lab, WEST)
            return found is not None and found.database.state == "standby"

        await until("the west stands again", stands)
        moved = await command(lab, "failover", EAST, WEST)
        assert moved.status == 0, moved
        await control.heal(lab)
        plan = await planned(lab)
        assert (state_of(plan, "database"), plan["picked"]) == ("diverged", "rewind"), plan
        done = await command(lab, "recover", EAST)
        assert (done.status, "not done" in done.out) == (0, False), done
    finally:
        await clinics.stop()
    await is_standby_region(lab, EAST)
    assert await sql(lab, EAST, "SELECT to_regclass('alone')") is None
    lost = (await command(lab, "reconcile", EAST, "--json")).json()["lost"][-1]
    assert lost["tables"]["public.alone"] == 500
    assert lost["complete"]
    entries, missing, doubled = await judged(lab, WEST, path)
    assert doubled == 0
    promoted = [entry for entry in entries if entry.ok and entry.region == WEST]
    assert promoted
    assert not {entry.id for entry in promoted} & set(missing)
    assert [number for number, _ in await epochs(lab, EAST)] == [1, 2]


async def damaged(lab: Layout) -> None:
    """A page of a table of the east is spoilt on its disk, and was read."""
    await sql(lab, WEST, "CREATE EXTENSION IF NOT EXISTS pg_buffercache")
    await sql(
        lab, WEST, "CREATE TABLE notes AS SELECT g, repeat('x', 100) FROM generate_series(1, 2000) AS g"
    )
    await sql(lab, WEST, "CHECKPOINT")
    lsn = await sql(lab, WEST, "SELECT pg_current_wal_flush_lsn()")

    async def replayed() -> bool:
        return bool(await sql(lab, EAST, f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"))

    await until("replayed", replayed)
    await sql(lab, EAST, "CHECKPOINT")
    file = await sql(lab, EAST, "SELECT pg_relation_filepath('notes')")
    change(lab.regions[EAST].postgres_data / str(file), 3, garbage, honest=False)
    await sql(lab, EAST, "SELECT pg_buffercache_evict_relation('notes')")
    with pytest.raises(psycopg.Error, match="invalid page"):
        await sql(lab, EAST, "SELECT count(g) FROM notes")

    async def told() -> bool:
        found = await status_of(lab, EAST)
        return found is not None and found.health is not None and bool(found.health.signs)

    await until("the agent tells of it", told)


@pytest.mark.req("RC-1", "RC-2", "RC-4", "FA-5")
async def test_damaged_data_are_restored_though_runner_and_agent_die(
    module_lab: Layout, tmp_path: Path
) -> None:
    lab = module_lab
    await damaged(lab)
    plan = await planned(lab)
    assert (state_of(plan, "database"), plan["picked"]) == ("corrupt", "restore"), plan
    assert plan["parameters"]["backup"]
    inode = (lab.regions[EAST].postgres_data / "PG_VERSION").stat().st_ino
    known, said = len(await events(lab)), tmp_path / "said.txt"
    first = begin("recover", EAST, lab=lab, said=said)
    assert await kill(first, lab, known, "database/recover", said), said.read_text()
    run = begun((await events(lab))[known:], said)
    second = begin("run", "resume", run, lab=lab, said=said)

    async def making() -> bool:
        found = await status_of(lab, EAST)
        return found is not None and found.recovery.stage == "making"

    await until("it is restored", making, 30)
    for pid in agents_of(lab, EAST):
        os.kill(pid, signal.SIGKILL)
    assert (lab.regions[EAST].postgres_data / "PG_VERSION").stat().st_ino == inode
    assert await asyncio.to_thread(second.wait, 120) == 0, said.read_text()
    story = await events(lab, run)
    once(story)
    await is_standby_region(lab, EAST)
    assert await sql(lab, EAST, "SELECT count(g) FROM notes") == 2000
    status = await status_of(lab, EAST)
    assert status is not None
    assert (status.recovery.state, status.recovery.path) == ("done", "restore")
    assert status.recovery.made.startswith(f"backup {plan['parameters']['backup']} of hms-backups-")
    kept = Path(str(status.recovery.kept))
    assert (kept / "PG_VERSION").stat().st_ino == inode, "what was there is kept"
    assert "s left" in said.read_text() or "waiting for us-east-1: " in said.read_text()


async def empty_buckets(lab: Layout) -> None:
    """Every record of a base backup is gone from both."""
    import boto3

    aws = load(lab.playbook).aws
    assert aws.access_key_id is not None
    assert aws.secret_access_key is not None
    client = boto3.client(
        "s3",
        region_name=aws.region,
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=aws.access_key_id.get_secret_value(),
        aws_secret_access_key=aws.secret_access_key.get_secret_value(),
    )
    for bucket in (f"hms-backups-{name}" for name in lab.regions):
        for item in client.list_objects_v2(Bucket=bucket, Prefix="databases/backup_")["Contents"]:
            client.delete_object(Bucket=bucket, Key=item["Key"])


@pytest.mark.req("RC-1", "RC-2", "RC-4", "FA-5")
async def test_a_directory_that_is_gone_is_copied_and_lost_objects_are_created_again(
    module_lab: Layout, tmp_path: Path
) -> None:
    """With no backup of the database left: from the primary. Of the cluster there is one."""
    lab = module_lab
    await control.break_(lab, "region-down", region=EAST)
    shutil.rmtree(lab.regions[EAST].postgres_data)
    healed = await control.heal(lab)
    assert healed[EAST].startswith("absent")
    before = await planned(lab)
    assert (state_of(before, "database"), before["picked"]) == ("gone", "restore"), before
    await asyncio.to_thread(lambda: asyncio.run(empty_buckets(lab)))
    for what in ("deployment/billing-service", "service/billing-service"):
        await asyncio.to_thread(delete, lab, what)
    plan = await planned(lab)
    assert (plan["picked"], state_of(plan, "backups"), state_of(plan, "kubernetes")) == (
        "basebackup",
        "gone",
        "gone",
    )
    assert plan["parameters"]["archive"] == f"kubernetes_backup_{datetime.now(UTC):%Y%m%d}.tar.gz"
    known, said = len(await events(lab)), tmp_path / "said.txt"
    first = begin("recover", EAST, lab=lab, said=said)
    assert await kill(first, lab, known, "objects/restore", said), said.read_text()
    run = begun((await events(lab))[known:], said)
    resumed = await command(lab, "run", "resume", run)
    assert resumed.status == 0, resumed
    once(await events(lab, run))
    await is_standby_region(lab, EAST)
    status = await status_of(lab, EAST)
    assert status is not None
    assert (status.recovery.path, status.recovery.kept) == ("basebackup", None)
    again = await command(lab, "recover", EAST, "--json")
    assert again.status == 0, again
    states = [json.loads(line) for line in again.out.splitlines()]
    assert states[-1]["state"] == "succeeded"


async def spoilt(lab: Layout) -> str:
    """The standby region is none any more: its slot is gone, so its database hangs; its cache is its own, a service without pods."""
    (primary,) = (await look(lab)).primaries
    region = WEST if primary == EAST else EAST
    slot = load(lab.playbook).regions[region].postgres.slot
    where = f"WHERE slot_name = '{slot}'"

    async def dropped() -> bool:
        ended = f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots {where} AND active"
        await sql(lab, primary, ended)
        await sql(
            lab,
            primary,
            f"SELECT pg_drop_replication_slot(slot_name)::text FROM pg_replication_slots {where}",
        )
        return True

    await until("the slot is dropped", dropped, 30)
    store = await SqliteStore.open(lab.store)
    systems = Systems(load(lab.playbook), store)
    try:
        await systems.redis(region).promote(flush=True, deadline=5)
        await systems.kubernetes(region).scale("billing-service", 0, deadline=5)
    finally:
        await systems.close()
        await store.close()

    async def hangs() -> bool:
        found = await status_of(lab, region)
        return found is not None and not found.replication.streaming

    await until("the database hangs", hangs)
    return region


@pytest.mark.req("FA-5", "RC-2", "RC-4")
@pytest.mark.parametrize("point", POINTS)
async def test_killed_in_the_middle_and_resumed_the_region_is_whole(
    module_lab: Layout, tmp_path: Path, point: str
) -> None:
    lab = module_lab
    region = await spoilt(lab)
    known, said = len(await events(lab)), tmp_path / "said.txt"
    killed = await kill(begin("recover", region, lab=lab, said=said), lab, known, point, said)
    run = begun((await events(lab))[known:], said)
    resumed = await command(lab, "run", "resume", run)
    assert resumed.status == 0, resumed
    story = await events(lab, run)
    once(story)
    assert ("run.resumed" in {each.kind for each in story}) == killed
    await is_standby_region(lab, region)


def delete(lab: Layout, what: str) -> None:
    """With kubectl, as an accident would."""
    import subprocess

    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "make setup brings it"
    words = ["--kubeconfig", str(lab.kubeconfig), "--context", EAST, "-n", "hms-system"]
    subprocess.run([kubectl, *words, "delete", what], check=True, timeout=30, capture_output=True)
