"""The one runner's place of a hospital: whoever has it may carry runs out, nobody else (FM-3, FA-5).

On one machine it is a lock on the store's file, which the kernel gives back with the process. Across sites it is the lead: a
record with a beat, whose term is the log's; whoever takes it ends the right of whoever had it before to append. It decides no
failover.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from hmsdr.decide.leadership import (
    NOBODY,
    Leadership,
    Sighting,
    beaten,
    resigned,
    taken,
    vacant,
    watched,
)
from hmsdr.errors import RefusedError
from hmsdr.log.store import Council, Store, StoreError
from hmsdr.playbook.model import Playbook

PATIENCE_SHARE = 0.75
"""Of the lease of the right to write: without a sign of the leader for so long, another one takes the lead."""
_BEATS = 6
"""Within that time."""
_LOOK_SECONDS = 0.1
_TAKES = 10
"""So often the lead is tried for: losing against a beat each time would take a store slower than the beats."""


class LeadLostError(StoreError):
    """Somebody else leads, or nobody could be told that we still do: stop acting."""


class Lead:
    """The lead of one process.

    Args:
        council: where who leads is settled.
        name: who it is, unique to this process: ``controller us-east-1/4f2a``.
        patience: seconds without a beat after which another one may take it.
    """

    def __init__(self, council: Council, name: str, patience: float) -> None:
        self.name = name
        self.patience = patience
        self.record: Leadership | None = None
        """While we lead, as settled last."""
        self._council = council

    @property
    def term(self) -> int:
        """The term of ours."""
        assert self.record is not None  # noqa: S101 - asked by who leads
        return self.record.term

    async def take(self, seen: Leadership) -> bool:
        """Take the lead from what was seen; False when it has changed since."""
        new = taken(seen, self.name)
        if not await self._council.settle(seen, new):
            return False
        self.record = new
        return True

    async def keep(self) -> None:
        """Beat until it is lost.

        Raises:
            LeadLostError: always, at the end.
        """
        clock = asyncio.get_running_loop().time
        confirmed = clock()
        while True:
            await asyncio.sleep(self.patience / _BEATS)
            assert self.record is not None  # noqa: S101 - taken before
            next_ = beaten(self.record)
            asked, done = clock(), None
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self.patience / 2):
                    done = await self._council.settle(self.record, next_)
                    if not done:
                        done = (
                            await self._council.leadership() == next_
                        )  # an unclear answer was one after all
            if done is False:
                self.record = None
                raise LeadLostError("leading", "another one has taken the lead", "Nothing: it goes on there")
            if done:
                self.record, confirmed = next_, asked
            elif clock() - confirmed > self.patience:
                self.record = None
                raise LeadLostError(
                    "leading",
                    f"the store took no beat for {self.patience:g} s",
                    "Another one takes the lead when the store answers",
                )

    async def resign(self) -> None:
        """Give it back, so that nobody has to wait; what cannot be given back runs out."""
        record, self.record = self.record, None
        if record is not None:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(self.patience / 2):
                    await self._council.settle(record, resigned(record))


def patience(playbook: Playbook) -> float:
    """Seconds without a sign of the leader after which another one takes the lead."""
    return playbook.database.lease.total_seconds() * PATIENCE_SHARE


async def alive(council: Council, seconds: float) -> bool:
    """Whether somebody leads and beats, watched for at most `seconds`."""
    clock = asyncio.get_running_loop().time
    seen: Sighting | None = None
    while True:
        before, seen = seen, watched(seen, await council.leadership(), clock())
        if seen.record.leader == NOBODY or vacant(seen, clock(), seconds):
            return False
        if before is not None and seen != before:
            return True
        await asyncio.sleep(_LOOK_SECONDS)


async def refused_by(lead: Lead, council: Council, *, unfinished: bool) -> str | None:
    """Take the place; gives who is at work there, None when it is ours.

    A controller that leads and carries nothing out gives way. It beats several times a second, so that one may come between
    looking and taking: then it is looked again, at once and not without end.
    """
    seen = Leadership()
    for _ in range(_TAKES):
        seen = await council.leadership()
        busy = unfinished or seen.leader.startswith("operator ")
        if busy:
            if await alive(council, lead.patience):
                break
            gone, seen = seen, await council.leadership()
            if seen.leader not in (gone.leader, NOBODY):
                continue  # somebody else came meanwhile
        if await lead.take(seen):
            return None
    return seen.leader or "somebody"


@contextlib.asynccontextmanager
async def runners_place(playbook: Playbook, store: Store, *, unfinished: bool) -> AsyncIterator[int | None]:
    """Hold the place; gives the term to write under, None when a runner begins one of its own.

    Args:
        playbook: the hospital's.
        store: its store.
        unfinished: whether the log has a run that is not ended: then nobody who is alive is disturbed.

    Raises:
        RefusedError: another runner is at work.
        LeadLostError: another one took the lead meanwhile.
    """
    if playbook.store.kind == "sqlite":
        with only_runner(Path(playbook.store.path)):
            yield None
        return
    lead = Lead(store, f"operator {socket.gethostname()}/{os.getpid()}", patience(playbook))
    refused = await refused_by(lead, store, unfinished=unfinished)
    if refused is not None:
        raise RefusedError("starting a run", f"{refused} is at work", "`hmsdr run list` shows at what")
    try:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(lead.keep())
            yield lead.term
            keeping.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        await lead.resign()


@contextlib.contextmanager
def only_runner(store: Path) -> Iterator[None]:
    """Hold the one runner's place of this file; the kernel gives it up with the process.

    Raises:
        RefusedError: another runner is at work.
    """
    path = store.with_suffix(".runner.lock")
    try:
        lock: IO[str] = path.open("a")
    except OSError as error:
        raise RefusedError(
            f"locking {path}", error.strerror or str(error), "The directory of the store must be writable"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                "starting a run", "another run is under way on this store", "`hmsdr run list` shows it"
            ) from None
        yield
    finally:
        lock.close()


async def is_run(playbook: Playbook, store: Store) -> bool:
    """Whether a runner is at work; a run that is not ended and has none waits to be resumed."""
    if playbook.store.kind != "sqlite":
        return (await store.leadership()).leader != NOBODY
    path = Path(playbook.store.path).with_suffix(".runner.lock")
    try:
        lock = path.open()  # to look, nothing need be written: the disk may be one that takes nothing
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
