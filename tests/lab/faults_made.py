"""Every fault, made for real: wires cut, packets lost and late, processes stopped, a disk filled, a control plane killed.

Each makes its trouble, keeps it for as long as it says, and takes it back. What must hold afterwards is judged elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from faults_evidence import connect

from hmsdr.control.following import Followed, follow
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import Unprivileged
from hmsdr.lab import binaries, control, wires
from hmsdr.lab.layout import WITNESS, Layout
from hmsdr.lab.processes import LabProcess, kill, lab_processes
from hmsdr.lab.regions import Agents
from hmsdr.log.store import Store, StoreError
from hmsdr.runbook.launch import Watcher

LONGER_THAN_THE_LEASE = 6.0
"""The lab's lease is 4 s; a region must be gone for 5 s more before it is failed over."""
FAILOVER_SECONDS = 60.0
_POINT = "fencing/free-authority"


@dataclass
class Trouble:
    """Where a fault is made. ``fault_at`` is set when it begins."""

    layout: Layout
    store: Store
    active: str
    other: str
    before: int
    """The last event of the log from before."""
    fault_at: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def begins(self) -> None:
        self.fault_at = time.time()

    def processes(self, words: str, region: str | None = None) -> list[LabProcess]:
        """Those of the active region (or of `region`) whose command has `words`."""
        found = [
            each
            for each in lab_processes(self.layout.lab_id, self.layout.directory)
            if each.region == (region or self.active) and words in each.command
        ]
        assert found, f"no process {words!r} in {region or self.active}"
        return found

    def postgres(self) -> list[LabProcess]:
        here = self.layout.regions[self.active].postgres_data
        return [
            each
            for each in lab_processes(self.layout.lab_id, self.layout.directory)
            if each.executable == "postgres" and each.directory == here
        ]

    def postmaster(self) -> int | None:
        """Its pid as everybody sees it, also when it runs in a namespace."""
        data = self.layout.regions[self.active].postgres_data
        return PostgresServer(data, binaries.postgres_bin(), Unprivileged(), data / "none").pid()

    async def failed_over(self) -> Followed:
        return await follow(self.store, self.before, Watcher(), deadline=FAILOVER_SECONDS)


@contextmanager
def stopped(processes: Sequence[LabProcess]) -> Iterator[None]:
    """SIGSTOP now, SIGCONT at the end."""
    for each in processes:
        assert kill(each, signal.SIGSTOP), f"{each.command} was gone before"
    try:
        yield
    finally:
        for each in processes:
            kill(each, signal.SIGCONT)


def _cutting(*pairs: tuple[str, str], over: bool) -> Callable[[Trouble], Awaitable[None]]:
    """Wires by role (``active``, ``other``, ``witness``), each one way."""

    async def make(trouble: Trouble) -> None:
        names = {"active": trouble.active, "other": trouble.other, "witness": WITNESS}
        trouble.begins()
        for source, target in pairs:
            wires.cut(names[source], names[target])
        if over:
            await trouble.failed_over()
        else:
            await asyncio.sleep(2 * LONGER_THAN_THE_LEASE - 4)
        wires.join()

    return make


def _both(*pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(each for one, other in pairs for each in ((one, other), (other, one)))


async def _loss(trouble: Trouble) -> None:
    trouble.begins()
    for place in (trouble.active, trouble.other, WITNESS):
        wires.lose(place, 30)
    await asyncio.sleep(10)
    wires.join()


async def _delay(trouble: Trouble) -> None:
    trouble.begins()
    for place in (trouble.active, trouble.other, WITNESS):
        await asyncio.to_thread(wires.delay, place, 50)
    await asyncio.sleep(8)
    wires.join()


async def _agent(trouble: Trouble) -> None:
    trouble.begins()
    with stopped(trouble.processes("hmsdr agent")):
        await asyncio.sleep(LONGER_THAN_THE_LEASE)


async def _agent_until_replaced(trouble: Trouble) -> None:
    trouble.begins()
    with stopped(trouble.processes("hmsdr agent")):
        await trouble.failed_over()


async def _guard(trouble: Trouble) -> None:
    trouble.begins()
    with stopped(trouble.processes("control.guard")):
        await asyncio.sleep(LONGER_THAN_THE_LEASE)


async def _guard_and_cut(trouble: Trouble) -> None:
    """The agent must see the end of its lease by itself."""
    with stopped(trouble.processes("control.guard")):
        await _cutting(*_both(("active", "other"), ("active", "witness")), over=True)(trouble)


async def _database(trouble: Trouble) -> None:
    trouble.begins()
    with stopped(trouble.postgres()):
        await asyncio.sleep(LONGER_THAN_THE_LEASE)


async def _postmaster(trouble: Trouble) -> None:
    trouble.begins()
    with stopped(_only_postmaster(trouble)):
        await asyncio.sleep(LONGER_THAN_THE_LEASE)


async def _postmaster_and_cut(trouble: Trouble) -> None:
    """Its backends go on committing, and must be dead before the other side begins."""
    with stopped(_only_postmaster(trouble)):
        await _cutting(*_both(("active", "other"), ("active", "witness")), over=True)(trouble)


def _only_postmaster(trouble: Trouble) -> list[LabProcess]:
    oldest = min(trouble.postgres(), key=lambda each: (each.start, each.pid))
    assert oldest.pid == trouble.postmaster()
    return [oldest]


async def _leading(trouble: Trouble) -> LabProcess:
    site = (await trouble.store.leadership()).leader.removeprefix("controller ").partition("/")[0]
    for each in lab_processes(trouble.layout.lab_id, trouble.layout.directory):
        if "hmsdr controller --playbook" in each.command and f"--site {site} " in each.command:
            return each
    raise AssertionError(f"no process leads at {site!r}")


async def _leader(trouble: Trouble) -> None:
    process, term = await _leading(trouble), (await trouble.store.leadership()).term
    trouble.begins()
    with stopped([process]):
        await asyncio.sleep(LONGER_THAN_THE_LEASE)
        assert (await trouble.store.leadership()).term > term, "nobody took the lead"
    await _ends(process)


async def _leader_at_work(trouble: Trouble) -> None:
    """It is stopped in the middle of the failover, another one finishes it, and then it wakes."""
    fault = await control.break_(trouble.layout, "region-down", region=trouble.active)
    trouble.fault_at = fault.wall
    ends = time.monotonic() + FAILOVER_SECONDS
    while not await _started(trouble, _POINT):
        assert time.monotonic() < ends, "no failover was begun"
        await asyncio.sleep(0.02)
    process = await _leading(trouble)
    with stopped([process]):
        followed = await trouble.failed_over()
        trouble.notes["status"] = str(followed.run.status)
    await _ends(process)


async def _started(trouble: Trouble, step: str) -> bool:
    with suppress(StoreError):
        for event in await trouble.store.read(trouble.before):
            if event.kind == "step.started" and event.data["step"] == step:
                return True
    return False


async def _ends(process: LabProcess) -> None:
    """Who has lost the lead must end by itself."""
    ends = time.monotonic() + 20
    while kill(process, 0):
        assert time.monotonic() < ends, "the old leader did not end when it woke"
        await asyncio.sleep(0.05)


async def _full_disk(trouble: Trouble) -> None:
    """Rows find no room: who asks for them is told so, and the database lives."""
    with _filled(trouble):
        ends, told = time.monotonic() + 6, ""
        while time.monotonic() < ends:
            told = (
                await asyncio.to_thread(_write, trouble, "INSERT INTO filler SELECT repeat('x', 2000)")
                or told
            )
            await asyncio.sleep(0.05)
    assert "No space left on device" in told, told
    assert await _state(trouble) == "primary"


async def _full_disk_under_wal(trouble: Trouble) -> None:
    """WAL finds no room, which no PostgreSQL survives. In the lab its agent then holds it, until a person gives that a new life."""
    with _filled(trouble):
        ends = time.monotonic() + FAILOVER_SECONDS
        while await _state(trouble) == "primary":
            assert time.monotonic() < ends, "WAL found room"
            statement = "INSERT INTO filler VALUES ('x'); SELECT pg_switch_wal()"
            trouble.notes["told"] = await asyncio.to_thread(_write, trouble, statement)
        await asyncio.sleep(2)
    trouble.notes["state"] = await _state(trouble)
    for each in trouble.processes("hmsdr agent"):
        kill(each, signal.SIGTERM)


@contextmanager
def _filled(trouble: Trouble) -> Iterator[None]:
    """The database's file system is its own here, and a small one: fill it to the last page, and keep it so."""
    _write(trouble, "CREATE TABLE filler (text text)")
    filler = trouble.layout.regions[trouble.active].postgres_data.parent / "filler"
    trouble.begins()
    command = f"while true; do cat /dev/zero >> {filler} 2>/dev/null; sleep 0.05; done"
    filling = subprocess.Popen(["sh", "-c", command])
    try:
        yield
    finally:
        filling.kill()
        filling.wait(10)
        trouble.notes["filled_megabytes"] = filler.stat().st_size >> 20
        filler.unlink()


def _write(trouble: Trouble, statement: str) -> str:
    """What the database says against `statement`; empty when it is done."""
    try:
        with connect(trouble.layout, trouble.active) as connection:
            connection.execute(statement)  # type: ignore[arg-type]
    except psycopg.Error as error:
        return str(error)
    return ""


async def _state(trouble: Trouble) -> str:
    async with Agents(trouble.layout) as agents:
        status = await agents.status(trouble.active, deadline=1.0)
    return "silent" if status is None else status.database.state


async def _control_plane(trouble: Trouble) -> None:
    fault = await control.break_(trouble.layout, "control-plane-down")
    trouble.fault_at, trouble.notes["killed"] = fault.wall, fault.count
    await asyncio.sleep(2 * LONGER_THAN_THE_LEASE - 4)
    await control.heal(trouble.layout)


@dataclass(frozen=True)
class Fault:
    """``over``: whether the hospital is failed over (None: both are right). ``undisturbed``: the database is never started anew."""

    make: Callable[[Trouble], Awaitable[None]]
    over: bool | None = False
    undisturbed: bool = False
    small_disk: bool = False
    """The active region's database is on a small file system of its own."""


_ALONE = (("active", "other"), ("active", "witness"))
FAULTS: dict[str, Fault] = {
    "regions-cut-from-each-other": Fault(_cutting(*_both(("active", "other")), over=False), undisturbed=True),
    "witness-cut-off": Fault(
        _cutting(*_both(("witness", "active"), ("witness", "other")), over=False), undisturbed=True
    ),
    "standby-cut-off": Fault(
        _cutting(*_both(("other", "active"), ("other", "witness")), over=False), undisturbed=True
    ),
    "one-way-active-to-standby": Fault(_cutting(("active", "other"), over=False), undisturbed=True),
    "one-way-standby-to-active": Fault(_cutting(("other", "active"), over=False), undisturbed=True),
    "packet-loss": Fault(_loss, over=None),
    "delay": Fault(_delay, undisturbed=True),
    "agent-stopped": Fault(_agent),
    "guard-stopped": Fault(_guard, undisturbed=True),
    "database-stopped": Fault(_database, undisturbed=True),
    "postmaster-stopped": Fault(_postmaster, undisturbed=True),
    "leader-stopped": Fault(_leader, undisturbed=True),
    "control-plane-killed": Fault(_control_plane, undisturbed=True),
    "active-cut-off": Fault(_cutting(*_both(*_ALONE), over=True), over=True),
    "one-way-out-of-active": Fault(_cutting(*_ALONE, over=True), over=True),
    "one-way-into-active": Fault(_cutting(*((b, a) for a, b in _ALONE), over=True), over=True),
    "agent-stopped-until-replaced": Fault(_agent_until_replaced, over=True),
    "guard-stopped-and-active-cut-off": Fault(_guard_and_cut, over=True),
    "postmaster-stopped-and-active-cut-off": Fault(_postmaster_and_cut, over=True),
    "leader-stopped-at-work": Fault(_leader_at_work, over=True),
    "disk-full": Fault(_full_disk, undisturbed=True, small_disk=True),
    "disk-full-under-wal": Fault(_full_disk_under_wal, over=None, small_disk=True),
}
