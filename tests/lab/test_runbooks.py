"""The runbooks of one part, each after the fault it is for, on a whole lab with clinics at work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from commands import hmsdr
from hmsdr.lab import control
from hmsdr.lab.layout import Layout
from hmsdr.playbook.load import load
from hmsdr.runbook.systems import Systems
from hospital_state import EAST, WEST, judged, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


async def redis_role(layout: Layout, region: str) -> str:
    systems = Systems(load(layout.playbook), None)  # type: ignore[arg-type]
    try:
        return (await systems.redis(region).info_replication(deadline=3)).role
    finally:
        await systems.close()


@pytest.mark.req("SV-3", "AP-3")
async def test_a_service_whose_pods_are_gone_is_restored(module_lab: Layout) -> None:
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
    assert "billing answers through the public name" in done.out
    assert hmsdr("health-check", lab=module_lab).status == 0
    (run,) = hmsdr("run", "list", "--json", lab=module_lab).json()
    assert (run["runbook"], run["by"], run["status"]) == ("service-failover", "pat", "succeeded")


@pytest.mark.req("RD-1", "RD-2", "RD-3", "AP-3")
async def test_a_lost_cache_is_replaced_by_the_other_regions(module_lab: Layout) -> None:
    hmsdr("lab", "break", "redis-killed", "--hold", "--dir", module_lab.directory)
    ill = hmsdr("health-check", lab=module_lab)
    assert (ill.status, "✗ redis us-east-1" in ill.out) == (1, True), ill
    done = hmsdr("run", "start", "cache-failover", f"from={EAST}", f"to={WEST}", lab=module_lab)
    assert done.status == 0, done
    state = await look(module_lab)
    assert {redis for _, redis in state.stores[EAST].values()} == {
        "redis-secondary.hms.system.svc.cluster.local"
    }
    assert {db for db, _ in state.stores[EAST].values()} == {"postgres-primary.hms.system.svc.cluster.local"}
    assert await redis_role(module_lab, WEST) == "master"
    assert (state.epoch, state.primaries) == (1, (EAST,))
    hmsdr("lab", "heal", "--dir", module_lab.directory)


@pytest.mark.req("DB-1", "DB-2", "DB-3", "DB-4", "FA-2", "FA-4", "AP-3")
async def test_a_lost_database_is_replaced_while_its_region_lives_on(
    module_lab: Layout, tmp_path: Path
) -> None:
    clinics = await control.start_clinics(module_lab, tmp_path / "ledger.jsonl")
    try:
        await asyncio.sleep(1)
        broken = hmsdr("lab", "break", "database-killed", "--dir", module_lab.directory)
        assert broken.status == 0, broken
        done = hmsdr("run", "start", "database-failover", f"from={EAST}", f"to={WEST}", lab=module_lab)
        assert done.status == 0, done
        await asyncio.sleep(2)
    finally:
        await clinics.stop()
    state = await look(module_lab)
    assert (state.epoch, state.primaries, state.weights) == (2, (WEST,), {EAST: 100, WEST: 0})
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
    # Then the users' region is lost too: all that is left to do is to take them along.
    await control.break_(module_lab, "region-down", region=EAST)
    moved = hmsdr("failover", EAST, WEST, lab=module_lab)
    assert moved.status == 0, moved
    last_state = await look(module_lab, regions=(WEST,))
    assert (last_state.epoch, last_state.primaries, last_state.record_epoch) == (2, (WEST,), 2)
    assert last_state.weights == {EAST: 0, WEST: 100}
    again = hmsdr("failover", EAST, WEST, lab=module_lab)
    assert (again.status, "holds the right to write already" in again.err) == (2, True), again
