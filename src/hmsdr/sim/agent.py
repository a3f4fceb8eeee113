"""The agent beside a region's database: the real `hmsdr.control.agent`, every line of it, in a simulated process.

What it is asked goes through the real client and the real orders of `hmsdr.control.api`; only the sockets are left out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from hmsdr.control import agent as real
from hmsdr.control.api import ORDERS, problem, refusal
from hmsdr.control.config import AgentConfig
from hmsdr.control.database import Database as RealDatabase
from hmsdr.control.database import Role
from hmsdr.control.guarding import Guarding
from hmsdr.control.inspection import Inspection
from hmsdr.control.lost import Lost, Reconciliations
from hmsdr.control.recovering import Recovering
from hmsdr.control.rejoining import Rejoining
from hmsdr.control.sighting import PrimarySightings
from hmsdr.control.slots import LostSlotKeeper
from hmsdr.control.state import AgentState, StateFile, Upstream
from hmsdr.control.surroundings import Surroundings
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_auth import OTHER_LIFE
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.playbook.topology import AgentEndpoint
from hmsdr.sim.damage import Eyes
from hmsdr.sim.database import Database
from hmsdr.sim.edges import NOWHERE, SYSTEM, Disk, Guarded, Memory, Server, Sql
from hmsdr.sim.guard import Guard
from hmsdr.sim.loop import Life
from hmsdr.sim.process import NobodyThereError, Running, asked
from hmsdr.sim.store import Store, StorePort
from hmsdr.sim.world import SILENCE, Machine, World

_DONE = 200


class Agent(Running):
    """One region's agent.

    Args:
        world: where it lives.
        machine: its region's.
        database: what it keeps.
        guard: over that database.
        store: keeper of the authority record.
        config: what it is told.
    """

    def __init__(
        self,
        world: World,
        machine: Machine,
        database: Database,
        guard: Guard,
        store: Store,
        config: AgentConfig,
    ) -> None:
        super().__init__(world, machine, f"agent@{machine.site}")
        self.database = database
        self.guard = guard
        self.store = store
        self.config = config
        self.disk = Disk(AgentState(database.instance))
        self.peer: Agent | None = None
        self.mute = False
        """Whether its own interface does not answer: its port is blocked, say."""
        self.alone = False
        """Whether it cannot reach its peer."""
        self.real: real.Agent | None = None
        """Of this life."""

    async def program(self) -> None:
        """The real agent."""
        assert self.loop is not None  # noqa: S101 - it runs in it
        store = StorePort(self.store, self.loop)
        server = Server(self.database, self.loop)
        self.real = real.Agent(self.config, store, server, None, Around(self, self.loop))
        await self.real.run(asyncio.Event())

    def kill(self) -> None:
        """SIGKILL; its guard sees that it is gone."""
        super().kill()
        self.real = None
        self.guard.orphan()

    async def answer(self, method: str, path: str, content: bytes, meant: str) -> Any:
        """What its interface answers: status, body and life, as the real one."""
        agent = self.real
        if self.mute or agent is None:
            return SILENCE
        life = agent.holder.incarnation
        if method != "GET" and meant != life:
            return OTHER_LIFE, {}, life
        try:
            return _DONE, await ORDERS[method, path](agent, json.loads(content) if content else {}), life
        except Exception as error:  # noqa: BLE001 - the interface answers every error
            status, *told = refusal(path, error)
            if status == 500:  # noqa: PLR2004 - nobody expected it
                self.world.broken.append(error)
            return status, problem(*told), life

    def order(self, give: Callable[[real.Agent], Awaitable[Any]], answer: list[Any]) -> Any:
        """Have something carried out; what becomes of it is put into `answer`."""
        agent, loop = self.real, self.loop
        if agent is None or loop is None or not agent.booted.is_set():
            return SILENCE

        async def carried_out() -> None:
            try:
                answer.append(await give(agent))
            except Exception as error:  # noqa: BLE001 - as the interface answers it
                if refusal("", error)[0] == 500:  # noqa: PLR2004
                    self.world.broken.append(error)

        loop.create_task(carried_out())
        return True

    def status(self) -> Any:
        """What it tells whoever asks."""
        agent, rows = self.real, self.database.rows
        if agent is None or not agent.booted.is_set():
            return SILENCE
        role, seen = agent.database.role, agent.database.meter.last
        return {
            "holder": agent.holder,
            "following": role is Role.STANDBY and (seen.streaming or seen.measured_at is not None),
            "streaming": role is Role.STANDBY and seen.streaming,
            "promoted_epoch": agent.memory.state.promoted_epoch if role is Role.PRIMARY else 0,
            "lsn": len(rows),
            "data_epoch": self.database.history[-1][0] if self.database.history else 0,
        }

    def promised(self, epoch: int) -> None:
        """It is about to promise."""
        if self.database.witness is not None and self.real is not None:
            self.database.witness.promise(self.real.lease.record, epoch)


class Client(AgentClient):
    """The real client of `agent`, without a socket."""

    def __init__(self, agent: Agent, loop: Life, endpoint: AgentEndpoint) -> None:
        super().__init__(endpoint)
        self._agent, self._loop = agent, loop

    async def _exchange(self, method: str, path: str, content: bytes, what: str) -> tuple[int, Any]:
        del what
        agent, meant = self._agent, self._life
        if isinstance(self._loop.process, Agent) and self._loop.process.alone:
            raise _RefusedError("no way to it")
        try:
            status, said, self._life = await asked(
                self._loop,
                agent.machine.site,
                lambda: agent.answer(method, path, content, meant),
                to=agent,
            )
        except NobodyThereError as error:
            raise _RefusedError(str(error)) from error
        return status, said


class _RefusedError(aiohttp.ClientConnectorError):
    def __init__(self, text: str) -> None:
        OSError.__init__(self, text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class Around(Surroundings):
    """What surrounds the agent of `process` in its life `loop`."""

    def __init__(self, process: Agent, loop: Life) -> None:
        super().__init__(process.config)
        self._process, self._loop = process, loop

    def life(self) -> str:
        """Counted."""
        return f"{self._process.machine.site}{self._process.life}"

    def boot(self) -> str:
        """Of the simulated machine."""
        return self._process.machine.boot_id

    def memory(self) -> StateFile:
        """The simulated disk."""
        return Memory(self._process.disk, self._loop, self._process.promised)

    def guarding(self, owner: tuple[int, int] | None) -> Guarding:
        """The simulated guard."""
        del owner
        return Guarded(self._process.guard, self._loop)

    def peer(self) -> AgentClient:
        """Over the wires."""
        peer = self._process.peer
        assert peer is not None  # noqa: S101 - the hospital has two sides
        return Client(peer, self._loop, self.config.peer)

    def sql(self) -> Postgres:
        """On the same machine."""
        return Sql(self._process.database, self._loop, self._process.disk)

    def own_connection(self) -> Postgres:
        """The same."""
        return self.sql()

    def primary(self, upstream: Upstream) -> Postgres:
        """The other side's."""
        del upstream
        other = self._process.database.other
        assert other is not None  # noqa: S101 - the hospital has two sides
        return Sql(other, self._loop)

    def inspection(self, database: RealDatabase, peer: AgentClient) -> Inspection:
        """What it would see of simulated damage."""
        return Eyes(database, peer, self._process.database)

    def lost_slot(self, database: RealDatabase) -> LostSlotKeeper:
        """What is lost is known without."""
        return NoSlot(database)

    def sightings(self, database: RealDatabase, peer: AgentClient) -> PrimarySightings:
        """For the record only."""
        return NoSightings(database, peer, NOWHERE)

    def rejoining(self, database: RealDatabase, *rest: Any) -> Rejoining:
        """With a look at what was lost that takes a moment."""
        return BackAgain(self._process.database, database, *rest)

    def recovering(self, database: RealDatabase, *rest: Any) -> Recovering:
        """Nobody orders one."""
        return NoRecovery(database, *rest)


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


class NoSlot(LostSlotKeeper):
    """No slot."""

    def __init__(self, database: RealDatabase) -> None:
        self.kept = None

    async def run(self) -> None:
        """Nothing to keep."""
        await _for_ever()

    def soon(self) -> None:
        """Nothing to make."""


class NoSightings(PrimarySightings):
    """Nothing is noted."""

    async def run(self) -> None:
        """Never."""
        await _for_ever()


class NoRecovery(Recovering):
    """Nothing was begun by an earlier life."""

    def _load(self) -> None:
        return None


class BackAgain(Rejoining):
    """The real way back; what it committed alone is read off the simulated database."""

    def __init__(self, mine: Database, database: RealDatabase, *rest: Any) -> None:
        super().__init__(database, *rest)
        self.kept = _Kept(NOWHERE)
        self._mine = mine

    async def sweep(self) -> None:
        """Nothing is left behind."""

    async def _look(self, upstream: Upstream) -> Lost | None:
        mine, other = self._mine, self._mine.other
        assert other is not None  # noqa: S101 - the hospital has two sides
        primary = self._database.around.primary(upstream)
        if await primary.in_recovery(deadline=2.0):
            raise TemporaryError("asking where we parted", "it is a standby", "Ask again")
        await asyncio.sleep(0.3)
        shared = next(
            (at for at, (a, b) in enumerate(zip(mine.rows, other.rows, strict=False)) if a != b),
            min(len(mine.rows), len(other.rows)),
        )
        if shared == len(mine.rows):
            return None
        alone = len(mine.rows) - shared
        return Lost(mine.instance, str(SYSTEM), shared, len(mine.rows), alone, 0.0)


class _Kept(Reconciliations):
    def all(self) -> list[Lost]:
        return []

    def write(self, lost: Lost) -> None:
        del lost
