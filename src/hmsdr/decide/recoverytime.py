"""How long each path back would take, and how that was estimated: amounts that are known, speeds that were measured. Pure.

A speed that nobody measured is assumed, and the words say so. An estimate is no promise: it tells paths apart, and a night from
a minute.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
ASSUMED_LINK = 50.0 * _MIB
ASSUMED_DISK = 200.0 * _MIB
ASSUMED_REPLAY = 60.0 * _MIB
"""Bytes a second, where nothing was measured."""
_START = 2.0
"""Seconds to stop, start and begin to stream."""
_PAGES_PER_WAL = 8
"""A byte of WAL touches at most about so many bytes of pages: small records touch whole pages."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Speeds that the agent measured, in bytes a second; None where it could not.

    ``link``: from the primary to it, just now. ``disk``: writing beside its data, synced, just now. The others are those of
    the last recovery of that kind: ``replay`` of WAL, ``restore`` of a backup with everything, ``copy`` of a whole primary.
    """

    link: float | None = None
    disk: float | None = None
    replay: float | None = None
    restore: float | None = None
    copy: float | None = None


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds, and how they were estimated."""

    seconds: float
    how: str


def follow_time(rates: Rates, *, wal: int) -> Duration:
    """Catching up with `wal` bytes."""
    replay, words = _replaying(rates)
    return Duration(_START + wal / replay, f"{_size(wal)} of WAL at {words}")


def rewind_time(rates: Rates, *, size: int, tail: int, wal: int) -> Duration:
    """Saving what `tail` bytes of WAL committed alone from a copy of `size`, setting pages back, and catching up with `wal`."""
    disk, disk_words = _named("disk", rates.disk, ASSUMED_DISK)
    link, link_words = _named("link", rates.link, ASSUMED_LINK)
    replay, replay_words = _replaying(rates)
    pages = min(size, _PAGES_PER_WAL * tail)
    seconds = _START + size / disk + (pages + wal) / link + wal / replay
    how = (
        f"a copy of {_size(size)} for the rows that it has alone at {disk_words}, at most {_size(pages)} of pages and "
        f"{_size(wal)} of WAL at {link_words}, replay at {replay_words}"
    )
    return Duration(seconds, how)


def restore_time(rates: Rates, *, unpacked: int, wal: int, rest: int, trial: float | None) -> Duration:
    """Unpacking and checking `unpacked` bytes, replaying `wal` from the archive and `rest` from the primary."""
    replay, replay_words = _replaying(rates)
    streamed = rest / replay
    if trial is not None:
        words = f"{trial:.1f} s as the last restore that was tried out took"
        return Duration(_START + trial + streamed, f"{words}, then {_size(rest)} of WAL at {replay_words}")
    if rates.restore:
        took = (unpacked + wal) / rates.restore
        words = f"{_size(unpacked + wal)} at {_speed(rates.restore)}, as the last restore here went"
        return Duration(_START + took + streamed, f"{words}, then {_size(rest)} of WAL at {replay_words}")
    disk, disk_words = _named("disk", rates.disk, ASSUMED_DISK)
    # Read to be checked, unpacked, and read again page by page.
    seconds = _START + 3 * unpacked / min(disk, ASSUMED_LINK) + wal / replay + streamed
    how = (
        f"{_size(unpacked)} read, unpacked and checked at {_speed(min(disk, ASSUMED_LINK))} (the object store's speed is assumed, "
        f"{disk_words}), {_size(wal)} of WAL from the archive and {_size(rest)} from the primary at {replay_words}"
    )
    return Duration(seconds, how)


def basebackup_time(rates: Rates, *, size: int) -> Duration:
    """Copying the primary's `size` bytes, then reading the copy to verify it."""
    if rates.copy:
        words = f"{_size(size)} at {_speed(rates.copy)}, as the last copy of the primary went"
        return Duration(_START + size / rates.copy, words)
    link, link_words = _named("link", rates.link, ASSUMED_LINK)
    disk, disk_words = _named("disk", rates.disk, ASSUMED_DISK)
    seconds = _START + size / min(link, disk) + size / disk
    return Duration(seconds, f"{_size(size)} at {link_words}, verified at {disk_words}")


def _replaying(rates: Rates) -> tuple[float, str]:
    """WAL comes no faster than the link brings it."""
    replay, words = _named("replay", rates.replay, ASSUMED_REPLAY)
    if rates.link is not None and rates.link < replay:
        return rates.link, _named("link", rates.link, ASSUMED_LINK)[1]
    return replay, words


def _named(what: str, measured: float | None, assumed: float) -> tuple[float, str]:
    if measured is not None and measured > 0:
        return measured, f"{_speed(measured)} ({what}, measured)"
    return assumed, f"{_speed(assumed)} ({what}, assumed: nothing was measured)"


def _speed(rate: float) -> str:
    return f"{rate / _MIB:.0f} MiB/s" if rate >= _MIB else f"{rate / 1024:.0f} KiB/s"


def _size(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size >= _MIB else f"{size} bytes"
