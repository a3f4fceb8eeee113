"""What is left after a fault, judged from outside: the clinics' ledger, commit timestamps, the old side's WAL, who is primary.

The product is not asked whether it did well: users' acknowledgements and PostgreSQL's own records say so.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from hmsdr.lab import binaries
from hmsdr.lab.hms.ledger import (
    HOSPITAL_ANSWERED,
    Entry,
    acknowledged,
    dual_writers,
    lost_writes,
    outage,
    tables,
)
from hmsdr.lab.layout import DATABASE, Layout

ASYNCHRONOUS_SECONDS = 3.0
"""So long before a fault an acknowledged write may still not have reached the other side."""
_COMMIT = re.compile(r"COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")


@dataclass
class Evidence:
    """Of one fault. Times are UTC seconds of the one machine on which all of it ran."""

    fault: str
    acknowledged: int = 0
    failed: int = 0
    outage_seconds: float | None = None
    epochs: list[int] = field(default_factory=list)
    """Under which writes were acknowledged."""
    dual_writers: int = 0
    overlapping: list[str] = field(default_factory=list)
    """Commits under an epoch after the first one under a later epoch."""
    lost: int = 0
    unexplained: list[str] = field(default_factory=list)
    """Lost writes that asynchronous replication does not explain."""
    primaries: list[str] = field(default_factory=list)
    holder: str = ""
    epoch_before: int = 0
    epoch: int = 0
    phase: str = ""
    decided: list[dict[str, Any]] = field(default_factory=list)
    """What the controllers decided, with what they gave as their reasons."""
    runs: list[str] = field(default_factory=list)
    postmaster_kept: bool = False
    """The active region's database was never started anew."""
    notes: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def connect(layout: Layout, region: str) -> psycopg.Connection[Any]:
    where = layout.regions[region].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname={DATABASE} connect_timeout=3"
    return psycopg.connect(conninfo, autocommit=True)


def primaries(layout: Layout) -> list[str]:
    """Regions whose database would take a write."""
    found = []
    for region in layout.regions:
        try:
            with connect(layout, region) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        except psycopg.Error:
            continue
        if row is not None and row[0] is False:
            found.append(region)
    return found


def judge(found: Evidence, layout: Layout, entries: Sequence[Entry], fault_at: float, old: str) -> None:
    """Fill in what the ledger and the databases say. `old` is the region that was active before the fault."""
    done = acknowledged(entries)
    found.acknowledged = len(done)
    bad = [entry for entry in entries if not entry.ok and entry.error not in HOSPITAL_ANSWERED]
    found.failed = sum(entry.ended_at >= fault_at for entry in bad)
    felt = outage(entries, since=fault_at)
    found.outage_seconds = None if felt is None else felt.seconds
    found.epochs = sorted({entry.epoch for entry in done if entry.epoch is not None})
    found.dual_writers = dual_writers(entries)
    stamps, claims, timeline = _stamps(layout, found.holder, tables(entries))
    lost = set(lost_writes(entries, stamps.keys()))
    found.lost = len(lost)
    earliest = fault_at - ASYNCHRONOUS_SECONDS
    found.unexplained = [
        f"{entry.id} acknowledged {entry.ended_at - fault_at:+.3f} s from the fault under epoch {entry.epoch}"
        for entry in done
        if entry.id in lost
        and (found.epoch in (found.epoch_before, entry.epoch) or entry.ended_at < earliest)
    ]
    found.overlapping = _overlapping(done, stamps, claims)
    if found.holder != old:
        last, first = _last_commit(layout.regions[old].postgres_data, timeline), claims[found.epoch]
        found.notes["old_side_stopped_before_seconds"] = None if last is None else round(first - last, 3)
        if last is None or last >= first:
            found.overlapping.append(f"{old} committed until {last}, epoch {found.epoch} began at {first}")


def _stamps(
    layout: Layout, region: str, names: Sequence[str]
) -> tuple[dict[str, float], dict[int, float], int]:
    """When each row and each epoch's first row was committed, by PostgreSQL's own record; and the timeline."""
    when = "extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
    with connect(layout, region) as connection:
        stamps = {
            row[0]: row[1]
            for name in names
            for row in connection.execute(f"SELECT id::text, {when} FROM {name}").fetchall()  # type: ignore[arg-type]
        }
        claims = dict(connection.execute(f"SELECT epoch, {when} FROM hmsdr_epoch").fetchall())  # type: ignore[arg-type]
        row = connection.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").fetchone()
    assert row is not None
    return stamps, claims, int(row[0], 16)


def _overlapping(
    done: Sequence[Entry], stamps: Mapping[str, float], claims: Mapping[int, float]
) -> list[str]:
    found = []
    for entry in done:
        if entry.epoch is None or (at := stamps.get(entry.id)) is None:
            continue
        began = min((claim for epoch, claim in claims.items() if epoch > entry.epoch), default=None)
        if began is not None and at >= began:
            found.append(f"{entry.id} under epoch {entry.epoch}, {at - began:.3f} s into a later one")
    return found


def _last_commit(data: Path, new_timeline: int) -> float | None:
    """The last commit that ever reached the disk of a side that was replaced, also of what nobody was told about."""
    wal = data / "pg_wal"
    segments = sorted(each.name for each in wal.iterdir() if re.fullmatch("[0-9A-F]{24}", each.name))
    old = [each for each in segments if int(each[:8], 16) < new_timeline]
    last = None
    for timeline in sorted({each[:8] for each in old}):
        ours = [each for each in old if each.startswith(timeline)]
        done = subprocess.run(
            [binaries.postgres_bin() / "pg_waldump", "-p", wal, "-r", "Transaction", ours[0], ours[-1]],
            capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip
        for text in _COMMIT.findall(done.stdout):
            at = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
            last = at if last is None else max(last, at)
    return last
