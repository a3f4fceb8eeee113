"""How one call to PostgreSQL ends in time, and what its errors mean to a driver's callers. It asks nothing itself."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError

_T = TypeVar("_T")
_Connection = psycopg.AsyncConnection[Any]
_SEVERED_SECONDS = 1.0
_REFUSED = re.compile(
    r'FATAL: .*((role|database) ".*" does not exist|authentication failed|no pg_hba.conf entry)'
)
"""A server that refuses us while connecting says so in words only: psycopg has no code for it."""


async def severable(connection: _Connection, call: Callable[[_Connection], Awaitable[_T]]) -> _T:
    """Run `call`, and on cancellation make it end, also when the server is frozen.

    psycopg waits for the server to confirm a cancelled query; a stopped server never does. And a socket that was
    closed under a waiting call would leave its number registered with the event loop for the next one to trip on.
    """
    task = asyncio.ensure_future(call(connection))
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        sever(connection)
        await asyncio.wait({task}, timeout=_SEVERED_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()
        raise
    return task.result()


def sever(connection: _Connection) -> None:
    """End the conversation without closing the socket: who waits on it sees its end."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


def translate(what: str, error: BaseException, *, unknown: bool, deadline: float) -> DriverError:
    """What `error` means: whether the same call may be made again, or the answer alone was lost (`unknown`: it may have changed something)."""
    found = str(error).strip().replace("\n", "; ") or type(error).__name__
    if isinstance(error, TimeoutError):
        found = f"no answer within {deadline:g} s"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or "recovery is in progress" in found:
        return TemporaryError(
            what, "it is a standby, or read-only", "Ask the primary, or promote through its agent"
        )
    if isinstance(error, psycopg.errors.CannotConnectNow | psycopg.errors.TooManyConnections):
        return TemporaryError(what, found, "Wait until it takes connections, then try again")
    if isinstance(error, psycopg.OperationalError) and _REFUSED.search(found):
        return PermanentError(
            what, found, "Check user, password and database in the playbook, and pg_hba.conf"
        )
    if isinstance(error, psycopg.OperationalError | OSError | TimeoutError):
        if unknown:
            return OutcomeUnknownError(what, found, "Look whether it took effect before trying again")
        return TemporaryError(what, found, "Check that the server is up and reachable, then try again")
    return PermanentError(what, found, "Read what the server says; trying again the same way cannot help")
