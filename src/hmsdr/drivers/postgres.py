"""PostgreSQL: asks a server how it is, compares its data, and makes the few changes that a failover needs.

One instance at a time, each call with a deadline in seconds. It never promotes and never stops a server
through the network: those are the agent's (SAFETY rule 5), which uses `promote_here` on its own socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from hmsdr.drivers import postgres_questions as questions
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.drivers.postgres_calls import sever, severable, translate
from hmsdr.drivers.postgres_questions import (
    COUNTED_ROWS,
    Follower,
    Integrity,
    Lag,
    LostSlot,
    PostgresStatus,
    Slot,
    Source,
)
from hmsdr.playbook.topology import PostgresInstance

_T = TypeVar("_T")
_Connection = psycopg.AsyncConnection[Any]


class Postgres:
    """One PostgreSQL server.

    Args:
        instance: where it is, as the playbook says.
        host: connect there instead (a directory means its Unix socket).
        warm: keep one connection open between calls; a call that fails drops it.
    """

    def __init__(self, instance: PostgresInstance, *, host: str | None = None, warm: bool = False) -> None:
        self.instance = instance
        self._host = host or instance.host
        self._warm = warm
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Drop the warm connection, if there is one; a call that is under way on it ends with an error."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._lock.locked():
            sever(connection)
            return
        with suppress(psycopg.Error, OSError):
            await connection.close()

    async def connect(self, *, deadline: float) -> None:
        """Open the warm connection ahead of need.

        Raises:
            DriverError: it cannot be reached.
        """
        await self._call("connecting", _nothing, deadline, changes=False)

    async def status(self, *, deadline: float) -> PostgresStatus:
        """What it says about itself. A server that does not answer is a status, not an error.

        Raises:
            PermanentError: it answers, and refuses us.
        """
        try:
            row = await self._row(questions.STATUS, deadline)
        except TemporaryError as error:
            return PostgresStatus(reachable=False, found=error.found)
        return PostgresStatus(True, *row)

    async def replication(self, *, deadline: float) -> tuple[Follower, ...]:
        """Who streams from it."""
        return tuple(Follower(*row) for row in await self._rows(questions.REPLICATION, deadline))

    async def write_lags(self, *, deadline: float) -> tuple[float | None, ...]:
        """For each that streams from it: seconds for a record to get there and the word of it back; None while nothing is written."""
        rows = await self._rows(questions.WRITE_LAGS, deadline)
        return tuple(None if row[0] is None else float(row[0]) for row in rows)

    async def epoch_since(self, *, deadline: float) -> tuple[datetime | None, datetime]:
        """Since when it, a primary, writes under its newest epoch, and its clock; None where no agent ever noted one."""
        since, now = await self._row(questions.EPOCH_SINCE, deadline)
        return since, now

    async def slots(self, *, deadline: float) -> tuple[Slot, ...]:
        """Its replication slots."""
        return tuple(Slot(*row) for row in await self._rows(questions.SLOTS, deadline))

    async def source(self, *, deadline: float) -> Source:
        """What it, a primary, has to give to a standby."""
        return Source(*await self._row(questions.SOURCE, deadline))

    async def commits_after(self, moment: datetime, *, deadline: float) -> tuple[int, bool]:
        """How many transactions were committed after `moment`, and whether there may be more than could be counted."""
        row = (await self._rows(questions.COMMITS_AFTER, deadline, values=(moment, moment)))[0]
        return int(row[0]), bool(row[1])

    async def transfer(self, size: int, *, deadline: float) -> float:
        """How many seconds it takes to fetch `size` bytes from it, made up there."""

        async def fetch(connection: _Connection) -> float:
            began = asyncio.get_running_loop().time()
            await connection.execute("SELECT repeat('x', %s)", (size,))
            return asyncio.get_running_loop().time() - began

        return await self._call("measuring the way to it", fetch, deadline, changes=False)

    async def lag(self, *, deadline: float) -> Lag:
        """How far it, a standby, is behind.

        Raises:
            DriverError: it does not answer.
        """

        async def measure(connection: _Connection) -> Lag:
            cursor = await connection.execute(questions.LAG)
            streaming, behind, seconds, at = _only(await cursor.fetchone())
            with suppress(psycopg.errors.UndefinedTable):
                beat = await (await connection.execute(questions.HEARTBEAT_AGE)).fetchone()
                seconds = beat[0] if beat is not None else seconds
            return Lag(streaming, behind, None if seconds is None else max(0.0, seconds), at)

        return await self._call("measuring replication lag", measure, deadline, changes=False)

    async def integrity(self, *, deadline: float) -> Integrity:
        """What PostgreSQL itself knows of damage."""
        return Integrity(*await self._row(questions.INTEGRITY, deadline))

    async def checksums(self, *, deadline: float) -> bool:
        """Whether pages carry checksums."""
        return bool((await self._row("SELECT current_setting('data_checksums') = 'on'", deadline))[0])

    async def backup_progress(self, *, deadline: float) -> float | None:
        """How much of a base backup that runs was read, from 0 to 1; None when that is not known, or none runs."""
        rows = await self._rows(questions.BACKUP_PROGRESS, deadline)
        return float(rows[0][0]) if rows and rows[0][0] is not None else None

    async def backends(self, application: str, *, deadline: float) -> tuple[int, ...]:
        """Process ids of the sessions of `application`."""
        query = sql.SQL("SELECT pid FROM pg_stat_activity WHERE application_name = {}").format(
            sql.Literal(application)
        )
        return tuple(int(row[0]) for row in await self._rows(query, deadline))

    async def counts(
        self, tables: Sequence[str], *, deadline: float, at_most: int = COUNTED_ROWS
    ) -> dict[str, int]:
        """Number of rows in each of `tables`; a table with more than `at_most` counts as so many.

        Raises:
            PermanentError: a table is missing or may not be read.
        """

        async def count(connection: _Connection) -> dict[str, int]:
            found = {}
            for table in tables:
                query = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS counted").format(
                    _name(table), sql.Literal(at_most)
                )
                found[table] = int(_only(await (await connection.execute(query)).fetchone())[0])
            return found

        return await self._call("counting rows", count, deadline, changes=False)

    async def checksum(self, table: str, *, deadline: float, limit: int = 100_000) -> str:
        """MD5 over the first `limit` rows of `table` in order of their text: equal data, equal checksum.

        Raises:
            PermanentError: the table is missing or may not be read.
        """
        query = sql.SQL(
            "SELECT md5(coalesce(string_agg(row, '|' ORDER BY row), '')) FROM "
            "(SELECT md5(t::text) AS row FROM {} AS t ORDER BY t::text LIMIT {}) AS rows"
        ).format(_name(table), sql.Literal(limit))
        return str((await self._row(query, deadline))[0])

    async def heartbeat(self, instance: str, *, deadline: float) -> datetime:
        """Write a heartbeat and give its server time: the proof that writes are taken.

        Raises:
            TemporaryError: it is read-only or does not answer.
            OutcomeUnknownError: the answer to the write was lost.
        """
        return datetime.fromisoformat(
            str(
                _only(await self._change("writing a heartbeat", questions.HEARTBEAT, (instance,), deadline))[
                    0
                ]
            )
        )

    async def claim_epoch(self, epoch: int, instance: str, *, deadline: float) -> None:
        """Record that `instance` writes under `epoch`: the first write of an epoch. Repeating changes nothing."""
        await self._change(f"recording epoch {epoch}", questions.EPOCH, (epoch, instance), deadline)

    async def write_marker(self, text: str, *, deadline: float) -> None:
        """Commit a WAL record that changes no table: proof that writes are taken."""
        await self._change("writing", "SELECT pg_logical_emit_message(true, 'hmsdr', %s)", (text,), deadline)

    async def create_physical_slot(self, name: str, *, deadline: float) -> bool:
        """Make a physical slot that keeps WAL from now on; False when it was there already."""
        query = (
            "SELECT pg_create_physical_replication_slot(%s, true) "
            "WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)"
        )
        try:
            return await self._change(f"creating slot {name}", query, (name, name), deadline) is not None
        except PermanentError as error:
            # Looking and making are two things for the server: another one, the agent say, was faster.
            if isinstance(error.__cause__, psycopg.errors.DuplicateObject):
                return False
            raise

    async def timeline_history(self, *, deadline: float) -> tuple[int, str]:
        """The timeline that it, a primary, is on, and the text of that one's history file.

        Raises:
            TemporaryError: it is a standby, or does not answer.
        """
        timeline, text = await self._row(questions.HISTORY, deadline)
        return int(timeline), str(text)

    async def lost_slots(self, follower: str, *, deadline: float) -> tuple[LostSlot, ...]:
        """The slots from which lost rows could be decoded; `follower` is the slot that the standby follows through."""
        return tuple(
            LostSlot(*row) for row in await self._rows(questions.LOST_SLOT, deadline, values=(follower,))
        )

    async def create_lost_slot(self, name: str, *, deadline: float) -> None:
        """Make such a slot: it waits for the end of every transaction that is under way."""
        query = "SELECT pg_create_logical_replication_slot(%s, 'test_decoding')"
        await self._change(f"creating slot {name}", query, (name,), deadline)

    async def advance_slot(self, name: str, lsn: int, *, deadline: float) -> None:
        """Let a logical slot forget what was committed up to `lsn` (bytes of WAL)."""
        query = "SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s::numeric)"
        await self._change(f"advancing slot {name}", query, (name, lsn), deadline)

    async def drop_slot(self, name: str, *, deadline: float) -> None:
        """Remove a slot that nobody uses; one that is not there is no error."""
        query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
        await self._change(f"dropping slot {name}", query, (name,), deadline)

    async def drop_unused_slot(self, name: str, *, deadline: float) -> bool:
        """Remove a physical slot of this standby that nobody uses; whether there was one. Of a primary it removes none."""
        query = (
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = %s AND slot_type = 'physical' AND NOT active AND pg_is_in_recovery()"
        )
        return await self._change(f"dropping slot {name}", query, (name,), deadline) is not None

    async def checkpoint(self, *, deadline: float) -> None:
        """Flush everything now, so that a stop that follows is short."""
        await self._change("checkpointing", "CHECKPOINT", (), deadline)

    async def setting_values(self, names: Sequence[str], *, deadline: float) -> dict[str, str]:
        """The values of its settings, as `SHOW` gives them."""
        rows = await self._rows(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", deadline, values=(list(names),)
        )
        return {str(name): str(value) for name, value in rows}

    async def now(self, *, deadline: float) -> datetime:
        """Its clock."""
        found: datetime = (await self._row("SELECT clock_timestamp()", deadline))[0]
        return found

    async def system_identifier(self, *, deadline: float) -> int:
        """What tells its cluster from every other."""
        return int((await self._row("SELECT system_identifier FROM pg_control_system()", deadline))[0])

    async def switch_wal(self, *, deadline: float) -> int:
        """End the file of WAL that it, a primary, is writing, so that it is archived; gives the LSN (bytes of WAL) of its end."""
        query = "SELECT (pg_switch_wal() - '0/0'::pg_lsn)::bigint"
        return int((await self._change("switching WAL", query, (), deadline) or (0,))[0])

    async def promote_here(self, *, deadline: float) -> None:
        """Ask it to promote, without waiting. Only the agent beside the database calls this (rule 5)."""
        await self._change("asking for promotion", "SELECT pg_promote(false)", (), deadline)

    async def in_recovery(self, *, deadline: float) -> bool:
        """Whether it still is a standby."""
        return bool((await self._row("SELECT pg_is_in_recovery()", deadline))[0])

    async def left_recovery(self, *, deadline: float) -> bool:
        """Whether it no longer is a standby; waits up to a tenth of a second for it."""

        async def wait(connection: _Connection) -> bool:
            await connection.execute(questions.LEFT_RECOVERY)
            row = _only(await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone())
            return not row[0]

        return await self._call("waiting for the end of recovery", wait, deadline, changes=False)

    async def replayed_lsn(self, *, deadline: float) -> int:
        """Up to where it, a standby, replayed, in bytes of WAL."""
        query = "SELECT (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0'::pg_lsn)::bigint"
        return int((await self._row(query, deadline))[0])

    async def _row(self, query: Any, deadline: float) -> tuple[Any, ...]:
        return (await self._rows(query, deadline))[0]

    async def _rows(
        self, query: Any, deadline: float, *, values: tuple[Any, ...] | None = None
    ) -> list[tuple[Any, ...]]:
        async def fetch(connection: _Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self._call("asking", fetch, deadline, changes=False)

    async def _change(
        self, doing: str, query: Any, values: tuple[Any, ...], deadline: float
    ) -> tuple[Any, ...] | None:
        async def change(connection: _Connection) -> tuple[Any, ...] | None:
            cursor = await connection.execute(query, values or None)
            row: tuple[Any, ...] | None = await cursor.fetchone() if cursor.description else None
            return row

        return await self._call(doing, change, deadline, changes=True)

    async def _call(
        self, doing: str, call: Callable[[_Connection], Awaitable[_T]], deadline: float, *, changes: bool
    ) -> _T:
        what = f"{doing} at PostgreSQL {self.instance.instance} ({self._host}:{self.instance.port})"
        asked = False
        try:
            async with asyncio.timeout(deadline), self._lock if self._warm else nullcontext():
                while True:
                    reused = self._connection is not None
                    connection = await self._open()
                    asked = True
                    try:
                        return await severable(connection, call)
                    except psycopg.OperationalError:
                        # A kept connection that broke while idle says nothing about the server as it is now.
                        if changes or not reused:
                            raise
                    finally:
                        await self._settle(connection)
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise translate(what, error, unknown=changes and asked, deadline=deadline) from error

    async def _settle(self, connection: _Connection) -> None:
        """Keep a connection that may be kept; close any other."""
        if self._connection is connection:
            if not connection.closed:
                return
            self._connection = None
        with suppress(psycopg.Error, OSError):
            await connection.close()

    async def _open(self) -> _Connection:
        if self._warm and self._connection is not None and not self._connection.closed:
            return self._connection
        password = self.instance.password
        connection = await psycopg.AsyncConnection.connect(
            host=self._host,
            port=self.instance.port,
            dbname=self.instance.database,
            user=self.instance.user,
            password=password.get_secret_value() if password is not None else None,
            autocommit=True,
            application_name="hmsdr",
            connect_timeout=10,
        )
        if self._warm:
            self._connection = connection
        return connection


async def _nothing(_: _Connection) -> None:
    """Connecting was all."""


def _only(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    assert row is not None, "the query always gives a row"  # noqa: S101 - our own query
    return row


def _name(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))
