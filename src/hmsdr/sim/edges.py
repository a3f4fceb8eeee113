"""The agent's edges, simulated: server, SQL, guard, disk. Each is the real class with what touches the real world replaced.

A process that is dead reaches nothing: whatever of it is still being cleared away is cut off here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hmsdr.control.guarding import Guarding
from hmsdr.control.server import ControlData, PostgresServer
from hmsdr.control.state import AgentState, StateFile
from hmsdr.control.unprivileged import Unprivileged
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_questions import Lag, PostgresStatus
from hmsdr.errors import FailedError
from hmsdr.sim.database import Database
from hmsdr.sim.guard import Guard
from hmsdr.sim.loop import Life
from hmsdr.sim.process import asked
from hmsdr.sim.world import SILENCE

_T = TypeVar("_T")
_KILL_SECONDS = 0.05
_GUARD_SECONDS = 0.05
_CONTROL_SECONDS = 0.01
_POLL = 0.05
SYSTEM = 7000
"""The system identifier of both databases."""
NOWHERE = Path("/simulated")
THEN = datetime(2026, 1, 1, tzinfo=UTC)
"""Moments of the wall clock, which decides nothing."""


@dataclass
class Disk:
    """What an agent does not forget."""

    state: AgentState


class Memory(StateFile):
    """The agent's state file, on `disk`."""

    def __init__(self, disk: Disk, loop: Life, promised: Callable[[int], None]) -> None:
        self._disk, self._loop, self._promised = disk, loop, promised
        self.state = disk.state

    def change(self, **changes: Any) -> AgentState:
        """On disk before it returns, like the real one."""
        alive(self._loop)
        if changes.get("promise") is not None:
            self._promised(changes["promise"].epoch)
        self.state = self._disk.state = self.kept(replace(self.state, **changes))
        return self.state

    def kept(self, state: AgentState) -> AgentState:
        """What the disk has of it."""
        return state


class Server(PostgresServer):
    """The server of one data directory, as the agent of `loop` handles it."""

    def __init__(self, database: Database, loop: Life) -> None:
        super().__init__(NOWHERE / database.instance, NOWHERE, Unprivileged(), NOWHERE / "log")
        self.database, self._loop = database, loop

    @property
    def exists(self) -> bool:
        """There always is a data directory."""
        return True

    @property
    def version(self) -> int:
        """Its major version."""
        return 18

    def pid(self) -> int | None:
        """The postmaster's, while there is one."""
        return self.database.pid if self.database.launched else None

    def processes(self) -> dict[int, int]:
        """Postmaster and backends."""
        return dict.fromkeys(range(self.database.processes), 1)

    def own(self) -> None:
        """There are no users."""

    def clear_socket(self, sockets: Path | None, port: int) -> None:
        """There are no sockets."""

    def make_standby(self, *, durable: bool = True) -> None:
        """standby.signal is there (rule 6)."""
        del durable
        alive(self._loop)
        self.database.standby_signal = True

    def allow_writable(self) -> None:
        """It is not."""
        alive(self._loop)
        self.database.unsignal()

    async def left_standby(self, pause: float) -> None:
        """Told instead of looking all the time, and as late as who looks is at worst."""
        if self.database.standby_signal:
            gone: asyncio.Future[None] = self._loop.create_future()
            self.database.when_unsignalled.append(lambda: None if gone.done() else gone.set_result(None))
            await gone
        await asyncio.sleep(pause)

    async def start(self, *, writable: bool, settings: Mapping[str, str], deadline: float) -> None:
        """Start it, and wait until it takes connections."""
        doing = f"starting {self.database.instance}"
        if left := self.processes():
            raise FailedError(doing, f"{len(left)} processes of it still run", "Fence it first")
        alive(self._loop)
        if writable:
            self.allow_writable()
        else:
            self.make_standby()
        try:
            self.database.launch(follows=bool(settings["primary_conninfo"]))
            mine, ends = self.database.pid, self._loop.time() + deadline
            while self._loop.time() < ends:
                if not self.database.launched or self.database.pid != mine:
                    raise FailedError(doing, "it was killed", "Start it again")
                if self.database.running:
                    return
                await asyncio.sleep(_POLL)
            raise FailedError(doing, f"it does not take connections after {deadline:g} s", "Start it again")
        finally:
            if writable and not self._loop.over:
                self.make_standby()

    async def wait_exit(self, pid: int, deadline: float | None) -> bool:
        """Whether the postmaster ended in time."""
        if not self.database.launched or self.database.pid != pid:
            return True
        gone: asyncio.Future[None] = self._loop.create_future()
        self.database.when_gone.append(lambda: None if gone.done() else gone.set_result(None))
        try:
            async with asyncio.timeout(deadline):
                await gone
        except TimeoutError:
            return False
        return True

    async def stop_fast(self, deadline: float) -> bool:
        """Ask for a clean stop; whether it came in time."""
        alive(self._loop)
        pid = self.pid()
        if pid is None:
            return not self.processes()
        self.database.stop()
        return await self.wait_exit(pid, deadline)

    async def kill(self, seconds: float) -> tuple[int, int]:
        """Kill every process of it (rule 3)."""
        del seconds
        alive(self._loop)
        killed = self.database.processes
        self.kill_processes()
        await asyncio.sleep(_KILL_SECONDS)
        alive(self._loop)
        return killed, 0

    def kill_processes(self) -> None:
        """SIGKILL to each."""
        self.database.kill()

    async def control(self) -> ControlData:
        """What pg_controldata says."""
        await asyncio.sleep(_CONTROL_SECONDS)
        database = self.database
        return ControlData(
            database.state, SYSTEM, database.checkpoint, database.checkpoint, database.timeline
        )

    async def end_of_wal(self, start: int, timeline: int, segment: int = 0) -> int | None:
        """Where the WAL of the dead server ends."""
        del start, timeline, segment
        await asyncio.sleep(_CONTROL_SECONDS)
        return len(self.database.rows)

    async def tool(
        self,
        name: str,
        *arguments: str | Path,
        deadline: float = 0.0,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
        dies: bool = False,
    ) -> tuple[int, str, str]:
        """pg_rewind, and nothing else."""
        del arguments, deadline, given, environment, dies
        if name != "pg_rewind":
            raise FailedError(f"running {name}", "it is not simulated", "Simulate it")
        await asyncio.sleep(0.5)
        alive(self._loop)
        return (0, "", "") if self.database.rewind() else (1, "", "could not connect")

    def last_words(self, lines: int = 3) -> str:
        """Nothing is logged."""
        del lines
        return ""


class Sql(Postgres):
    """SQL at `database`: from its own machine at once, from elsewhere over the wires.

    Args:
        database: where.
        loop: of who asks.
        disk: that of the agent beside it, when that is who asks: the epoch that it promotes under.
    """

    def __init__(self, database: Database, loop: Life, disk: Disk | None = None) -> None:
        self._database, self._loop, self._disk = database, loop, disk

    async def close(self) -> None:
        """There are no connections."""

    async def connect(self, *, deadline: float) -> None:
        """Whether it can be reached."""
        await self._asked(lambda: True, deadline)

    async def in_recovery(self, *, deadline: float) -> bool:
        """Whether it is a standby."""
        return await self._asked(lambda: not self._database.primary, deadline)

    async def left_recovery(self, *, deadline: float) -> bool:
        """A simulated promotion takes no time, so there is nothing to wait for."""
        if await self._asked(lambda: self._database.primary, deadline):
            return True
        await asyncio.sleep(_CONTROL_SECONDS)
        return False

    async def replayed_lsn(self, *, deadline: float) -> int:
        """Rows are its WAL."""
        return await self._asked(lambda: len(self._database.rows), deadline)

    async def status(self, *, deadline: float) -> PostgresStatus:
        """What it says about itself."""
        database = self._database
        try:
            primary, lsn, timeline = await self._asked(
                lambda: (database.primary, len(database.rows), database.timeline), deadline
            )
        except TemporaryError as error:
            return PostgresStatus(reachable=False, found=error.found)
        return PostgresStatus(True, not primary, lsn, timeline, SYSTEM, database.instance, THEN)

    async def lag(self, *, deadline: float) -> Lag:
        """Whether it streams; what is on its way is small."""
        return Lag(await self._asked(lambda: self._database.streams, deadline), 0, 0.0, THEN)

    async def heartbeat(self, instance: str, *, deadline: float) -> datetime:
        """A write that proves that it takes writes; no row of the hospital's."""
        await self._asked(lambda: True, deadline)
        self._must_write("writing a heartbeat")
        return THEN

    async def claim_epoch(self, epoch: int, instance: str, *, deadline: float) -> None:
        """The first write under an epoch."""
        await self._asked(lambda: True, deadline)
        self._must_write("recording an epoch")
        self._database.write()

    async def write_marker(self, text: str, *, deadline: float) -> None:
        """A write."""
        await self.claim_epoch(0, text, deadline=deadline)

    async def create_physical_slot(self, name: str, *, deadline: float) -> bool:
        """All WAL is kept."""
        return await self._asked(lambda: False, deadline)

    async def checkpoint(self, *, deadline: float) -> None:
        """Nothing to flush."""
        await self._asked(lambda: True, deadline)

    async def promote_here(self, *, deadline: float) -> None:
        """Ask it to promote."""
        assert self._disk is not None  # noqa: S101 - only the agent beside it asks (rule 5)
        await self._asked(lambda: True, deadline)
        self._database.promote(self._disk.state.accepted_epoch)

    async def _asked(self, answer: Callable[[], _T], deadline: float) -> _T:
        alive(self._loop)
        database, doing = self._database, f"asking {self._database.instance}"
        if database.machine is self._loop.process.machine:
            if not database.running:
                raise TemporaryError(doing, "connection refused", "Start it")
            return answer()
        said = await asked(
            self._loop,
            database.machine.site,
            lambda: (answer(),) if database.running else () if database.machine.up else SILENCE,
            within=deadline,
        )
        if said is SILENCE:
            raise TemporaryError(doing, f"no answer within {deadline:g} s", "Ask again")
        if not said:
            raise TemporaryError(doing, "connection refused", "Start it")
        found: _T = said[0]
        return found

    def _must_write(self, doing: str) -> None:
        if not self._database.primary:
            raise TemporaryError(doing, "it is a standby, or read-only", "Ask the primary")


class Guarded(Guarding):
    """The agent's side of the simulated guard."""

    def __init__(self, guard: Guard, loop: Life) -> None:
        self.file = guard.file
        self._guard, self._loop = guard, loop

    @property
    def alive(self) -> bool:
        """Whether a guard of ours runs."""
        return self._guard.alive and self._guard.parent is self._loop

    async def ensure(self) -> None:
        """Have one on duty."""
        alive(self._loop)
        if self.alive:
            return
        generation = self.file.want_generation()
        await asyncio.sleep(_GUARD_SECONDS)
        alive(self._loop)
        self._guard.take_over(generation, self._loop, lambda: not self._loop.over)
        if not self.alive:
            raise FailedError("starting the guard", "it did not report", "Start it again")

    def publish(self, deadline: float | None) -> None:
        """Until when the database may live."""
        alive(self._loop)
        super().publish(deadline)

    def release(self) -> None:
        """Send it home."""
        self.publish(None)
        self._guard.kill()


def alive(loop: Life) -> None:
    """Go on only if the process lives.

    Raises:
        asyncio.CancelledError: it was killed.
    """
    if loop.over:
        raise asyncio.CancelledError
