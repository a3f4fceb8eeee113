"""The clinics' ledger: every request they made and how it ended, and what follows from it about an outage.

Pure over the entries, but for reading and writing their file. It counts; it knows nothing of what was done
to the hospital, and asks nobody: what is in the databases is given to it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

WRITE = "write"
READ = "read"


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a clinic. Times are seconds since 1970 by the clinics' clock."""

    id: str
    """The record written or read."""
    kind: str
    """`WRITE` or `READ`."""
    service: str
    sent_at: float
    done_at: float
    ok: bool
    """A user would have been content. For a write: it was acknowledged as committed."""
    status: int | None = None
    outcome: str = ""
    """Why it failed, in the words of `hmsdr.drivers.http.Outcome` or ``http 503``."""
    instance: str | None = None
    """The database that acknowledged the write."""
    epoch: int | None = None
    committed_at: float | None = None
    """By the database's clock."""
    existed: bool = False
    """An earlier attempt had taken effect though its acknowledgement was lost."""
    region: str | None = None

    @property
    def seconds(self) -> float:
        """How long the user waited."""
        return self.done_at - self.sent_at

    def line(self) -> str:
        """The entry as a line of the file."""
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "kind": (str,),
    "service": (str,),
    "sent_at": (float, int),
    "done_at": (float, int),
    "ok": (bool,),
    "status": (int, type(None)),
    "outcome": (str,),
    "instance": (str, type(None)),
    "epoch": (int, type(None)),
    "committed_at": (float, int, type(None)),
    "existed": (bool,),
    "region": (str, type(None)),
}


class LedgerError(ValueError):
    """A line before the last is not an entry: the file was damaged, and counting it would prove nothing."""


def read(path: Path) -> list[Entry]:
    """All entries, in the order in which requests ended.

    A last line without its newline is what a killed writer leaves, and is passed over.

    Raises:
        FileNotFoundError: no ledger.
        LedgerError: another line cannot be read.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_entry(number, line) for number, line in enumerate(lines, 1)]


def _entry(number: int, line: bytes) -> Entry:
    try:
        raw: Any = json.loads(line)
    except ValueError as error:
        raise LedgerError(f"line {number} is not JSON: {error}") from error
    if not isinstance(raw, dict) or set(raw) != {item.name for item in fields(Entry)}:
        raise LedgerError(f"line {number} is not an entry")
    wrong = [name for name, value in raw.items() if not isinstance(value, _TYPES[name])]
    if wrong:
        raise LedgerError(f"line {number}: {wrong[0]} is {raw[wrong[0]]!r}")
    return Entry(**raw)


def acknowledged(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The first acknowledgement of each write, by id."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.kind == WRITE and entry.ok:
            found.setdefault(entry.id, entry)
    return found


def lost_writes(entries: Iterable[Entry], present: Collection[str]) -> list[Entry]:
    """Acknowledged writes that are not in the database, in the order of their acknowledgement.

    Args:
        entries: the ledger.
        present: ids of all records of the database that serves now.
    """
    there = frozenset(present)
    return [entry for identifier, entry in acknowledged(entries).items() if identifier not in there]


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage as users felt it: from the first request that failed to the end of the first that did not."""

    began_at: float
    """When the first request that failed was sent."""
    ended_at: float | None
    """When the first answer after the last failure came; None while it lasts."""
    failed: int
    """Requests that failed in it."""

    @property
    def seconds(self) -> float | None:
        """How long it was; None while it lasts."""
        return None if self.ended_at is None else self.ended_at - self.began_at


def outages(entries: Iterable[Entry], *, calm: float = 2.0) -> list[Outage]:
    """All outages, oldest first.

    Args:
        entries: the ledger.
        calm: seconds without a failed request that end an outage; a stray success in the middle does not.
    """
    ordered = sorted(entries, key=lambda entry: (entry.sent_at, entry.done_at))
    groups: list[list[Entry]] = []
    for entry in ordered:
        if entry.ok:
            continue
        if groups and entry.sent_at - groups[-1][-1].done_at <= calm:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [_outage(group, ordered) for group in groups]


def _outage(failures: Sequence[Entry], ordered: Sequence[Entry]) -> Outage:
    last = failures[-1].sent_at
    recovered = [entry.done_at for entry in ordered if entry.ok and entry.sent_at >= last]
    return Outage(failures[0].sent_at, min(recovered) if recovered else None, len(failures))


def outage(entries: Iterable[Entry], *, calm: float = 2.0) -> Outage | None:
    """The longest outage, one that still lasts before all others; None when no request failed."""
    found = outages(entries, calm=calm)
    return max(found, key=lambda item: (item.seconds is None, item.seconds or 0.0), default=None)


@dataclass(frozen=True, slots=True)
class DualWriters:
    """Two databases that took writes at once, or under the same right."""

    reason: str
    """``same epoch``: two instances in one epoch. ``after newer epoch``: the older one went on."""
    instances: tuple[str, str]
    """The one that should not have, last."""
    epochs: tuple[int, int]
    writes: tuple[str, ...]
    """Ids of the acknowledged writes that the last of `instances` should not have taken."""


def dual_writers(entries: Iterable[Entry]) -> list[DualWriters]:
    """Every pair of writers that the acknowledgements prove; none when there was one writer at a time.

    Repeated writes that were there already are passed over: whoever confirms them did not take them.
    """
    by_writer: dict[tuple[int, str], list[tuple[float, str]]] = defaultdict(list)
    for entry in acknowledged(entries).values():
        if entry.instance is None or entry.epoch is None or entry.committed_at is None or entry.existed:
            continue
        by_writer[entry.epoch, entry.instance].append((entry.committed_at, entry.id))
    writers = sorted(by_writer, key=lambda writer: (writer[0], min(by_writer[writer])))
    found = []
    for at, (epoch, instance) in enumerate(writers):
        for newer_epoch, newer in writers[at + 1 :]:
            if newer == instance:
                continue
            theirs = by_writer[newer_epoch, newer]
            if newer_epoch == epoch:
                writes = tuple(item for _, item in sorted(theirs))
                found.append(DualWriters("same epoch", (instance, newer), (epoch, epoch), writes))
                continue
            began = min(theirs)[0]
            late = tuple(item for when, item in sorted(by_writer[epoch, instance]) if when > began)
            if late:
                pair = DualWriters("after newer epoch", (newer, instance), (newer_epoch, epoch), late)
                found.append(pair)
    return found


@dataclass(frozen=True, slots=True)
class Slice:
    """What users felt in one stretch of time: requests by the time at which they were sent."""

    at: float
    total: int
    failed: int
    median: float | None
    """Seconds that half of the requests took at most; None when there were none."""
    slowest: float | None


def series(entries: Iterable[Entry], *, width: float = 1.0) -> list[Slice]:
    """Error rate and latency over time, in slices of `width` seconds without gaps.

    Raises:
        ValueError: `width` is not positive.
    """
    if not width > 0:
        raise ValueError("width must be positive")
    by_slice: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_slice[int(entry.sent_at // width)].append(entry)
    if not by_slice:
        return []
    return [
        _slice(number * width, by_slice.get(number, [])) for number in range(min(by_slice), max(by_slice) + 1)
    ]


def _slice(at: float, entries: Sequence[Entry]) -> Slice:
    waits = sorted(entry.seconds for entry in entries)
    return Slice(
        at,
        len(entries),
        sum(not entry.ok for entry in entries),
        waits[(len(waits) - 1) // 2] if waits else None,
        waits[-1] if waits else None,
    )
