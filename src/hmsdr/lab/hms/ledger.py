"""The clinics' ledger: what users asked, when, and what they were told; and what follows from it, counted.

One line of JSON for each attempt. The functions that judge are pure: entries in, figures out. All times are unix
seconds of the one machine on which the clinics run, steady within a run.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from hmsdr.errors import FailedError
from hmsdr.lab.hms.entities import of_service

SUSTAINED = 10
"""So many requests after the first good one must be good, too, before the outage is called over."""
HOSPITAL_ANSWERED = frozenset({"missing", "conflict"})
"""Errors that are answers of a working hospital about data it does not have: lost writes, not an outage."""
_TAIL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt. ``n`` counts attempts; a repeated write has a new ``n`` and the same ``id``.

    ``status`` is None when there was no answer; ``error`` is a short class of failure, None when ``ok``.
    ``region``, ``instance`` and ``epoch`` are what the answer said.
    """

    n: int
    kind: Literal["write", "read"]
    service: str
    id: str
    sent_at: float
    ended_at: float
    status: int | None
    ok: bool
    error: str | None
    region: str | None
    instance: str | None
    epoch: int | None
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Outage:
    """From the moment the first failed request was sent to the moment the first lasting success was heard."""

    first_failed_at: float
    recovered_at: float | None
    """None: no lasting recovery in the ledger."""
    failed: int
    """Attempts that failed in between."""

    @property
    def seconds(self) -> float | None:
        """How long it lasted."""
        return None if self.recovered_at is None else self.recovered_at - self.first_failed_at


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests sent in one stretch of time; latencies in milliseconds of those that succeeded, None without any."""

    start: float
    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None


class Ledger:
    """The file, open for appending. A line that a crash tore off is removed when it is opened again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, _TAIL, max(0, size - _TAIL))
        whole = tail[: tail.rfind(b"\n") + 1]
        os.ftruncate(self._file, size - len(tail) + len(whole))
        # Entries stand in the order of their ends; the highest number is among the last ones.
        lines = whole.splitlines()[1 if size > _TAIL else 0 :]
        self.next_n = max((_parse(line).n for line in lines), default=0) + 1

    def write(self, entry: Entry) -> None:
        """Append one entry, at once."""
        os.write(self._file, json.dumps(asdict(entry), separators=(",", ":")).encode() + b"\n")
        self.next_n = max(self.next_n, entry.n + 1)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @staticmethod
    def read(path: Path) -> list[Entry]:
        """All entries; a last line without its end is one that is being written, and is left out.

        Raises:
            FailedError: the file cannot be read, or a line in it is none of ours.
        """
        doing = f"reading the ledger {path}"
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise FailedError(doing, error.strerror or str(error), "Name the clinics' ledger") from error
        entries = []
        for number, line in enumerate(lines, start=1):
            try:
                entries.append(_parse(line))
            except (ValueError, TypeError) as error:
                raise FailedError(
                    doing, f"line {number} is no entry: {error}", "Name the clinics' ledger, unedited"
                ) from error
        return entries


def acknowledged(entries: Iterable[Entry]) -> list[Entry]:
    """Attempts to write that were answered as done."""
    return [entry for entry in entries if entry.kind == "write" and entry.ok]


def outage(
    entries: Iterable[Entry], *, since: float = -math.inf, sustained: int = SUSTAINED
) -> Outage | None:
    """The first outage as users felt it, in the order in which they heard; None when nothing failed.

    Args:
        entries: in any order.
        since: attempts that were over before this moment do not count.
        sustained: so many attempts after the first success must succeed as well.
    """
    heard = sorted(
        (entry for entry in entries if entry.ended_at >= since and entry.error not in HOSPITAL_ANSWERED),
        key=lambda entry: entry.ended_at,
    )
    first = next((number for number, entry in enumerate(heard) if not entry.ok), None)
    if first is None:
        return None
    began = heard[first].sent_at
    failed = 0
    run: list[Entry] = []
    for entry in heard[first:]:
        if not entry.ok:
            failed += 1
            run.clear()
            continue
        run.append(entry)
        if len(run) == sustained + 1:
            return Outage(began, run[0].ended_at, failed)
    return Outage(began, None, failed)


def dual_writers(entries: Iterable[Entry]) -> int:
    """Acknowledged writes that break FA-4 for certain.

    A write under epoch e counts when it was sent after a write under a later epoch had come back acknowledged: its
    commit then lies after the later epoch's first.
    """
    done = [entry for entry in acknowledged(entries) if entry.epoch is not None]
    first: dict[int, float] = {}
    for entry in done:
        assert entry.epoch is not None  # noqa: S101 - chosen so
        first[entry.epoch] = min(first.get(entry.epoch, math.inf), entry.ended_at)
    overtaken = {
        epoch: min((at for later, at in first.items() if later > epoch), default=math.inf) for epoch in first
    }
    return sum(entry.epoch is not None and entry.sent_at > overtaken[entry.epoch] for entry in done)


def series(entries: Sequence[Entry], bucket_seconds: float) -> list[Bucket]:
    """Requests, errors and latencies by the moment of sending, without gaps, from the first attempt on."""
    if not entries:
        return []
    start = min(entry.sent_at for entry in entries)
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(int((entry.sent_at - start) / bucket_seconds), []).append(entry)
    return [
        _bucket(start + number * bucket_seconds, groups.get(number, ())) for number in range(max(groups) + 1)
    ]


def lost_writes(entries: Iterable[Entry], present: Collection[str]) -> list[str]:
    """Ids of acknowledged writes that are not among `present`, in the order of their acknowledgement."""
    return list(dict.fromkeys(entry.id for entry in acknowledged(entries) if entry.id not in present))


def tables(entries: Iterable[Entry]) -> tuple[str, ...]:
    """The tables that the clinics wrote to."""
    return tuple(sorted({of_service(entry.service)[0].table for entry in entries if entry.kind == "write"}))


async def present_ids(conninfo: str, names: Collection[str], *, deadline: float) -> set[str]:
    """Ids of all rows of the tables `names` in the surviving database.

    Args:
        conninfo: of the database, in any form that libpq reads.
        names: tables with a UUID column ``id``.
        deadline: seconds.

    Raises:
        FailedError: it cannot be asked.
    """
    found: set[str] = set()
    try:
        async with (
            asyncio.timeout(deadline),
            await psycopg.AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=5) as connection,
        ):
            for name in names:
                query = sql.SQL("SELECT id::text FROM {}").format(sql.Identifier(name))
                found.update(row[0] for row in await (await connection.execute(query)).fetchall())
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise FailedError(
            "reading the ids in the surviving database",
            str(error).strip() or f"no answer within {deadline:g} s",
            "Check that it is up",
        ) from error
    return found


def _parse(line: bytes) -> Entry:
    return Entry(**json.loads(line))


def _bucket(start: float, entries: Sequence[Entry]) -> Bucket:
    latencies = sorted(entry.latency_ms for entry in entries if entry.ok)
    errors = sum(not entry.ok for entry in entries)
    return Bucket(start, len(entries), errors, _quantile(latencies, 0.5), _quantile(latencies, 0.95))


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
