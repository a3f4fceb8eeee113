"""Writers that write as soon as they are answered, and how long the longest silence was. Measures only.

Two kinds: a client of the database that knows both servers and asks each time for the one that takes writes, as any that
libpq helps; and a clinic, at the public name. Each repeats a write that was not acknowledged until it is.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from hmsdr.errors import FailedError
from hmsdr.lab.hms.clinics.clinic import Clinic
from hmsdr.lab.hms.clinics.workload import Request
from hmsdr.lab.hms.entities import of_service
from hmsdr.lab.hms.names import Names
from hmsdr.lab.layout import PUBLIC_NAME, Endpoint, Layout

PAUSE_SECONDS, RETRY_SECONDS = 0.005, 0.01
"""What a writer waits after an acknowledged write, and after a failure before it tries again."""
WRITERS = 2
"""Of each kind."""
_ATTEMPT_SECONDS = 2.0
_TABLE = "bench_writes"
_PATIENTS = f"/patient-service/{of_service('patient')[0].path}"
_Write = Callable[[str], Awaitable[bool]]


@dataclass
class Acknowledged:
    """What one writer was told: when each write was acknowledged (monotonic seconds), and which they were."""

    at: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    failures: int = 0

    def silence(self, since: float, until: float) -> tuple[float, float]:
        """The two acknowledgements furthest apart of which one is within `since` and `until`."""
        pairs = (pair for pair in pairwise(self.at) if pair[1] >= since and pair[0] <= until)
        return max(pairs, key=_length, default=(0.0, float("inf")))

    def gap(self, since: float, until: float) -> float:
        """How long that was, in seconds."""
        return _length(self.silence(since, until))


class Writers:
    """Several writers at work between `start` and `stop`."""

    def __init__(self, writes: Sequence[_Write]) -> None:
        self.acknowledged = [Acknowledged() for _ in writes]
        self._writes = writes
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(_work(write, each))
            for write, each in zip(self._writes, self.acknowledged, strict=True)
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_wrote(self, after: float, *, deadline: float) -> None:
        """Until each has written something after `after`.

        Raises:
            FailedError: one has not within `deadline` seconds.
        """
        ends = time.monotonic() + deadline
        while not all(each.at and each.at[-1] > after for each in self.acknowledged):
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > ends:
                raise FailedError("waiting for the writers", f"none of one within {deadline:g} s", "")
            await asyncio.sleep(0.02)

    def silence(self, since: float, until: float) -> tuple[float, float]:
        """The longest silence that any of them felt: its beginning and its end."""
        return max((each.silence(since, until) for each in self.acknowledged), key=_length)

    def gap(self, since: float, until: float) -> float:
        """How long that was, in seconds."""
        return _length(self.silence(since, until))

    @property
    def failures(self) -> int:
        """How many answers were no acknowledgement."""
        return sum(each.failures for each in self.acknowledged)

    @property
    def ids(self) -> set[str]:
        """All that was acknowledged."""
        return {each for one in self.acknowledged for each in one.ids}


def _length(silence: tuple[float, float]) -> float:
    return silence[1] - silence[0]


async def _work(write: _Write, told: Acknowledged) -> None:
    while True:
        row = str(uuid4())
        while not await write(row):
            told.failures += 1
            await asyncio.sleep(RETRY_SECONDS)
        told.at.append(time.monotonic())
        told.ids.append(row)
        await asyncio.sleep(PAUSE_SECONDS)


class DatabaseClient:
    """One connection to whichever of `servers` takes writes, made again when it is lost."""

    def __init__(self, servers: Sequence[Endpoint], database: str) -> None:
        hosts = ",".join(each.host for each in servers)
        ports = ",".join(str(each.port) for each in servers)
        self._conninfo = (
            f"host={hosts} port={ports} dbname={database} user=postgres target_session_attrs=read-write "
            "sslmode=disable gssencmode=disable"
        )
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def write(self, row: str) -> bool:
        """Whether the row is committed, by this attempt or an earlier one."""
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                connection = self._connection
                if connection is None:
                    connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
                    self._connection = connection
                await connection.execute(_INSERT, (row,))
                return True
        except (psycopg.Error, OSError, TimeoutError):
            self.close()
            return False

    def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    async def prepare(self) -> None:
        """Make the table."""
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            await connection.execute(_CREATE)

    async def missing(self, rows: set[str], table: str = _TABLE) -> int:
        """How many of `rows` are not there."""
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            query = sql.SQL("SELECT id::text FROM {}").format(sql.Identifier(table))
            found = await (await connection.execute(query)).fetchall()
        return len(rows - {row[0] for row in found})


_CREATE = "CREATE TABLE IF NOT EXISTS bench_writes (id uuid PRIMARY KEY, at timestamptz DEFAULT now())"
_INSERT = "INSERT INTO bench_writes (id) VALUES (%s) ON CONFLICT DO NOTHING"


class PublicClient:
    """A clinic that registers patients at the public name: DNS, TLS, ingress, pod, database."""

    def __init__(self, layout: Layout) -> None:
        port = next(iter(layout.regions.values())).ingress_https.port
        trust = ssl.create_default_context(cafile=layout.ca_file)
        self._clinic = Clinic(f"https://{PUBLIC_NAME}:{port}", Names(layout.dns), trust)

    async def write(self, row: str) -> bool:
        """Whether the patient is registered."""
        body = {"id": row, "name": f"Synthetic Patient {row[:8]}", "born": "1990-01-01", "clinic": "clinic-1"}
        outcome = await self._clinic.send(Request("write", "patient", row, _PATIENTS, body))
        return outcome.ok

    async def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            await self._clinic.close()
