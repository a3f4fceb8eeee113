"""Two snapshots of one moment: the primary's, and its standby's that shows the very same transactions. Nothing is paused or changed.

The primary's comes first. The standby is asked again and again, inside the server, until it has replayed what the primary had
written by then; its snapshot is taken, and only then is looked whether it shows more. No timing is relied on:

- it shows no less: every commit in the primary's snapshot was in WAL before the LSN that was read after it, and had been replayed;
- it shows no more: a transaction that is in the standby's snapshot and not in the primary's is known as committed afterwards.

While the primary's is held, the primary removes nothing that either of them shows: replay has no reason to cancel who looks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres_calls import severable
from hmsdr.playbook.topology import PostgresInstance

Connection = psycopg.AsyncConnection[Any]
_CONNECT_SECONDS = 5
_TRIES = 200
_LOOKS = 200
"""Of half a millisecond each in one turn: whoever waits there has a snapshot himself, and replay may be waiting for that to end."""
_BEHIND_SECONDS = 15.0
"""So long a standby may be behind."""
_LATE, _MORE = "late", "more"
_MOST_XIDS = 10_000
_TAKE = """
SELECT pg_export_snapshot(), pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint
"""
_MEET = """
DO $meet$
DECLARE
    wanted CONSTANT pg_lsn := '0/0'::pg_lsn + {lsn}::numeric;
    theirs CONSTANT pg_snapshot := {snapshot};
    taken text;
    seen pg_snapshot;
    first CONSTANT numeric := pg_snapshot_xmax(theirs)::text::numeric;
    behind CONSTANT text := set_config('hmsdr.met', {late}, true);
    last numeric;
BEGIN
    FOR look IN 1..{looks} LOOP
        EXIT WHEN pg_last_wal_replay_lsn() >= wanted;
        PERFORM pg_sleep(0.0005);
    END LOOP;
    IF NOT pg_is_in_recovery() THEN
        RAISE EXCEPTION 'it is no standby any more';
    END IF;
    IF pg_last_wal_replay_lsn() < wanted THEN
        RETURN;
    END IF;
    SELECT pg_export_snapshot(), pg_current_snapshot() INTO taken, seen;
    last := pg_snapshot_xmax(seen)::text::numeric;
    IF last - first > {most} OR EXISTS (
        SELECT FROM pg_snapshot_xip(theirs) AS x
        WHERE x < pg_snapshot_xmax(seen) AND pg_xact_status(x) = 'committed'
    ) OR EXISTS (
        SELECT FROM generate_series(first, last - 1) AS n WHERE pg_xact_status(n::text::xid8) = 'committed'
    ) THEN
        taken := {more};
    END IF;
    PERFORM set_config('hmsdr.met', taken, true);
END
$meet$
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both snapshots by the names under which other sessions of the same server may use them, and the LSN (bytes of WAL) they are of."""

    primary: str
    standby: str
    lsn: int


class Meeting:
    """Holds a pair while others use it; the primary's holds back VACUUM as long, so it is kept for minutes at most.

    Args:
        primary: the server that writes.
        standby: the one that follows it.
    """

    def __init__(self, primary: PostgresInstance, standby: PostgresInstance) -> None:
        self._instances = (primary, standby)
        self._open: list[Connection] = []

    async def close(self) -> None:
        """Let go of both."""
        opened, self._open = self._open, []
        for connection in opened:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def begin(self, *, deadline: float) -> Pair:
        """The pair, within `deadline` seconds.

        Raises:
            TemporaryError: the standby is behind for too long, or more is committed all the while than lets them meet.
            psycopg.Error: one of them does not answer, or is not what it is taken for.
        """
        doing = f"finding one moment of {self._instances[0].instance} and {self._instances[1].instance}"
        try:
            async with asyncio.timeout(deadline):
                primary, standby = [await connect(each) for each in self._instances]
                self._open = [primary, standby]
                for _ in range(_TRIES):
                    found = await severable(standby, lambda standby: self._try(primary, standby, doing))
                    if found is not None:
                        return found
        except TimeoutError as error:
            raise TemporaryError(
                doing, f"not within {deadline:g} s", "See that the standby follows"
            ) from error
        raise TemporaryError(
            doing, f"something was committed in between, {_TRIES} times", "Try again when less is written"
        )

    @staticmethod
    async def _try(primary: Connection, standby: Connection, doing: str) -> Pair | None:
        await primary.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        name, snapshot, lsn = await _row(primary, sql.SQL(_TAKE))
        meet = sql.SQL(_MEET).format(
            lsn=sql.Literal(str(lsn)),
            snapshot=sql.Literal(snapshot),
            late=sql.Literal(_LATE),
            looks=sql.Literal(_LOOKS),
            most=sql.Literal(_MOST_XIDS),
            more=sql.Literal(_MORE),
        )
        ends = asyncio.get_running_loop().time() + _BEHIND_SECONDS
        while True:
            await standby.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
            await standby.execute(meet)
            (met,) = await _row(standby, sql.SQL("SELECT current_setting('hmsdr.met')"))
            if met not in (_LATE, _MORE):
                return Pair(str(name), str(met), int(lsn))
            await standby.execute("ROLLBACK")
            if met == _MORE:
                await primary.execute("ROLLBACK")
                return None
            if asyncio.get_running_loop().time() > ends:
                found = f"the standby is more than {_BEHIND_SECONDS:g} s behind"
                raise TemporaryError(doing, found, "Compare when it has caught up")


async def connect(instance: PostgresInstance) -> Connection:
    """A session of one's own; it is told from others by its name."""
    password = instance.password
    return await psycopg.AsyncConnection.connect(
        host=instance.host,
        port=instance.port,
        dbname=instance.database,
        user=instance.user,
        password=None if password is None else password.get_secret_value(),
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        application_name="hmsdr-compare",
    )


async def look(connection: Connection, snapshot: str) -> None:
    """Begin a transaction that sees `snapshot`; its end gives back every lock, so that nobody's ALTER TABLE waits for long."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    await connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


async def _row(connection: Connection, query: sql.SQL) -> tuple[Any, ...]:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None  # noqa: S101 - our own query
    return tuple(row)
