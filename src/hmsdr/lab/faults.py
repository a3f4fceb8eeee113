"""The lab's faults: each kills real processes with SIGKILL, at once, and says when and how many.

Runs inside the supervisor, so that what was broken on purpose is not started again behind the breaker's back.
What should happen afterwards is nobody's decision here: that is what the product is for.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab import held, pods
from hmsdr.lab.components import Component
from hmsdr.lab.healing import Healing
from hmsdr.lab.layout import SERVICES, Layout
from hmsdr.lab.processes import Killed, LabProcess, kill, lab_processes, sweep
from hmsdr.playbook.findings import nearest

KILL_SECONDS = 5.0
_LOOK_PAUSE = 0.25
_POSTMASTER_PAUSE = 0.02
_LOOKS = 2
CONTROL_PLANE = "control-plane-down"
FAULTS = {
    "region-down": "every process of a region at once, database backends included",
    "database-killed": "a region's PostgreSQL with all its backends; its agent lives on",
    "redis-killed": "a region's Redis",
    "service-killed": "all pods of one service in a region",
    CONTROL_PLANE: "every controller and every member of etcd, at all sites, in a lab with --ha",
}
"""Name to what dies."""
_COUNCIL = ("etcd", "controller")

REDIS = ("redis-server", "redis-check-rdb", "valkey-server")


@dataclass(frozen=True, slots=True)
class Broken:
    """A fault that was done and not healed yet. ``at`` is UTC seconds, ``held`` that nothing may start it again."""

    fault: str
    region: str
    service: str | None
    at: float
    held: bool


class Faults:
    """Breaks and heals one lab.

    Args:
        layout: the lab.
        components: its servers; those of a dead region are held down.
    """

    def __init__(self, layout: Layout, components: Mapping[str, Component]) -> None:
        self._layout = layout
        self._components = components
        self._broken: list[Broken] = []
        self._tasks: list[asyncio.Task[None]] = []

    def list(self) -> list[dict[str, Any]]:
        """What is broken."""
        return [asdict(each) for each in self._broken]

    def end(self) -> None:
        """Let go of everything that is held down; what waits to be started again is started at once."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for region in self._layout.regions.values():
            with suppress(OSError):  # the lab may be going down, its directory with it
                held.write(region, ())

    async def break_(
        self, fault: str, region: str | None, service: str | None, *, hold: bool
    ) -> dict[str, Any]:
        """Let `fault` happen; with `hold`, nothing starts again what it killed until it is healed.

        Raises:
            RefusedError: no such fault, region or service, or nothing of it runs.
            FailedError: processes survived.
        """
        region = region or next(iter(self._layout.regions))
        check(self._layout, fault, region, service)
        if fault == CONTROL_PLANE:
            killed = await self._kill(self._control_plane())
        elif fault == "region-down":
            for component in self._components.values():
                if component.server.region == region:
                    component.hold()
            lab = self._layout
            killed = await asyncio.to_thread(
                sweep, lab.lab_id, lab.directory, seconds=KILL_SECONDS, region=region
            )
        else:
            killed = await self._kill_pods(fault, region, service, hold=hold)
        if killed.count == 0:
            raise RefusedError(
                f"breaking {region} with {fault}", "nothing of it runs", "`hmsdr lab heal` first"
            )
        self._note(Broken(fault, region, service, killed.wall, hold))
        if killed.survivors:
            raise FailedError(
                f"breaking {region} with {fault}", f"{killed.survivors} processes are alive", "Try again"
            )
        if fault == "database-killed":
            # An agent starts a standby that dies again at once, so a database is held down in any case.
            self._tasks.append(asyncio.create_task(self._hold(region)))
        elif not hold and self._workload(fault, region, service):
            self._tasks.append(asyncio.create_task(self._watch(self._broken[-1])))
        return {**asdict(killed), "region": region, "what": FAULTS[fault]}

    async def heal(self) -> dict[str, Any]:
        """Start again what was broken, and say how each region came back.

        Raises:
            FailedError: a part did not come back.
        """
        self.end()
        broken, self._broken = self._broken, []
        self._save()
        return await Healing(self._layout, self._components).run(
            {(each.fault, each.region, each.service) for each in broken}
        )

    def _note(self, broken: Broken) -> None:
        same = (broken.fault, broken.region, broken.service)
        self._broken = [each for each in self._broken if (each.fault, each.region, each.service) != same]
        self._broken.append(broken)
        self._save()

    def _save(self) -> None:
        (self._layout.directory / "faults.json").write_text(json.dumps(self.list(), indent=2) + "\n")

    def _control_plane(self) -> Callable[[LabProcess], bool]:
        """Its processes; from now on the supervisor leaves them dead."""
        parts = [each for each in self._components.values() if each.server.key.split()[0] in _COUNCIL]
        pids = {part.pid for part in parts}
        for part in parts:
            part.hold()
        return lambda process: process.pid in pids

    async def _wanted(self, fault: str, region: str, service: str | None) -> Callable[[LabProcess], bool]:
        here = self._layout.regions[region]
        if fault == "database-killed":
            return lambda process: process.directory == here.postgres_data
        if fault == "redis-killed":
            return lambda process: process.region == region and process.executable in REDIS
        pids = await pods.service_processes(self._layout, region, str(service))
        return lambda process: process.pid in pids

    async def _kill(self, wanted: Callable[[LabProcess], bool]) -> Killed:
        return await asyncio.to_thread(_kill_until_gone, self._layout, wanted)

    async def _kill_pods(self, fault: str, region: str, service: str | None, *, hold: bool) -> Killed:
        """Kill what belongs to a fault of one part; with `hold`, Kubernetes is kept from starting it beforehand."""
        wanted, place = await self._wanted(fault, region, service), self._layout.regions[region]
        workload, before = self._workload(fault, region, service), held.read(place)
        if hold and workload:
            held.write(place, before | {workload})
        killed = await self._kill(wanted)
        if hold and workload and killed.count == 0:
            held.write(place, before)
        return killed

    def _workload(self, fault: str, region: str, service: str | None) -> str | None:
        """What Kubernetes would start again."""
        if fault == "service-killed":
            return pods.deployment(str(service))
        return pods.cache(self._layout, region) if fault == "redis-killed" else None

    async def _hold(self, region: str) -> None:
        while True:
            await _postmaster(self._layout.regions[region].postgres_data)
            await self._kill(await self._wanted("database-killed", region, None))

    async def _watch(self, broken: Broken) -> None:
        """Kubernetes mends what is not held: then it is broken no more."""
        workload = str(self._workload(broken.fault, broken.region, broken.service))
        while True:
            if await pods.lacking(self._layout, broken.region, workload) is None:
                break
            await asyncio.sleep(_LOOK_PAUSE)
        if broken in self._broken:
            self._broken.remove(broken)
            self._save()


def check(layout: Layout, fault: str, region: str, service: str | None) -> None:
    """Refuse what the lab does not know, with the nearest name.

    Raises:
        RefusedError: no such fault, region or service.
    """
    for what, name, known in (
        ("fault", fault, tuple(FAULTS)),
        ("region", region, tuple(layout.regions)),
        ("service", service, SERVICES),
    ):
        if name is None and what == "service" and fault != "service-killed":
            continue
        if name is None:
            raise RefusedError(
                f"breaking {region} with {fault}", "no service is named", f"--service {known[0]}"
            )
        if name not in known:
            raise RefusedError(
                f"breaking {region} with {fault}",
                f"the lab has no {what} {name!r}",
                f"{nearest(name, known) or ''} Known: {', '.join(known)}".strip(),
            )
    if service is not None and fault != "service-killed":
        raise RefusedError(
            f"breaking {region} with {fault}", "--service belongs to service-killed", "Leave it out"
        )


async def _postmaster(data: Path) -> None:
    """Wait until a server runs on `data`: looked for often, because a standby streams within half a second."""
    while True:
        await asyncio.sleep(_POSTMASTER_PAUSE)
        with suppress(OSError, ValueError):
            pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
            if Path(f"/proc/{pid}/cwd").samefile(data):
                return


def _kill_until_gone(layout: Layout, wanted: Callable[[LabProcess], bool]) -> Killed:
    """SIGKILL those that are wanted now, and what they fork, until two looks in a row find none of them."""
    wall, first = time.time(), time.monotonic()
    done: set[tuple[int, int]] = set()
    empty = 0
    while True:
        found = [process for process in lab_processes(layout.lab_id, layout.directory) if wanted(process)]
        if found and not done:
            wall, first = time.time(), time.monotonic()
        done.update((process.pid, process.start) for process in found if kill(process, signal.SIGKILL))
        empty = 0 if found else empty + 1
        late = time.monotonic() > first + KILL_SECONDS
        if empty == _LOOKS or late:
            return Killed(wall, first, len(done), len(found))
