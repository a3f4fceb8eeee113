"""The agent looks for damage at its database: reads its log, asks its counters, runs pg_amcheck when it is due or wanted.

It tells and orders nothing. A standby whose primary is damaged checks itself as soon as it has replayed what may be spoilt, so that
a failover need not wait for the next scheduled check.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hmsdr.control.amcheck import Checked, amcheck
from hmsdr.control.damage import DamageBook
from hmsdr.control.database import Database, Role
from hmsdr.control.logs import log
from hmsdr.decide.soundness import Health, needs_check
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import health_of
from hmsdr.drivers.errors import DriverError

_LOOK_SECONDS = 1.0
_ASK_SECONDS = 1.0
_EVERY_LOOKS = 3
"""Looks at the log for each question to the database and to the peer."""
_LEAST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""Between two checks, whoever wants them; longer after one that could not be completed, or took long."""
_REST = 4
"""Times as long as the last check took, nobody checks again but by the schedule."""


class Inspection:
    """The agent's eyes for damage.

    Args:
        database: which it keeps.
        peer: the other region's agent.
    """

    def __init__(self, database: Database, peer: AgentClient) -> None:
        config = database.config
        self.database = database
        self._peer = peer
        self._every, self.at_most = config.check_every, config.check_at_most
        self.book = DamageBook(
            config.state_directory / "damage.json",
            config.state_directory / "postgres.log",
            config.data_directory,
        )
        self._checking: asyncio.Task[None] | None = None
        self._begun = time.monotonic()
        """When the last check of this life ended, or this life began."""
        self._pause = _LEAST_PAUSE
        self._suspicion = 0
        """Signs of which the last check knew: new ones want another."""
        self._primary: Health | None = None
        """What the primary's agent told last, when we are a standby."""

    async def run(self) -> None:
        """Look, for ever."""
        looks = 0
        try:
            while True:
                # A disk that cannot be read ends no agent: the database says so itself.
                with suppress(OSError):
                    await self._look(ask=looks % _EVERY_LOOKS == 0)
                looks += 1
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self.give_way()

    async def give_way(self) -> None:
        """End the check that is under way: its questions would keep a standby from replaying its last WAL."""
        if self._checking is not None and not self._checking.done():
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    async def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done in the place of a check: it gives way as one does, and none runs beside it."""
        await self.give_way()
        self._checking = asyncio.create_task(work)

    async def _look(self, *, ask: bool) -> None:
        lsn = self.database.meter.last.lsn
        self.book.look_at_data(lsn)
        self.book.read_log(lsn)
        if ask and self.database.role is not Role.STOPPED:
            await self._ask(lsn)
        if self._due():
            self._checking = asyncio.create_task(self._check())

    def told(self) -> dict[str, Any]:
        """What the agent's status says of damage; what its log says by now included."""
        with suppress(OSError):
            self.book.read_log(self.database.meter.last.lsn)
        return {**self.book.as_json(), "checking": self._checking is not None and not self._checking.done()}

    def _health(self) -> Health:
        return health_of(self.book.as_json(), self.database.meter.last.timeline)

    async def _ask(self, lsn: int | None) -> None:
        with suppress(DriverError):
            counted = await self.database.sql.integrity(deadline=_ASK_SECONDS)
            self.book.count(counted.checksum_failures, lsn)
        if self.database.role is Role.STANDBY:
            with suppress(DriverError):
                status = await self._peer.status(deadline=_ASK_SECONDS)
                self._primary = status.health
        else:
            self._primary = None

    def _due(self) -> bool:
        busy = self._checking is not None and not self._checking.done()
        if busy or self.database.role is Role.STOPPED or self.database.server.pid() is None:
            return False
        since = time.monotonic() - self._begun
        if since < min(self._pause, self._every):
            return False
        wanted = len(self.book.signs) > self._suspicion or needs_check(
            self._health(), self.database.meter.last.lsn, self._primary
        )
        return wanted or since >= self._every

    async def _check(self) -> None:
        """Once, and again when something was found: what is not found twice is not believed."""
        database = self.database
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        lsn, timeline = database.meter.last.lsn, database.meter.last.timeline
        before, complete = time.monotonic(), False
        try:
            first = await self._once()
            second = await self._once() if first.found else first
            found = {each: words for each, words in second.found.items() if each in first.found}
            complete = second.complete
            for (kind, where), words in found.items():
                self.book.note(kind, where, words, database.meter.last.lsn)
            if found:
                self.book.unchecked(
                    f"damage in {', '.join(sorted(where for _, where in found))}",
                    # What only one of the two runs found is not believed, and not disproved either.
                    whole=complete and first.complete and set(first.found) == set(second.found),
                )
            elif complete and not second.found:
                self.book.checked(began=began, lsn=lsn, timeline=timeline)
            else:
                self.book.unchecked(f"not complete: {second.why or 'two runs differ'}")
            log("check.ended", found=len(found), complete=complete, why=second.why)
        finally:
            self._suspicion = len(self.book.signs)
            self._begun = time.monotonic()
            again = _LEAST_PAUSE if complete else 2 * self._pause
            self._pause = min(_LONGEST_PAUSE, max(again, _REST * (self._begun - before)))

    async def _once(self) -> Checked:
        database = self.database
        return await amcheck(
            database.config,
            database.server,
            database.sql,
            primary=database.role is Role.PRIMARY,
            deadline=self.at_most,
        )
