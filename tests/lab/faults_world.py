"""``python faults_world.py DIRECTORY``: a world of networks in which one lab after the other goes through faults, as it is told.

It runs in namespaces of its own, which a test cannot enter; so the test tells it names of faults, one a line, and reads what was
found, one JSON a line. A lab is kept from fault to fault until one moves the right to write.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psycopg
from faults_evidence import Evidence, judge, primaries
from faults_made import FAULTS, Fault, Trouble

from hmsdr.control.chronicle import DECIDED
from hmsdr.decide.authority import Authority
from hmsdr.errors import HmsdrError
from hmsdr.lab import control, wires
from hmsdr.lab.hms.ledger import HOSPITAL_ANSWERED, Ledger
from hmsdr.lab.layout import WITNESS, Layout
from hmsdr.lab.regions import Agents
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store, StoreError
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import runs

CALM_SECONDS, SETTLED = 1.5, 15
"""Traffic before the fault; so many requests in a row must be good before the hospital counts as serving again."""
SETTLE_SECONDS = 45.0
DISK_MEGABYTES = 400


class World:
    """One lab at a time, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._layout: Layout | None = None
        self._small_disk = False

    async def suffer(self, name: str) -> Evidence:
        """The fault `name`, under the clinics' writes, and what was found."""
        fault, found = FAULTS[name], Evidence(name)
        layout = await self._whole(small_disk=fault.small_disk)
        playbook, store = load(layout.playbook), await open_store(load(layout.playbook), site=WITNESS)
        ledger = self._directory / f"{self._number}-{name}.jsonl"
        try:
            record = await store.read_authority()
            active = _region(playbook, record)
            before = (await store.head()).seq
            trouble = Trouble(layout, store, active, playbook.other_region(active), before, notes=found.notes)
            found.epoch_before, postmaster = record.epoch, trouble.postmaster()
            clinics = await control.start_clinics(layout, ledger)
            try:
                await asyncio.sleep(CALM_SECONDS)
                found.problem = await _make(fault, trouble)
                await _settle(layout, ledger, found)
            finally:
                await clinics.stop()
            await _ask(found, layout, playbook, store, trouble)
            found.postmaster_kept = postmaster == trouble.postmaster()
            judge(found, layout, Ledger.read(ledger), trouble.fault_at, active)
        except psycopg.Error as error:
            found.problem = found.problem or f"asking the databases: {error}"
        finally:
            await store.close()
        if found.problem or (fault.over is not None and len(found.decided) != fault.over):
            _keep_logs(layout, self._directory / f"logs-{name}")
        if found.problem or found.epoch != found.epoch_before or fault.small_disk:
            await self.end()
        return found

    async def _whole(self, *, small_disk: bool) -> Layout:
        if self._layout is not None and self._small_disk != small_disk:
            await self.end()
        if self._layout is None:
            self._number += 1
            self._small_disk = small_disk
            place = self._directory / f"lab-{self._number}"
            if small_disk:
                # A directory with this file is an earlier lab's, and is swept: what is mounted in it stays.
                mount = place / "regions" / "us-east-1" / "postgres"
                mount.mkdir(parents=True)
                (place / "lab.json").touch()
                _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "small", mount)
            self._layout = await control.up(place, ha=True, keep_failed=True)
            await _streams(self._layout)
        return self._layout

    async def end(self) -> None:
        """Take the lab down."""
        wires.join()
        layout, self._layout = self._layout, None
        if layout is None:
            return
        await control.down(layout, keep=True)
        if self._small_disk:
            _run("umount", "-l", layout.regions["us-east-1"].postgres_data.parent)
        shutil.rmtree(layout.directory)


def _keep_logs(layout: Layout, place: Path) -> None:
    """For whoever looks for the reason: the lab itself is taken down."""
    for log in layout.directory.rglob("*.log"):
        target = place / log.relative_to(layout.directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, target)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=10)


async def _make(fault: Fault, trouble: Trouble) -> str:
    try:
        await fault.make(trouble)
    except (AssertionError, HmsdrError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        wires.join()
    return ""


async def _settle(layout: Layout, ledger: Path, found: Evidence) -> None:
    """Until users are served, and nothing of the trouble is left to come out."""
    began = time.monotonic()
    while time.monotonic() < began + SETTLE_SECONDS:
        entries = sorted(Ledger.read(ledger), key=lambda entry: entry.ended_at)[-SETTLED:]
        served = [entry.ok or entry.error in HOSPITAL_ANSWERED for entry in entries]
        if all(served) and any(entry.kind == "write" for entry in entries):
            break
        await asyncio.sleep(0.2)
    else:
        found.problem = found.problem or f"users were not served within {SETTLE_SECONDS:g} s"
    found.notes["settled_seconds"] = round(time.monotonic() - began, 1)
    await asyncio.sleep(1.0)


async def _streams(layout: Layout) -> None:
    """Whoever is failed over to must be able to take over."""
    async with Agents(layout) as agents:
        ends = time.monotonic() + 20
        while not [r for r in layout.regions if await agents.streams(r, deadline=1.0)]:
            assert time.monotonic() < ends, "no standby streams"
            await asyncio.sleep(0.1)


async def _ask(found: Evidence, layout: Layout, playbook: Playbook, store: Store, trouble: Trouble) -> None:
    """Who may write, who would, and what the controllers did."""
    ends = time.monotonic() + 20
    while True:
        with suppress(StoreError):
            record, events = await store.read_authority(), await store.read(trouble.before)
            break
        assert time.monotonic() < ends, "the store does not answer after the fault"
    found.holder, found.epoch, found.phase = _region(playbook, record), record.epoch, str(record.phase)
    found.decided = [dict(event.data) for event in events if event.kind == DECIDED]
    found.runs = [str(each.status) for each in runs(events)]
    found.primaries = await asyncio.to_thread(primaries, layout)


def _region(playbook: Playbook, record: Authority) -> str:
    holder = record.holder
    for name, region in playbook.regions.items():
        if holder is not None and region.postgres.instance == holder.instance:
            return name
    return ""


async def _serve(directory: Path) -> None:
    world = World(directory)
    try:
        while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
            try:
                found = await world.suffer(name)
            except (AssertionError, HmsdrError) as error:
                found = Evidence(name, problem=f"{type(error).__name__}: {error}")
                await world.end()
            print(json.dumps(asdict(found)), flush=True)  # noqa: T201
    finally:
        await world.end()


if __name__ == "__main__":
    if not wires.entered():
        wires.enter([__file__, *sys.argv[1:]])
    wires.lay()
    asyncio.run(_serve(Path(sys.argv[1])))
