"""The way back of an old primary: what it committed alone is found out first, then it follows. One order at a time.

The database stays stopped meanwhile, without the agent's lock: a copy takes time, and an order to promote must not wait for
it. Such an order ends the search at once. What was lost is told in the log, when the store answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from hmsdr.control import follow as following
from hmsdr.control.database import Database
from hmsdr.control.follow import Word
from hmsdr.control.isolated import Isolated
from hmsdr.control.logs import log
from hmsdr.control.lost import Lost, Reconciliations
from hmsdr.control.reckoning import reckon
from hmsdr.control.state import Upstream
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import FailedError, RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog, StoreError

LOST = "writes.lost"
"""The event: its subject is the region, its data a `Lost`."""
SEARCHING = "what it committed alone is being looked for, before it follows"
_TELL_AGAIN = 5.0


class Rejoining:
    """The way back of one database.

    Args:
        database: what is led back.
        lock: the agent's, over everything that is done to it.
        wake: has the agent look at what may run.
        spawn: has the agent do something that nobody waits for.
        journal: where losses are told; None where there is no log.
    """

    def __init__(
        self,
        database: Database,
        lock: asyncio.Lock,
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        journal: EventLog | None,
    ) -> None:
        self.kept = Reconciliations(database.config.state_directory / "reconciliation")
        self._database = database
        self._lock = lock
        self._wake = wake
        self._spawn = spawn
        self._journal = journal
        self._one = asyncio.Lock()
        self._search: asyncio.Task[Lost | None] | None = None

    async def sweep(self) -> None:
        """Remove what a crash left: a copy with its process, a file that was not finished."""
        async with self._one:
            await Isolated(self._database.server, self._database.config.state_directory).sweep()
            await asyncio.to_thread(self.kept.sweep)

    async def end_search(self) -> bool:
        """Stop looking, at once: something more urgent is to be done with the database. Whether it was looking."""
        search = self._search
        if search is None:
            return False
        search.cancel()
        await asyncio.wait({search})
        return True

    async def follow(
        self, epoch: int, upstream: Upstream, word: Word | None, *, may_rewind: bool = True
    ) -> dict[str, Any]:
        """Make the database a standby of `upstream`, see `hmsdr.control.follow`."""
        async with self._one:
            async with self._lock:
                if (done := await following.follows_already(self._database, epoch, upstream)) is not None:
                    self._database.held = ""
                    return done
                held = await self._begin(upstream)
            try:
                reckoned, lost = await self._searched()
                async with self._lock:
                    if (done := await following.follows_already(self._database, epoch, upstream)) is not None:
                        return done
                    lost = following.settled(self._database, upstream, lost, word)
                    if lost is not None and not lost.complete:
                        self.kept.write(lost)
                    self._database.held = ""
                    return await following.follow(
                        self._database,
                        epoch,
                        upstream,
                        reckoned=reckoned,
                        lost=lost,
                        may_rewind=may_rewind,
                    )
            finally:
                self._end(held)

    @asynccontextmanager
    async def put_aside(self, epoch: int, upstream: Upstream, why: str) -> AsyncIterator[Lost | None]:
        """The database stopped and kept so, because of `why`; what it committed alone is found out as far as its files tell.

        Raises:
            RefusedError: it may write now, the order is of an older epoch, or an order to promote came in between.
        """
        async with self._one:
            async with self._lock:
                following.refuse(self._database, epoch, upstream)
                held = await self._begin(upstream)
            try:
                lost = None
                if self._database.server.exists and not self._database.memory.state.rewinding:
                    with suppress(FailedError):  # its files do not tell: they are kept as they are
                        _, lost = await self._searched()
                self._database.held = why
                yield lost
            finally:
                if self._database.held == why:
                    self._database.held = held
                self._end(held)

    async def reconcile(self, epoch: int, upstream: Upstream) -> Lost | None:
        """Only find out what it committed that `upstream` never saw; None when they did not part.

        Raises:
            RefusedError: it may write now, or the order is of an older epoch.
            TemporaryError: the new primary does not answer.
        """
        async with self._one:
            async with self._lock:
                if await following.follows_already(self._database, epoch, upstream) is not None:
                    return None
                held = await self._begin(upstream)
            try:
                reckoned, lost = await self._searched()
            finally:
                self._end(held)
            if not reckoned:
                raise TemporaryError(
                    f"asking {upstream.host}:{upstream.port} where it parted from us",
                    "it does not answer as a primary",
                    "Give the order again when it is back",
                )
            return lost

    async def _begin(self, upstream: Upstream) -> str:
        """Stop the database, and look; gives why it was kept stopped before. The caller holds the lock."""
        before = self._database.held
        await self._database.stop(self._database.config.stop_deadline)
        self._database.held = SEARCHING
        self._search = asyncio.create_task(self._look(upstream))
        return before

    def _end(self, held: str) -> None:
        """It may run again, unless somebody else has a reason why not."""
        if self._search is not None:
            self._search.cancel()
            self._search = None
        if self._database.held == SEARCHING:
            self._database.held = held
        self._wake()

    async def _look(self, upstream: Upstream) -> Lost | None:
        if self._database.memory.state.rewinding:
            return None  # before a rewind begins all of it is settled; now its files are of two histories
        return await reckon(self._database, self.kept, upstream)

    async def _searched(self) -> tuple[bool, Lost | None]:
        """Whether what it committed alone was looked for, and what was found.

        Raises:
            RefusedError: an order to promote came in between.
        """
        search = self._search
        assert search is not None  # noqa: S101 - just begun
        await asyncio.wait({search})
        if search.cancelled():
            raise RefusedError(
                f"looking for what {self._database.config.instance.instance} committed alone",
                "it was ended for an order to promote",
                "Look at `hmsdr authority show`; give the order again if it still holds",
            )
        try:
            lost = search.result()
        except TemporaryError:
            return False, None  # the new primary is silent: then nothing is rewound either
        if lost is not None and not lost.nothing:
            self._spawn(self.tell())
        return True, lost

    async def tell(self) -> None:
        """Have every loss in the log once; tries until the store takes it."""
        journal = self._journal
        if journal is None:
            return
        region = self._database.config.region
        while True:
            try:
                for lost in await asyncio.to_thread(self.kept.all):
                    untold = partial(_untold, journal, region, lost)
                    if await untold():
                        await append_after(journal, untold, doing="telling what was lost")
            except (StoreError, OSError) as error:
                log("lost.not_told", level="warning", found=str(error))
                await asyncio.sleep(_TELL_AGAIN)
            else:
                return


async def _untold(journal: EventLog, region: str, lost: Lost) -> list[NewEvent]:
    data = event_data(lost)
    told = [event.data for event in await journal.read(subject=region) if event.kind == LOST]
    return [] if data in told else [NewEvent(LOST, region, f"agent of {region}", data)]


def event_data(lost: Lost) -> dict[str, Any]:
    """Counts, places and the file's name and digest: nothing of what is in it."""
    ends = None if lost.ends is None else format_lsn(lost.ends)
    return {**lost.as_json(), "fork": format_lsn(lost.fork), "ends": ends}
