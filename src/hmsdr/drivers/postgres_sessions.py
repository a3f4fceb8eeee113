"""PostgreSQL: sessions that hold a transaction, the kernel's word on their far ends, and the end of single ones.

It ends only the session that it was shown: the process's number together with its beginning. It reads no text of a query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from hmsdr.decide.deadpeers import Session, Socket, sockets
from hmsdr.drivers.postgres_calls import severable, translate
from hmsdr.playbook.topology import PostgresInstance

_T = TypeVar("_T")
_Connection = psycopg.AsyncConnection[Any]
_SESSIONS = """
SELECT pid, backend_start::text, application_name, host(client_addr), client_port, state,
       coalesce(wait_event_type || ':' || wait_event, ''),
       extract(epoch FROM clock_timestamp() - state_change)::float8
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND client_port > 0 AND xact_start IS NOT NULL
      AND (state LIKE 'idle in transaction%%' OR wait_event_type IN ('Client', 'Lock'))
      AND clock_timestamp() - state_change > make_interval(secs => %s)
ORDER BY pid
"""
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s"


async def stuck_sessions(
    instance: PostgresInstance, *, older: float, deadline: float
) -> tuple[tuple[Session, ...], Mapping[tuple[str, int], Socket] | None]:
    """Sessions from the network that wait within a transaction, `older` seconds or more; then the sockets of the server's machine.

    The sockets are None where the server's user may not read them, or its machine has no such table.

    Raises:
        DriverError: it does not answer.
    """

    async def look(
        connection: _Connection,
    ) -> tuple[tuple[Session, ...], Mapping[tuple[str, int], Socket] | None]:
        rows = await (await connection.execute(_SESSIONS, (older,))).fetchall()
        found, tables = tuple(Session(*row) for row in rows), []
        for path in _TABLES:
            # One that is not there has no sockets: a machine without IPv6.
            with suppress(psycopg.errors.UndefinedFile):
                row = await (await connection.execute("SELECT pg_read_file(%s)", (path,))).fetchone()
                tables.append(str(row[0]) if row is not None else "")
        return found, sockets(*tables)

    async def permitted(
        connection: _Connection,
    ) -> tuple[tuple[Session, ...], Mapping[tuple[str, int], Socket] | None]:
        try:
            return await look(connection)
        except psycopg.errors.InsufficientPrivilege:
            rows = await (await connection.execute(_SESSIONS, (older,))).fetchall()
            return tuple(Session(*row) for row in rows), None

    return await _asked(instance, f"reading the sessions of {instance.instance}", permitted, deadline)


async def end_sessions(
    instance: PostgresInstance, sessions: Sequence[Session], *, deadline: float
) -> tuple[int, ...]:
    """End these, each only while it is the one that was shown; the pids of those that were told to end.

    Raises:
        DriverError: it does not answer.
    """

    async def end(connection: _Connection) -> tuple[int, ...]:
        told = []
        for session in sessions:
            row = await (await connection.execute(_END, (session.pid, session.began))).fetchone()
            if row is not None and row[0]:
                told.append(session.pid)
        return tuple(told)

    return await _asked(instance, f"ending sessions of {instance.instance}", end, deadline)


async def _asked(
    instance: PostgresInstance, doing: str, call: Callable[[_Connection], Awaitable[_T]], deadline: float
) -> _T:
    """`call` on a connection of its own; what goes wrong is said in our words."""
    password = instance.password
    try:
        async with asyncio.timeout(deadline):
            connection = await psycopg.AsyncConnection.connect(
                host=instance.host,
                port=instance.port,
                dbname=instance.database,
                user=instance.user,
                password=password.get_secret_value() if password is not None else None,
                autocommit=True,
                application_name="hmsdr",
                connect_timeout=10,
            )
            try:
                return await severable(connection, call)
            finally:
                with suppress(psycopg.Error, OSError):
                    await connection.close()
    except (psycopg.Error, OSError, TimeoutError) as error:
        # Ending one twice does nothing: it may be tried again.
        raise translate(doing, error, unknown=False, deadline=deadline) from error
