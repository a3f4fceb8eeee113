"""Whether a restored database says the same as the running one: rows counted and added up, at one and the same LSN.

The running side is read on the standby, inside one snapshot and one table after the other, so that the primary is not disturbed.
How rows are added up is the driver's part (`hmsdr.drivers.postgres_sums`), the same as for `hmsdr compare`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg

from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres_snapshots import connect
from hmsdr.drivers.postgres_sums import Sum, sums
from hmsdr.errors import FailedError
from hmsdr.playbook.topology import PostgresInstance

Connection = psycopg.AsyncConnection[Any]
_TRIES = 500
_PAUSE_SECONDS = 0.005
_REPLAYED = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint"


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
        connection = await connect(instance)
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


async def _number(connection: Connection, query: str) -> int | None:
    found = await (await connection.execute(query.encode())).fetchone()
    return None if found is None or found[0] is None else int(found[0])


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
