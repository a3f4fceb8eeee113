"""Event log and authority record in one SQLite file: the store of a hospital whose controllers share a machine.

Several processes open the same file. Every write is one ``BEGIN IMMEDIATE`` transaction, synced to disk before
it is answered. It stores and compares; it decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hmsdr.decide.authority import Authority, Holder, Phase, initial
from hmsdr.errors import RefusedError
from hmsdr.log.events import GENESIS, Event, Head, NewEvent, chain_hash
from hmsdr.log.store import HeadMovedError, StoreError, TermOverError

_T = TypeVar("_T")

FORMAT = 1
_BUSY_SECONDS = 10.0
"""How long a writer waits for its turn: SQLite's locks are not fair, and a busy disk makes each turn long."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS term (
    id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, leader TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, term INTEGER NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, actor TEXT NOT NULL, data TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_subject ON event (subject, seq);
CREATE TABLE IF NOT EXISTS authority (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT NOT NULL);
"""


class SqliteStore:
    """`EventLog` and `AuthorityStore` in one file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(cls, path: Path, *, create: bool = False, lease_seconds: float = 30.0) -> SqliteStore:
        """Open the store at `path`.

        Args:
            path: the file.
            create: make it, with a vacant authority of `lease_seconds`, when it is not there yet.
            lease_seconds: the lease of a new authority record.

        Raises:
            RefusedError: no store there, or written by another version.
            StoreError: the file cannot be opened or written.
        """
        if not create and not path.exists():
            raise RefusedError(
                f"opening the log {path}",
                "there is no such file",
                "Check `store.path` in the playbook, or create it with `hmsdr store init`",
            )
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hmsdr-log")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, path, create, lease_seconds)
        except sqlite3.Error as error:
            thread.shutdown(wait=False)
            raise _store_error(f"opening the log {path}", error) from error
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(path, connection, thread)

    async def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        await self._run("closing the log", self._connection.close)
        self._thread.shutdown(wait=False)

    async def head(self) -> Head:
        """See `EventLog.head`."""
        return await self._run("reading the log's head", self._head)

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        """See `EventLog.read`."""
        return await self._run("reading the log", lambda: self._read(after, subject))

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Head:
        """See `EventLog.append`."""
        return await self._run("appending to the log", lambda: self._append(events, expected))

    async def begin_term(self, leader: str) -> Head:
        """See `EventLog.begin_term`."""
        return await self._run("beginning a term", lambda: self._begin_term(leader))

    async def read_authority(self) -> Authority:
        """See `AuthorityStore.read_authority`."""
        return await self._run("reading the write authority", self._read_authority)

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        """See `AuthorityStore.swap_authority`."""
        return await self._run("changing the write authority", lambda: self._swap_authority(expected, new))

    async def _run(self, doing: str, call: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, call)
        except sqlite3.Error as error:
            raise _store_error(f"{doing} in {self.path}", error) from error

    def _head(self) -> Head:
        (term,) = self._connection.execute("SELECT number FROM term").fetchone()
        row = self._connection.execute("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        seq, digest = row or (0, GENESIS)
        return Head(seq=seq, term=term, hash=digest)

    def _read(self, after: int, subject: str | None) -> list[Event]:
        where = "seq > ?"
        values: list[Any] = [after]
        if subject is not None:
            where += " AND subject = ?"
            values.append(subject)
        rows = self._connection.execute(
            "SELECT seq, at, term, kind, subject, actor, data, previous, hash FROM event "  # noqa: S608 - no input in it
            f"WHERE {where} ORDER BY seq",
            values,
        )
        return [
            Event(
                seq, datetime.fromisoformat(at), term, kind, about, actor, json.loads(data), previous, digest
            )
            for seq, at, term, kind, about, actor, data, previous, digest in rows
        ]

    def _append(self, events: Sequence[NewEvent], expected: Head) -> Head:
        with _transaction(self._connection):
            head = self._head()
            if head.term != expected.term:
                raise TermOverError(
                    f"appending to {self.path} under term {expected.term}",
                    f"term {head.term} has begun",
                    "Another process has taken over; this one must stop",
                )
            if head != expected:
                raise HeadMovedError(
                    f"appending to {self.path} after event {expected.seq}",
                    f"the log already ends at {head.seq}",
                    "Read the new events, then try again",
                )
            return self._insert(events, head)

    def _insert(self, events: Sequence[NewEvent], head: Head) -> Head:
        seq, digest = head.seq, head.hash
        for event in events:
            seq += 1
            at = datetime.now(UTC).isoformat(timespec="microseconds")
            previous, digest = digest, chain_hash(digest, seq, at, head.term, event)
            data = json.dumps(event.data, ensure_ascii=False)
            self._connection.execute(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (seq, at, head.term, event.kind, event.subject, event.actor, data, previous, digest),
            )
        return Head(seq=seq, term=head.term, hash=digest)

    def _begin_term(self, leader: str) -> Head:
        with _transaction(self._connection):
            self._connection.execute("UPDATE term SET number = number + 1, leader = ?", (leader,))
            return self._head()

    def _read_authority(self) -> Authority:
        (value,) = self._connection.execute("SELECT value FROM authority").fetchone()
        return _decode_authority(value)

    def _swap_authority(self, expected: Authority, new: Authority) -> bool:
        with _transaction(self._connection):
            if self._read_authority() != expected:
                return False
            self._connection.execute("UPDATE authority SET value = ?", (_encode_authority(new),))
            return True


class _transaction:  # noqa: N801 - used as a statement
    """``BEGIN IMMEDIATE`` … ``COMMIT``, rolled back on any error: two writers never both read the old head."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._rollback()
                raise
        else:
            self._rollback()

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _connect(path: Path, create: bool, lease_seconds: float) -> sqlite3.Connection:
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if create:
            with _transaction(connection):
                _create(connection, lease_seconds)
        found = connection.execute("SELECT format FROM meta").fetchone()
    except BaseException:
        connection.close()
        raise
    if found != (FORMAT,):
        connection.close()
        raise RefusedError(
            f"opening the log {path}",
            f"it has format {found[0] if found else 'unknown'}, this version writes format {FORMAT}",
            "Use the version that wrote it",
        )
    return connection


def _create(connection: sqlite3.Connection, lease_seconds: float) -> None:
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    if connection.execute("SELECT count(*) FROM meta").fetchone() == (0,):
        connection.execute("INSERT INTO meta VALUES (?)", (FORMAT,))
        connection.execute("INSERT INTO term VALUES (1, 0, '')")
        connection.execute(
            "INSERT INTO authority VALUES (1, ?)", (_encode_authority(initial(lease_seconds)),)
        )


def _encode_authority(authority: Authority) -> str:
    return json.dumps(asdict(authority), sort_keys=True)


def _decode_authority(text: str) -> Authority:
    raw = json.loads(text)
    holder = raw.pop("holder")
    phase = Phase(raw.pop("phase"))
    return Authority(phase=phase, holder=Holder(**holder) if holder else None, **raw)


def _store_error(doing: str, error: sqlite3.Error) -> StoreError:
    return StoreError(
        doing,
        str(error),
        "Check the disk under it (space, permissions, mount) and who else has the file open",
    )
