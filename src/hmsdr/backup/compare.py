"""Whether a restored database says the same as the running one: rows counted and added up, at one and the same LSN.

The running side is read on the standby, inside one snapshot and one table after the other, so that the primary is not disturbed.
What is compared is text, row by row, added up without order: memory stays small however large a table is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import FailedError
from hmsdr.playbook.topology import PostgresInstance

Connection = psycopg.AsyncConnection[Any]
_TRIES = 500
_PAUSE_SECONDS = 0.005
_REPLAYED = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint"
_TABLES = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
    "AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1, 2"
)


@dataclass(frozen=True, slots=True)
class Sum:
    """A table as a number: how many rows, and the sum of their hashes (text, as it is a large number)."""

    rows: int
    sum: str


@dataclass(frozen=True, slots=True)
class Source:
    """What the running database says at `lsn` (bytes of WAL); ``sums`` is None where it could not be added up, and ``why``."""

    lsn: int
    sums: dict[str, Sum] | None
    why: str = ""


async def source_sums(instance: PostgresInstance, *, deadline: float) -> Source:
    """Every table of a standby in one snapshot, and the LSN that it is of.

    A standby's snapshot changes only by what it replays. A record that is being replayed counts before its LSN does, so nothing may
    have been replayed for a moment before the snapshot and for a moment after it.

    Raises:
        TemporaryError: it does not answer, is no standby, or never stands still for a moment.
    """
    doing = f"reading {instance.instance} at one LSN"
    try:
        connection = await _connect(instance)
    except psycopg.Error as error:
        raise TemporaryError(doing, str(error).strip(), "See that the standby answers") from error
    async with connection:
        lsn = await _stand_still(connection, doing)
        try:
            return Source(lsn, await sums(connection, deadline=deadline))
        except FailedError as error:  # replay goes first: a long question may be cancelled for it
            return Source(lsn, None, str(error))


async def _stand_still(connection: Connection, doing: str) -> int:
    """Begin a transaction whose snapshot is exactly of the LSN that is given."""
    for _ in range(_TRIES):
        before = await _number(connection, _REPLAYED)
        if before is None:
            raise TemporaryError(doing, "it is no standby", "Compare with the standby")
        await asyncio.sleep(_PAUSE_SECONDS)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        during = await _number(connection, _REPLAYED)  # the first question in it takes the snapshot
        await asyncio.sleep(_PAUSE_SECONDS)
        if before == during == await _number(connection, _REPLAYED):
            return before
        await connection.execute("ROLLBACK")
    raise TemporaryError(doing, "it replays without a pause", "Try again when less is written")


async def _connect(instance: PostgresInstance) -> Connection:
    password = instance.password
    return await psycopg.AsyncConnection.connect(
        host=instance.host,
        port=instance.port,
        dbname=instance.database,
        user=instance.user,
        password=None if password is None else password.get_secret_value(),
        autocommit=True,
        connect_timeout=5,
        application_name="hmsdr-compare",
    )


async def _number(connection: Connection, query: str) -> int | None:
    found = await (await connection.execute(query.encode())).fetchone()
    return None if found is None or found[0] is None else int(found[0])


async def sums(connection: Connection, *, deadline: float) -> dict[str, Sum]:
    """Every ordinary table of the connection's database as a `Sum`.

    Raises:
        FailedError: a table cannot be read, or it takes longer than `deadline` seconds.
    """
    found: dict[str, Sum] = {}
    table = ""
    try:
        async with asyncio.timeout(deadline):
            for statement in _TEXT_SETTINGS:
                await connection.execute(statement.encode())
            listed = await (await connection.execute(_TABLES)).fetchall()
            for schema, name in listed:
                table = f"{schema}.{name}"
                query = sql.SQL(
                    "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {} AS t"
                ).format(sql.Identifier(schema, name))
                row = await (await connection.execute(query)).fetchone()
                found[table] = Sum(int(row[0]), str(row[1])) if row else Sum(0, "0")
    except TimeoutError as error:
        raise FailedError(
            "adding up tables", f"not done within {deadline:g} s ({table})", "Give it more time"
        ) from error
    except psycopg.Error as error:
        raise FailedError(f"adding up {table or 'tables'}", str(error).strip(), "Try again") from error
    return found


_TEXT_SETTINGS = (
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL datestyle = 'ISO, YMD'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL statement_timeout = 0",
)


def differences(source: dict[str, Sum], restored: dict[str, Sum]) -> list[str]:
    """In words, table by table, what is not equal."""
    found = []
    for table in sorted({*source, *restored}):
        ours, theirs = source.get(table), restored.get(table)
        if ours is None or theirs is None:
            found.append(f"{table} is only in the {'restored' if ours is None else 'running'} database")
        elif ours.rows != theirs.rows:
            found.append(f"{table} has {theirs.rows} rows restored and {ours.rows} in the running database")
        elif ours != theirs:
            found.append(f"{table} has {ours.rows} rows on both sides, and they are not the same")
    return found
