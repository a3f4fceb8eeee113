"""How long a restore would take tonight: from what the last one that was tried took. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Took:
    """What a restore took: seconds and amounts of its two parts."""

    unpacked: int
    """Bytes of the base backup when unpacked."""
    unpack_seconds: float
    """Reading, checking and unpacking it."""
    wal_files: int
    replay_seconds: float
    """Fetching and replaying that many files of WAL."""


def estimate(took: Took, *, unpacked: int, wal_files: int) -> timedelta:
    """The same for another amount: both parts grow with what they handle, and never shrink below what they cost at least."""
    unpack = took.unpack_seconds * max(1.0, unpacked / max(1, took.unpacked))
    replay = took.replay_seconds * max(1.0, wal_files / max(1, took.wal_files))
    return timedelta(seconds=unpack + replay)


def worst(took: Took, *, every: timedelta, wal_every: timedelta) -> timedelta:
    """Just before the next base backup, when at least one file is archived each `wal_every`."""
    files = max(took.wal_files, round(every / wal_every))
    return estimate(took, unpacked=took.unpacked, wal_files=files)
