"""The people of the simulated hospital, at the witness: they declare, switch over and bring a lost side back, by the real commands' ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hmsdr.control.chronicle import DECLARED
from hmsdr.decide.authority import Authority, Phase
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import HmsdrError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.runbook.launch import begin, runs
from hmsdr.runbook.place import runners_place
from hmsdr.runbook.state import RunStatus
from hmsdr.sim.controller import FAILOVER
from hmsdr.sim.process import Running
from hmsdr.sim.settings import playbook
from hmsdr.sim.store import StorePort
from hmsdr.sim.systems import SimulatedSystems
from hmsdr.sim.world import WITNESS

if TYPE_CHECKING:
    from hmsdr.sim.hospital import Hospital

_LOOK_SECONDS = 2.0
_ASK_SECONDS = 0.6
_ORDER_SECONDS = 8.0
_RUN_SECONDS = 60.0


class Person(Running):
    """Whoever is on call. Nobody kills or pauses a person."""

    def __init__(self, hospital: Hospital) -> None:
        super().__init__(hospital.world, hospital.machines[WITNESS], "person")
        self.hospital = hospital
        self.declares = 0
        """The epoch whose holder's region is to be declared lost."""
        self.switches = 0
        """The epoch from which somebody wants a planned switchover."""

    async def program(self) -> None:
        """Look, and do what is wanted, one thing after the other."""
        assert self.loop is not None  # noqa: S101 - it runs in it
        self._book = playbook(self.hospital.figures)
        self._store = StorePort(self.hospital.store, self.loop)
        self._systems = SimulatedSystems(self._book, self._store, self.hospital, self.loop)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                async with asyncio.timeout(_RUN_SECONDS):
                    await self._help(await self._store.read_authority())
            except (HmsdrError, TimeoutError) as error:
                self.say(f"did not succeed: {error}")

    async def _help(self, record: Authority) -> None:
        if record.phase is not Phase.HELD or record.holder is None:
            return
        region = record.holder.instance.removeprefix("db-")
        if self.declares == record.epoch:
            self.declares = 0
            await self._declare(region, record.epoch)
            return
        other = self._book.other_region(region)
        active, standby = await self._status(region), await self._status(other)
        if active is None or standby is None or active.database.state != "primary":
            return
        if standby.database.state == "standby" and standby.replication.streaming:
            if self.switches == record.epoch:
                self.switches = 0
                await self._switch(region, other)
            return
        postgres = self._book.regions[region].postgres
        slot = self._book.regions[other].postgres.slot
        await self._systems.agent(other).follow(
            epoch=record.epoch,
            primary_host=postgres.host,
            primary_port=postgres.port,
            slot=slot,
            deadline=_ORDER_SECONDS,
        )

    async def _declare(self, region: str, epoch: int) -> None:
        """`hmsdr declare disaster`."""

        async def declared() -> list[NewEvent]:
            return [NewEvent(DECLARED, region, "person", {"epoch": epoch, "reason": "simulated"})]

        await append_after(self._store, declared, doing="declaring a disaster")

    async def _switch(self, region: str, other: str) -> None:
        """`hmsdr failover`, planned."""
        unfinished = any(state.status is RunStatus.RUNNING for state in runs(await self._store.read()))
        async with runners_place(self._book, self._store, unfinished=unfinished) as term:
            await begin(
                self._store,
                self._systems,
                {"from": region, "to": other},
                by="person",
                runbook=FAILOVER,
                term=term,
            )

    async def _status(self, region: str) -> AgentStatus | None:
        try:
            return await self._systems.agent(region).status(deadline=_ASK_SECONDS)
        except DriverError:
            return None
