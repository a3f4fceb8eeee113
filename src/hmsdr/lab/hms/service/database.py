"""A service's few connections to PostgreSQL: deadlines on everything, and a failover noticed at the first error.

A connection that breaks, or turns out to lead to a standby, takes all others of its pool with it, and the name is
resolved again at once. Queries must be idempotent: one whose connection broke is sent once more.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from hmsdr.lab.hms.names import Names, UnresolvedError
from hmsdr.lab.layout import Endpoint

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_Rows = list[tuple[Any, ...]]

CONNECT_SECONDS = 1.0
STATEMENT_SECONDS = 2.0
_SOCKET_MILLISECONDS = 2000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
_OPTIONS = (
    f"-c statement_timeout={int(STATEMENT_SECONDS * 1000)} -c lock_timeout=1000 "
    "-c synchronous_commit=on -c idle_in_transaction_session_timeout=5000"
)
_SHUTTING = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.DatabaseDropped)
_CLIENT_FAULTS = (errors.IntegrityError, errors.DataError)


class DatabaseDownError(Exception):
    """The database cannot do what was asked now. ``kind`` is a word for the metrics, ``found`` for people."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(found)
        self.kind = kind
        self.found = found


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, as whom."""

    endpoint: Endpoint
    database: str
    user: str
    application: str


class Pool:
    """At most `size` connections to one target; `note` is told about changes worth a line in the log."""

    def __init__(self, target: Target, names: Names, *, size: int, note: Callable[[str], None]) -> None:
        self._target = target
        self._names = names
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Connection] = []
        self._generation = 0
        self._note = note
        self._said = ""
        self.address: str | None = None
        """Where it last connected to."""

    async def run(
        self, query: str, values: Sequence[object] = (), *, deadline: float, insist: bool = True
    ) -> _Rows:
        """The rows of one idempotent statement, committed.

        Args:
            query: with ``%s`` for values.
            values: for the placeholders.
            deadline: seconds for all of it, waiting for a connection included.
            insist: try to connect again until the deadline; otherwise once.

        Raises:
            DatabaseDownError: not done, or not known to be.
            psycopg.errors.IntegrityError, psycopg.errors.DataError: the values are the fault.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        try:
            async with asyncio.timeout_at(until):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseDownError("busy", f"no free connection within {deadline:g} s") from None
        try:
            while True:
                connection, fresh, generation = await self._take(until, insist=insist)
                try:
                    rows = await _ask(connection, query, values, min(STATEMENT_SECONDS, until - loop.time()))
                except _CLIENT_FAULTS:
                    self._give(connection, generation)
                    raise
                except psycopg.Error as error:
                    down, lost = _judge(error, broken=connection.closed)
                    if not lost:
                        self._give(connection, generation)
                        raise down from error
                    self._drop(connection, generation, down)
                    if fresh or until - loop.time() < _FIRST_PAUSE:
                        raise down from error
                else:
                    self._give(connection, generation)
                    return rows
        finally:
            self._slots.release()

    async def warm(self) -> None:
        """Open a connection ahead of need; failing is no harm."""
        with suppress(DatabaseDownError):
            await self.run("SELECT 1", deadline=CONNECT_SECONDS, insist=False)

    def close(self) -> None:
        """Close what is idle; connections in use are closed when they come back."""
        self._generation += 1
        for connection in self._idle:
            connection.pgconn.finish()
        self._idle.clear()

    async def _take(self, until: float, *, insist: bool) -> tuple[_Connection, bool, int]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection, False, self._generation
        pause = _FIRST_PAUSE
        while True:
            generation = self._generation
            try:
                return await self._connect(until), True, generation
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._names.forget(self._target.endpoint.host)
                found = _text(error) or f"no answer within {CONNECT_SECONDS:g} s"
                self._say(f"database {self._target.endpoint}: {found}")
                late = asyncio.get_running_loop().time() + pause >= until
                if not insist or late or _hopeless(error):
                    kind = "resolve" if isinstance(error, UnresolvedError) else "connect"
                    raise DatabaseDownError(kind, found) from error
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the herd, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _connect(self, until: float) -> _Connection:
        remaining = min(CONNECT_SECONDS, until - asyncio.get_running_loop().time())
        host = self._target.endpoint.host
        async with asyncio.timeout(remaining):
            address = await self._names.address(host, deadline=remaining)
            connection = await psycopg.AsyncConnection.connect(
                host=host,
                hostaddr=address,
                port=self._target.endpoint.port,
                dbname=self._target.database,
                user=self._target.user,
                application_name=self._target.application,
                options=_OPTIONS,
                autocommit=True,
                connect_timeout=2,
                tcp_user_timeout=_SOCKET_MILLISECONDS,
                keepalives=1,
                keepalives_idle=1,
                keepalives_interval=1,
                keepalives_count=2,
                # The lab trusts its loopback; a refused TLS offer would cost a round trip for each connection.
                sslmode="disable",
                gssencmode="disable",
            )
        self.address = address
        self._say(f"database {self._target.endpoint}: connected to {address}")
        return connection

    def _give(self, connection: _Connection, generation: int) -> None:
        if generation == self._generation and not connection.closed:
            self._idle.append(connection)
        else:
            connection.pgconn.finish()

    def _drop(self, connection: _Connection, generation: int, down: DatabaseDownError) -> None:
        """This connection is no good; all that are as old as it are not either."""
        connection.pgconn.finish()
        if generation == self._generation:
            self.close()
            self._names.forget(self._target.endpoint.host)
            self._say(f"database {self._target.endpoint}: {down.kind}: {down.found}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._note(text)


async def _ask(connection: _Connection, query: str, values: Sequence[object], seconds: float) -> _Rows:
    """Execute it, and cut the connection when the time is over.

    Cancelling would make the client library ask the server to cancel, over a new connection, and wait for it: that
    has no bound when the server's machine is gone. A socket that is shut down answers at once.
    """
    cut = asyncio.get_running_loop().call_later(max(seconds, 0.001), _shut, connection.fileno())
    try:
        cursor = await connection.execute(query.encode(), values or None)
        return await cursor.fetchall()
    finally:
        cut.cancel()


def _shut(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)


def _judge(error: psycopg.Error, *, broken: bool) -> tuple[DatabaseDownError, bool]:
    """What an error means, and whether the connections are lost with it."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseDownError("read_only", "the database is read-only: a standby"), True
    if isinstance(error, errors.QueryCanceled | errors.LockNotAvailable):
        return DatabaseDownError("timeout", _text(error)), False
    if broken or isinstance(error, _SHUTTING):
        return DatabaseDownError("lost", _text(error)), True
    if isinstance(error, errors.UndefinedTable | errors.InsufficientPrivilege):
        return DatabaseDownError("schema", _text(error)), False
    return DatabaseDownError("error", _text(error)), False


def _hopeless(error: BaseException) -> bool:
    """Whether the server answered that it will not have us: trying again within a request cannot help."""
    return isinstance(error, psycopg.OperationalError) and "does not exist" in str(error)


def _text(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else ""
