"""Event log and authority record in one SQLite file: the store of a hospital whose controllers share a machine.

Several processes open the same file. Every write is one ``BEGIN IMMEDIATE`` transaction, synced to disk before
it is answered. It stores and compares; it decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hmsdr.decide.authority import Authority, initial
from hmsdr.decide.leadership import Leadership, taken
from hmsdr.errors import RefusedError
from hmsdr.log.events import GENESIS, Event, Head, NewEvent, after, chain
from hmsdr.log.reading import connect_reading
from hmsdr.log.records import decode_authority, encode_authority
from hmsdr.log.store import Appended, HeadMovedError, Sitting, StoreError, TermOverError

_T = TypeVar("_T")

FORMAT = 2
_BUSY_SECONDS = 10.0
"""How long a writer waits for its turn: SQLite's locks are not fair, and a busy disk makes each turn long."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS term (
    id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, leader TEXT NOT NULL,
    beat INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, term INTEGER NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, actor TEXT NOT NULL, data TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_subject ON event (subject, seq);
CREATE TABLE IF NOT EXISTS authority (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS word (site TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SqliteStore:
    """`EventLog` and `AuthorityStore` in one file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(
        cls, path: Path, *, create: bool = False, lease_seconds: float = 30.0, reading: bool = False
    ) -> SqliteStore:
        """Open the store at `path`.

        Args:
            path: the file.
            create: make it, with a vacant authority of `lease_seconds`, when it is not there yet.
            lease_seconds: the lease of a new authority record.
            reading: a disk that takes nothing is good enough: every write is refused then.

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
            connection = await loop.run_in_executor(thread, _connect, path, create, lease_seconds, reading)
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB or "no such table" in str(
                error
            ):
                raise RefusedError(
                    f"opening the log {path}",
                    f"it is something else: {error}",
                    "Check `store.path` in the playbook",
                ) from error
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

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Appended:
        """See `EventLog.append`."""
        return await self._run("appending to the log", lambda: self._append(events, expected))

    async def begin_term(self, leader: str) -> Head:
        """See `EventLog.begin_term`."""
        return await self._run("beginning a term", lambda: self._begin_term(leader))

    async def copy(self, events: Sequence[Event], leadership: Leadership, authority: Authority) -> None:
        """Make this file say what another store says: `events` follow the last one here, word for word.

        Those that are here already, word for word, stay as they are.

        Raises:
            RefusedError: they do not: this is a copy of something else.
        """
        await self._run("copying the log", lambda: self._copy(events, leadership, authority))

    async def read_authority(self) -> Authority:
        """See `AuthorityStore.read_authority`."""
        return await self._run("reading the write authority", self._read_authority)

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        """See `AuthorityStore.swap_authority`."""
        return await self._run("changing the write authority", lambda: self._swap_authority(expected, new))

    async def meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        """See `Council.meet`."""
        return await self._run(f"meeting as {site}", lambda: self._meet(site, word))

    async def leadership(self) -> Leadership:
        """See `Council.leadership`."""
        return await self._run("reading who leads", self._leadership)

    async def settle(self, expected: Leadership, new: Leadership) -> bool:
        """See `Council.settle`."""
        return await self._run("settling who leads", lambda: self._settle(expected, new))

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

    def _append(self, events: Sequence[NewEvent], expected: Head) -> Appended:
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

    def _copy(self, events: Sequence[Event], leadership: Leadership, authority: Authority) -> None:
        with _transaction(self._connection):
            head = self._head()
            # Whoever gave up waiting for an earlier copy does not know that it was made, and copies again.
            there = {event.seq: event.hash for event in self._read(events[0].seq - 1, None)} if events else {}
            known = [event for event in events if event.seq in there]
            new = events[len(known) :]
            same = all(there[event.seq] == event.hash for event in known)
            if not same or (new and (new[0].seq, new[0].previous) != (head.seq + 1, head.hash)):
                raise RefusedError(
                    f"copying the log to {self.path}",
                    f"event {(new or known)[0].seq} does not follow event {head.seq} there",
                    "The file is a copy of another log: move it away, and a new one is made",
                )
            self._store(new)
            self._put_leadership(leadership)
            self._connection.execute("UPDATE authority SET value = ?", (encode_authority(authority),))

    def _insert(self, events: Sequence[NewEvent], head: Head) -> Appended:
        stored = chain(events, head, datetime.now(UTC))
        self._store(stored)
        return Appended(after(head, stored), stored)

    def _store(self, events: Sequence[Event]) -> None:
        for event in events:
            at = event.at.isoformat(timespec="microseconds")
            data = json.dumps(event.data, ensure_ascii=False)
            self._connection.execute(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event.seq,
                    at,
                    event.term,
                    event.kind,
                    event.subject,
                    event.actor,
                    data,
                    event.previous,
                    event.hash,
                ),
            )

    def _begin_term(self, leader: str) -> Head:
        with _transaction(self._connection):
            self._put_leadership(taken(self._leadership(), leader))
            return self._head()

    def _meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        text = json.dumps(word, ensure_ascii=False)
        with _transaction(self._connection):
            words = self._connection.execute("SELECT site, value FROM word").fetchall()
            self._connection.execute("INSERT OR REPLACE INTO word VALUES (?, ?)", (site, text))
            return Sitting(
                self._head(),
                self._leadership(),
                self._read_authority(),
                {name: json.loads(value) for name, value in words},
            )

    def _settle(self, expected: Leadership, new: Leadership) -> bool:
        with _transaction(self._connection):
            if self._leadership() != expected:
                return False
            self._put_leadership(new)
            return True

    def _leadership(self) -> Leadership:
        return Leadership(*self._connection.execute("SELECT number, leader, beat FROM term").fetchone())

    def _put_leadership(self, record: Leadership) -> None:
        values = (record.term, record.leader, record.beat)
        self._connection.execute("UPDATE term SET number = ?, leader = ?, beat = ?", values)

    def _read_authority(self) -> Authority:
        (value,) = self._connection.execute("SELECT value FROM authority").fetchone()
        return decode_authority(value)

    def _swap_authority(self, expected: Authority, new: Authority) -> bool:
        with _transaction(self._connection):
            if self._read_authority() != expected:
                return False
            self._connection.execute("UPDATE authority SET value = ?", (encode_authority(new),))
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


def _connect(path: Path, create: bool, lease_seconds: float, reading: bool) -> sqlite3.Connection:
    try:
        return _connect_writing(path, create, lease_seconds)
    except sqlite3.OperationalError:
        if not reading:
            raise
    connection = connect_reading(path)
    return _of_this_format(path, connection)


def _connect_writing(path: Path, create: bool, lease_seconds: float) -> sqlite3.Connection:
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if create:
            with _transaction(connection):
                _create(connection, lease_seconds)
        # Reading may need room, too: found out now, not in the middle.
        connection.execute("SELECT count(*) FROM event").fetchone()
    except BaseException:
        connection.close()
        raise
    return _of_this_format(path, connection)


def _of_this_format(path: Path, connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
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
        connection.execute("INSERT INTO term VALUES (1, 0, '', 0)")
        connection.execute("INSERT INTO authority VALUES (1, ?)", (encode_authority(initial(lease_seconds)),))


def _store_error(doing: str, error: sqlite3.Error | OSError) -> StoreError:
    return StoreError(
        doing,
        str(error),
        "Check the disk under it (space, permissions, mount) and who else has the file open",
    )
