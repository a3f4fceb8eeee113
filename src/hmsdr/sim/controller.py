"""A site's controller: the real `hmsdr.control.controller` with its eyes, its lead and its runner, in a simulated process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hmsdr.control import controller as real
from hmsdr.control.facets import Answer, Seen
from hmsdr.control.means import Means
from hmsdr.control.site_alarms import SiteAlarms
from hmsdr.control.view import View
from hmsdr.log.store import EventLog
from hmsdr.runbook.systems import Systems
from hmsdr.sim.loop import Life
from hmsdr.sim.process import Running
from hmsdr.sim.settings import playbook
from hmsdr.sim.store import Copy, StorePort
from hmsdr.sim.systems import SimulatedSystems

if TYPE_CHECKING:
    from hmsdr.sim.hospital import Hospital

FAILOVER = str(Path(__file__).parent / "failover.yaml")
"""The runbook by which the simulated hospital fails over."""


class Controller(Running):
    """One site's controller."""

    def __init__(self, hospital: Hospital, site: str) -> None:
        super().__init__(hospital.world, hospital.machines[site], f"controller@{site}")
        self.hospital = hospital
        self.real: real.Controller | None = None
        """Of this life."""
        self._copy = Copy()

    async def program(self) -> None:
        """The real controller."""
        assert self.loop is not None  # noqa: S101 - it runs in it
        book, store = playbook(self.hospital.figures), StorePort(self.hospital.store, self.loop)
        self.real = real.Controller(
            book, self.machine.site, store, self._copy, means=Sights(self, store, self.loop)
        )
        await self.real.run(asyncio.Event())

    def kill(self) -> None:
        """SIGKILL."""
        super().kill()
        self.real = None


class Sights(Means):
    """Eyes and hands in the simulated world."""

    runbook = FAILOVER

    def __init__(self, process: Controller, store: StorePort, loop: Life) -> None:
        super().__init__(playbook(process.hospital.figures), store)
        self._process, self._port, self._loop = process, store, loop

    def life(self) -> str:
        """Counted."""
        return f"{self._process.life:06}"

    def systems(self) -> Systems:
        """Over the simulated wires."""
        return SimulatedSystems(self._playbook, self._port, self._process.hospital, self._loop)

    def view(self, on_change: Callable[[str, str, Answer | None, Seen], None]) -> View:
        """Nothing besides what triggers."""
        return Unseen(self.systems(), on_change)

    def alarms(self, controller: real.Controller, own: EventLog | None) -> SiteAlarms:
        """Nobody is told."""
        return Untold(controller, self._port, own)


class Unseen(View):
    """What triggers nothing is not looked at."""

    async def run(self) -> None:
        """Never."""
        await asyncio.get_running_loop().create_future()


class Untold(SiteAlarms):
    """What changes nothing is not done."""

    async def run(self) -> None:
        """Never."""
        await asyncio.get_running_loop().create_future()
