"""The runbooks, each after the fault it is for or planned, and each one's way back, on a whole lab with clinics at work."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from commands import Done, hmsdr
from hmsdr.lab import control
from hmsdr.lab.layout import Layout
from hmsdr.playbook.load import load
from hmsdr.runbook.systems import Systems
from hospital_state import EAST, WEST, State, head, judged, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
THERE = (f"from={EAST}", f"to={WEST}")


async def redis_roles(layout: Layout) -> dict[str, str]:
    systems = Systems(load(layout.playbook), None)  # type: ignore[arg-type]
    try:
        return {
            region: (await systems.redis(region).info_replication(deadline=3)).role for region in (EAST, WEST)
        }
    finally:
        await systems.close()


async def replicas(layout: Layout, region: str) -> list[tuple[str, str]]:
    """Who streams from the database of `region`."""
    systems = Systems(load(layout.playbook), None)  # type: ignore[arg-type]
    try:
        found = await systems.postgres(region).replication(deadline=3)
        return [(each.name, each.state) for each in found]
    finally:
        await systems.close()


async def all_well(layout: Layout) -> None:
    """Prometheus sees pods that were replaced at its next look only: the health check is asked until it is content."""
    ends = time.monotonic() + 30
    while (health := hmsdr("health-check", lab=layout)).status != 0:
        assert time.monotonic() < ends, health
        await asyncio.sleep(0.2)


def last_run(layout: Layout) -> str:
    return str(hmsdr("run", "list", "--json", lab=layout).json()[-1]["run"])


def roll_back(layout: Layout) -> Done:
    done = hmsdr("run", "rollback", last_run(layout), lab=layout)
    assert done.status == 0, done
    assert "not done" not in done.out, done
    return done


async def as_before(layout: Layout, before: State) -> None:
    """Everything is as it was, but for the epochs that going and coming back took."""
    now = await look(layout)
    gone = now.epoch - before.epoch
    assert gone in (0, 2)
    moved = now.record_epoch if before.record_epoch != now.record_epoch else before.record_epoch
    assert now == replace(before, epoch=before.epoch + gone, record_epoch=moved)
    assert await redis_roles(layout) == {EAST: "master", WEST: "slave"}
    assert await replicas(layout, EAST) == [(f"postgres-secondary-0@{WEST}", "streaming")]
    await all_well(layout)


@pytest.mark.req("SV-3", "AP-3", "FM-5")
async def test_a_service_whose_pods_are_gone_is_restored(module_lab: Layout) -> None:
    before = await look(module_lab)
    # Killed pods would come back by themselves; a deployment that somebody scaled down does not.
    where = ("--dir", module_lab.directory, "--")
    kubectl = ("kubectl", f"--context={EAST}", "-n", "hms-system", "scale", "deployment/billing-service")
    assert hmsdr("lab", "shell", *where, *kubectl, "--replicas=0").status == 0
    killed = hmsdr("lab", "break", "service-killed", "--service", "billing", "--dir", module_lab.directory)
    assert killed.status in (0, 2), killed  # 2: its pods have ended already
    ill = hmsdr("health-check", lab=module_lab)
    assert ill.status == 1, ill
    done = hmsdr(
        "run", "start", "service-failover", f"region={EAST}", "service=billing", "--by", "pat", lab=module_lab
    )
    assert done.status == 0, done
    assert "billing of us-east-1 answers" in done.out
    await all_well(module_lab)
    (run,) = hmsdr("run", "list", "--json", lab=module_lab).json()
    assert (run["runbook"], run["by"], run["status"]) == ("service-failover", "pat", "succeeded")
    roll_back(module_lab)
    await as_before(module_lab, before)
    # In the region where users are not, it is part of the pilot light: brought to that, and asked by the region's own name.
    there = tuple(word.replace(EAST, WEST) for word in kubectl)
    assert hmsdr("lab", "shell", *where, *there, "--replicas=0").status == 0
    done = hmsdr("run", "start", "service-failover", f"region={WEST}", "service=billing", lab=module_lab)
    assert (done.status, "billing of us-west-2 answers" in done.out) == (0, True), done
    assert (
        hmsdr("run", "list", "--json", lab=module_lab)
        .json()[-1]["steps"]["validation/answers"]["observed"]["url"]
        .startswith("https://api-secondary.")
    )
    await as_before(module_lab, before)


@pytest.mark.req("RD-1", "RD-2", "RD-3", "AP-3", "FM-5")
async def test_a_lost_cache_is_replaced_by_the_other_regions_and_comes_back(module_lab: Layout) -> None:
    before = await look(module_lab)
    hmsdr("lab", "break", "redis-killed", "--hold", "--dir", module_lab.directory)
    ill = hmsdr("health-check", lab=module_lab)
    assert (ill.status, "✗ redis us-east-1" in ill.out) == (1, True), ill
    command = f"hmsdr run start cache-failover {' '.join(THERE)}"
    assert f"to mend it: `{command}`" in ill.out
    done = hmsdr(*command.split()[1:], lab=module_lab)
    assert done.status == 0, done
    state = await look(module_lab)
    for region in (EAST, WEST):
        assert {redis for _, redis in state.stores[region].values()} == {
            "redis-secondary.hms.system.svc.cluster.local"
        }
        assert {db for db, _ in state.stores[region].values()} == {
            "postgres-primary.hms.system.svc.cluster.local"
        }
    assert (state.epoch, state.primaries) == (before.epoch, (EAST,))
    # While there is nothing to go back to, the way back ends at once and has done nothing.
    early = hmsdr("run", "rollback", last_run(module_lab), lab=module_lab, seconds=30)
    assert (early.status, await look(module_lab)) == (1, state), early
    run = hmsdr("run", "list", "--json", lab=module_lab).json()[-2]["run"]

    hmsdr("lab", "heal", "--dir", module_lab.directory)
    assert await redis_roles(module_lab) == {EAST: "master", WEST: "master"}  # it does not know what happened
    ill = hmsdr("health-check", lab=module_lab)
    assert f"to mend it: `{command}`" in ill.out, ill
    back = hmsdr("run", "rollback", run, lab=module_lab)
    assert (back.status, "not done" in back.out) == (0, False), back
    await as_before(module_lab, before)


@pytest.mark.req("FM-5", "DB-4", "RD-1", "RD-2", "RD-3", "AP-3")
@pytest.mark.parametrize("runbook", ["cache-failover", "database-failover", "regional-failover"])
async def test_there_and_back_when_all_is_well(module_lab: Layout, runbook: str) -> None:
    before = await look(module_lab)
    there = hmsdr("run", "start", runbook, *THERE, lab=module_lab)
    assert (there.status, "not done" in there.out) == (0, False), there
    state, roles = await look(module_lab), await redis_roles(module_lab)
    moved, stayed = {EAST: "slave", WEST: "master"}, {EAST: "master", WEST: "slave"}
    assert roles == (stayed if runbook == "database-failover" else moved)
    assert state.primaries == ((EAST,) if runbook == "cache-failover" else (WEST,))
    if runbook != "cache-failover":
        assert await replicas(module_lab, WEST) == [(f"postgres-primary-0@{EAST}", "streaming")]
    await all_well(module_lab)
    roll_back(module_lab)
    await as_before(module_lab, before)


@pytest.mark.req("FA-2", "FM-1", "FM-2", "FM-5", "AP-3")
async def test_when_the_database_went_alone_users_follow_it_while_their_region_lives(
    module_lab: Layout,
) -> None:
    """There is nothing to hand over and nothing lost to be proven: the rest is done, and the region left is a standby."""
    before = await look(module_lab)
    assert hmsdr("run", "start", "database-failover", *THERE, lab=module_lab).status == 0
    alone, story = await look(module_lab), await head(module_lab)
    planned = hmsdr("plan", "failover", EAST, WEST, lab=module_lab)
    assert (planned.status, "✗" in planned.out, await head(module_lab)) == (0, False, story), planned
    assert f"1 standby streams from {WEST}" in planned.out
    moved = hmsdr("failover", EAST, WEST, lab=module_lab)
    assert (moved.status, "not done" in moved.out) == (0, False), moved
    assert f"(planned, the rest: epoch {alone.epoch} was granted already)" in moved.out
    state = await look(module_lab)
    assert (state.epoch, state.record_epoch, state.primaries) == (alone.epoch, alone.epoch, (WEST,))
    assert state.weights == {EAST: 0, WEST: 100}
    assert (state.replicas[WEST], state.replicas[EAST]) == (before.replicas[EAST], before.replicas[WEST])
    assert await redis_roles(module_lab) == {EAST: "slave", WEST: "master"}
    roll_back(module_lab)
    await as_before(module_lab, before)


@pytest.mark.req("DB-1", "DB-2", "DB-3", "DB-4", "FA-2", "FA-4", "FM-5", "AP-3")
async def test_a_lost_database_is_replaced_while_its_region_lives_on(
    module_lab: Layout, tmp_path: Path
) -> None:
    before = await look(module_lab)
    clinics = await control.start_clinics(module_lab, tmp_path / "ledger.jsonl")
    try:
        await asyncio.sleep(1)
        broken = hmsdr("lab", "break", "database-killed", "--dir", module_lab.directory)
        assert broken.status == 0, broken
        done = hmsdr("run", "start", "database-failover", *THERE, lab=module_lab)
        assert done.status == 0, done
        await asyncio.sleep(2)
    finally:
        await clinics.stop()
    state = await look(module_lab)
    assert (state.epoch, state.primaries) == (before.epoch + 1, (WEST,))
    assert state.weights == {EAST: 100, WEST: 0}
    for region in (EAST, WEST):
        assert {db for db, _ in state.stores[region].values()} == {
            "postgres-secondary.hms.system.svc.cluster.local"
        }
    entries, lost, doubled = await judged(module_lab, WEST, tmp_path / "ledger.jsonl")
    assert doubled == 0
    # Asynchronous replication: what had not reached the standby may be lost, and is named; it is the last moment only.
    assert len(lost) <= 3, lost
    last = max(entries, key=lambda entry: entry.ended_at)
    assert (last.ok, last.region) == (True, EAST)
    # The lost database comes back as what may not write, and says so.
    healed = hmsdr("lab", "heal", "--dir", module_lab.directory)
    assert healed.status == 0, healed
    assert (await look(module_lab)).primaries == (WEST,)
    # It follows nobody yet: the way back says what must be there first, and so does the health check.
    follow = f"hmsdr follow {EAST}"
    early = hmsdr("run", "rollback", last_run(module_lab), lab=module_lab)
    assert (early.status, follow in early.err) == (2, True), early
    assert f"to mend it: `{follow}`" in hmsdr("health-check", lab=module_lab).out
    run = last_run(module_lab)
    followed = hmsdr(*follow.split()[1:], lab=module_lab)
    assert followed.status == 0, followed
    assert await replicas(module_lab, WEST) == [(f"postgres-primary-0@{EAST}", "streaming")]
    back = hmsdr("run", "rollback", run, lab=module_lab)
    assert (back.status, "not done" in back.out) == (0, False), back
    await as_before(module_lab, before)


@pytest.mark.req("FA-2", "FA-4", "AP-3")
async def test_when_the_users_region_is_lost_after_its_database_moved_users_are_taken_along(
    module_lab: Layout,
) -> None:
    there = hmsdr("run", "start", "database-failover", *THERE, lab=module_lab)
    assert there.status == 0, there
    epoch = (await look(module_lab)).epoch
    await control.break_(module_lab, "region-down", region=EAST)
    moved = hmsdr("failover", EAST, WEST, lab=module_lab)
    assert moved.status == 0, moved
    last_state = await look(module_lab, regions=(WEST,))
    assert (last_state.epoch, last_state.primaries, last_state.record_epoch) == (epoch, (WEST,), epoch)
    assert last_state.weights == {EAST: 0, WEST: 100}
    again = hmsdr("failover", EAST, WEST, lab=module_lab)
    assert (again.status, "holds the right to write already" in again.err) == (2, True), again
