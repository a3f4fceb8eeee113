"""A planned database switchover as the clinics feel it, on a whole lab: there, back, and a region lost afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from commands import hmsdr
from hmsdr.lab import control
from hmsdr.lab.hms.ledger import Ledger
from hmsdr.lab.layout import Layout
from hospital_state import EAST, WEST, judged, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
THERE, BACK = (f"from={EAST}", f"to={WEST}"), (f"from={WEST}", f"to={EAST}")
SERVICES = ("appointment", "auth", "billing", "clinical", "patient")


async def pods_serve_on(path: Path, at_least: int) -> None:
    """The clinics have had so many more answers."""
    wanted = len(Ledger.read(path)) + at_least
    async with asyncio.timeout(60):
        while len(Ledger.read(path)) < wanted:
            await asyncio.sleep(0.1)


@pytest.mark.req("AP-3", "DB-1", "DB-2", "DB-3", "FA-4")
async def test_clinics_get_no_error_there_and_back_nor_while_pods_are_started_anew(
    module_lab: Layout, tmp_path: Path
) -> None:
    before, path = await look(module_lab), tmp_path / "ledger.jsonl"
    clinics = await control.start_clinics(module_lab, path)
    try:
        await pods_serve_on(path, 40)
        for words in (THERE, BACK):
            done = hmsdr("run", "start", "database-failover", *words, lab=module_lab)
            assert (done.status, "not done" in done.out) == (0, False), done
            await pods_serve_on(path, 40)
    finally:
        await clinics.stop()
    state = await look(module_lab)
    assert (state.epoch, state.primaries) == (before.epoch + 2, (EAST,))
    entries, lost, doubled = await judged(module_lab, EAST, path)
    failed = [(entry.service, entry.kind, entry.error, entry.status) for entry in entries if not entry.ok]
    assert failed == []
    assert (lost, doubled) == ([], 0)
    writes = [entry for entry in entries if entry.kind == "write"]
    # 200 would be a row that was there already: nothing was sent to the database twice to any effect.
    assert {entry.status for entry in writes} == {201}
    assert {entry.epoch for entry in writes} == {before.epoch, before.epoch + 1, before.epoch + 2}
    assert {entry.region for entry in entries} == {EAST}


@pytest.mark.req("FA-2", "FA-3", "FA-4", "AP-3")
async def test_the_region_of_the_new_primary_is_lost_and_users_region_takes_its_database_back(
    module_lab: Layout, tmp_path: Path
) -> None:
    """Pods know both databases: those that are left must not wait for the one that is gone."""
    there = hmsdr("run", "start", "database-failover", *THERE, lab=module_lab)
    assert there.status == 0, there
    before, path = await look(module_lab), tmp_path / "ledger.jsonl"
    clinics = await control.start_clinics(module_lab, path)
    try:
        await pods_serve_on(path, 20)
        await control.break_(module_lab, "region-down", region=WEST)
        moved = hmsdr("run", "start", "database-failover", *BACK, lab=module_lab)
        assert moved.status == 0, moved
        state = await look(module_lab, regions=(EAST,))
        assert (state.epoch, state.primaries, state.weights[EAST]) == (before.epoch + 1, (EAST,), 100)
        await pods_serve_on(path, 40)
    finally:
        await clinics.stop()
    entries, lost, doubled = await judged(module_lab, EAST, path)
    assert doubled == 0
    assert len(lost) <= 3, "asynchronous replication: the last moment only"
    last = [entry for entry in entries if entry.kind == "write"][-10:]
    assert {(entry.ok, entry.epoch) for entry in last} == {(True, before.epoch + 1)}
