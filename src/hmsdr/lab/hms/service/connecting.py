"""How a service reaches one database: a connection and a question with a deadline each, and what an error means.

It knows one server at a time; which of several takes writes is `primary`'s to find. Nothing here tries anything again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from hmsdr.lab.hms.names import Names, UnresolvedError
from hmsdr.lab.layout import Endpoint

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]

CONNECT_SECONDS = 1.0
STATEMENT_SECONDS = 2.0
_SOCKET_MILLISECONDS = 2000
_OPTIONS = (
    f"-c statement_timeout={int(STATEMENT_SECONDS * 1000)} -c lock_timeout=1000 "
    "-c synchronous_commit=on -c idle_in_transaction_session_timeout=5000"
)
_NOT_DONE = (errors.AdminShutdown, errors.CannotConnectNow)
"""The server said so itself before it closed: what was sent is not committed."""


class DatabaseDownError(Exception):
    """The database cannot do what was asked now. ``kind`` is a word for the metrics, ``found`` for people."""

    def __init__(self, kind: str, found: str) -> None:
        super().__init__(found)
        self.kind = kind
        self.found = found


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask as whom; the first of ``endpoints`` is where the database should be, all may become the primary."""

    endpoints: tuple[Endpoint, ...]
    database: str
    user: str
    application: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error of a statement means.

    ``lost``: neither this connection nor others like it are of any use. ``unsent``: it is known that nothing was committed.
    """

    down: DatabaseDownError
    lost: bool = False
    unsent: bool = False


async def connect(
    target: Target, endpoint: Endpoint, names: Names, *, purpose: str, deadline: float
) -> tuple[Connection, str]:
    """A connection to `endpoint`, and the address that its name led to.

    Args:
        target: whom to connect as.
        endpoint: a name or an address.
        names: resolver.
        purpose: what PostgreSQL shows beside the pod's name.
        deadline: seconds for name and connection together.

    Raises:
        psycopg.Error, OSError, TimeoutError: there is none.
    """
    async with asyncio.timeout(deadline):
        address = await names.address(endpoint.host, deadline=deadline)
        connection = await psycopg.AsyncConnection.connect(
            host=endpoint.host,
            hostaddr=address,
            port=endpoint.port,
            dbname=target.database,
            user=target.user,
            application_name=f"{target.application}{purpose}",
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
    return connection, address


async def ask(connection: Connection, query: str, values: Sequence[object], seconds: float) -> Rows:
    """Execute it, and cut the connection when the time is over.

    Cancelling would make the client library ask the server to cancel, over a new connection, and wait for it: that
    has no bound when the server's machine is gone. A socket that is shut down answers at once.

    Raises:
        psycopg.Error: it failed, or its time was over.
    """
    cut = asyncio.get_running_loop().call_later(max(seconds, 0.001), _shut, connection.fileno())
    try:
        cursor = await connection.execute(query.encode(), values or None)
        return await cursor.fetchall() if cursor.description else []
    finally:
        cut.cancel()


def judge(error: psycopg.Error, *, broken: bool) -> Verdict:
    """What an error of a statement means; `broken`: its connection is closed."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Verdict(DatabaseDownError("read_only", "the database is read-only: a standby"), True, True)
    if isinstance(error, errors.QueryCanceled | errors.LockNotAvailable):
        return Verdict(DatabaseDownError("timeout", said(error)))
    if isinstance(error, _NOT_DONE):
        return Verdict(DatabaseDownError("lost", said(error)), True, True)
    if broken or isinstance(error, errors.CrashShutdown | errors.DatabaseDropped):
        return Verdict(DatabaseDownError("lost", said(error)), True)
    if isinstance(error, errors.UndefinedTable | errors.InsufficientPrivilege):
        return Verdict(DatabaseDownError("schema", said(error)))
    return Verdict(DatabaseDownError("error", said(error)))


def why_not(error: BaseException) -> DatabaseDownError:
    """Why there is no connection."""
    kind = "resolve" if isinstance(error, UnresolvedError) else "connect"
    return DatabaseDownError(kind, said(error) or f"no answer within {CONNECT_SECONDS:g} s")


def said(error: BaseException) -> str:
    """The first line of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else ""


def _shut(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_RDWR)
