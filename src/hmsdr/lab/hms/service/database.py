"""A service's few connections to the primary: deadlines on everything, and a request is held while there is no primary.

The connection that watches the primary is used first: a pod at rest costs the server one session, and a held request needs no new one.

Statements must be repeatable: written twice they change what once does (each insert has its id from the client). What is known
not to have been committed is sent again until the deadline; what may have been committed is sent again once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors

from hmsdr.lab.hms.service.connecting import (
    CONNECT_SECONDS,
    STATEMENT_SECONDS,
    Connection,
    DatabaseDownError,
    Rows,
    ask,
    connect,
    judge,
    why_not,
)
from hmsdr.lab.hms.service.looking import Place
from hmsdr.lab.hms.service.primary import Primary, Watcher

_AGAIN_SECONDS = 0.01
"""Less than this before the deadline nothing is begun again."""
_CLIENT_FAULTS = (errors.IntegrityError, errors.DataError)


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection in use; ``lender`` is the watcher whose it is."""

    connection: Connection
    place: Place
    lender: Watcher | None = None


class Pool:
    """At most `size` statements at once at the primary; of the connections made for them `keep` are kept."""

    def __init__(self, primary: Primary, *, size: int, keep: int) -> None:
        self._primary = primary
        self._slots = asyncio.Semaphore(size)
        self._keep = keep
        self._idle: list[_Held] = []
        primary.when_lost(self.close)

    async def run(
        self, query: str, values: Sequence[object] = (), *, deadline: float, patience: float | None = None
    ) -> Rows:
        """The rows of one repeatable statement, committed.

        Args:
            query: with ``%s`` for values.
            values: for the placeholders.
            deadline: seconds for all of it, waiting for a connection and for a primary included.
            patience: seconds to wait for a primary when there is none; None: until the deadline.

        Raises:
            DatabaseDownError: not done, or not known to be.
            psycopg.errors.IntegrityError, psycopg.errors.DataError: the values are the fault.
        """
        until = asyncio.get_running_loop().time() + deadline
        try:
            async with asyncio.timeout_at(until):
                await self._slots.acquire()
        except TimeoutError:
            down = DatabaseDownError("busy", f"no free connection within {deadline:g} s")
            raise (down if self._primary.known else self._primary.down()) from None
        try:
            return await self._run(query, values, until, patience)
        finally:
            self._slots.release()

    async def _run(self, query: str, values: Sequence[object], until: float, patience: float | None) -> Rows:
        loop = asyncio.get_running_loop()
        doubtful = False
        while True:
            place = await self._primary.place(
                until if patience is None else min(until, loop.time() + patience), wanted=patience is None
            )
            try:
                held = await self._take(place, until)
            except DatabaseDownError as down:
                self._primary.lost(place, down.found)
                if until - loop.time() < _AGAIN_SECONDS:
                    raise
                continue
            connection = held.connection
            try:
                rows = await ask(connection, query, values, min(STATEMENT_SECONDS, until - loop.time()))
            except _CLIENT_FAULTS:
                self._give(held)
                raise
            except psycopg.Error as error:
                verdict = judge(error, broken=connection.closed)
                if not verdict.lost:
                    self._give(held)
                    raise verdict.down from error
                _discard(held)
                self._primary.lost(place, verdict.down.found)
                if (doubtful and not verdict.unsent) or until - loop.time() < _AGAIN_SECONDS:
                    raise verdict.down from error
                doubtful = doubtful or not verdict.unsent
            except BaseException:
                _discard(held)  # cancelled in the middle: who knows what would come back on it
                raise
            else:
                self._give(held)
                return rows

    def close(self) -> None:
        """Close what is idle; connections in use are closed when they come back."""
        for held in self._idle:
            held.connection.pgconn.finish()
        self._idle.clear()

    async def _take(self, place: Place, until: float) -> _Held:
        """A connection to `place`.

        Raises:
            DatabaseDownError: none can be made.
        """
        while self._idle:
            held = self._idle.pop()
            if held.place == place and not held.connection.closed:
                return held
            held.connection.pgconn.finish()
        if (lent := self._primary.lend(place)) is not None:
            return _Held(lent[0], place, lent[1])
        seconds = min(CONNECT_SECONDS, until - asyncio.get_running_loop().time())
        try:
            connection, _ = await connect(
                self._primary.target, place.endpoint, self._primary.names, purpose="", deadline=seconds
            )
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise why_not(error) from error
        return _Held(connection, place)

    def _give(self, held: _Held) -> None:
        if held.lender is not None:
            held.lender.take_back()
        elif (
            held.place == self._primary.known and len(self._idle) < self._keep and not held.connection.closed
        ):
            self._idle.append(held)
        else:
            held.connection.pgconn.finish()


def _discard(held: _Held) -> None:
    held.connection.pgconn.finish()
    if held.lender is not None:
        held.lender.take_back()
