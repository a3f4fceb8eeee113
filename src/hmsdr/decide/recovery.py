"""By which path a lost database comes back (RC-1, RC-2): what state it is in, every path with its time, the fastest safe one. Pure.

Nothing is rewound or followed on damaged data; what is there is replaced only by what was verified beside it; the primary, which
serves patients, is read whole only when no backup leads to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.recoverytime import Duration, Rates, basebackup_time, follow_time, restore_time, rewind_time
from hmsdr.decide.timelines import fork, history

MARGIN = 256 * 1024 * 1024
"""Bytes that stay free besides what a path needs."""


class Condition(StrEnum):
    """The state of a component of a lost region."""

    INTACT = "intact"
    DIVERGED = "diverged"
    """It is sound, and went another way than the side that serves now."""
    CORRUPT = "corrupt"
    GONE = "gone"
    UNKNOWN = "unknown"


class Path(StrEnum):
    """A way back for a database, in the order in which they are preferred."""

    FOLLOW = "follow"
    REWIND = "rewind"
    RESTORE = "restore"
    BASEBACKUP = "basebackup"


SAFE: Mapping[Condition, frozenset[Path]] = {
    Condition.INTACT: frozenset(Path),
    Condition.DIVERGED: frozenset({Path.REWIND, Path.RESTORE, Path.BASEBACKUP}),
    Condition.CORRUPT: frozenset({Path.RESTORE, Path.BASEBACKUP}),
    Condition.GONE: frozenset({Path.RESTORE, Path.BASEBACKUP}),
    Condition.UNKNOWN: frozenset(),
}
"""The paths that do no harm to data in that state, and are of no use with other data."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component of the region: its state and what says so, in words."""

    name: str
    condition: Condition
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalData:
    """What the agent tells of its data directory. LSNs and sizes in bytes; None where it cannot be told."""

    exists: bool
    problem: str = ""
    """Why its control data cannot be read; empty when it can."""
    system_identifier: int | None = None
    state: str = ""
    """As its control file says it."""
    timeline: int | None = None
    history: str = ""
    """The text of that timeline's history file."""
    ends: int | None = None
    """Where its WAL ends."""
    size: int = 0
    free: int = 0
    """Room where it lies."""
    mount_point: bool = False
    """It is a file system of its own, and cannot be replaced by another directory."""
    rewinding: bool = False
    """A rewind of it began and did not end."""
    broken: str = ""
    """Why the last rewind of it failed."""
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """A replication slot of the primary with the name that the region's server follows through."""

    kind: str
    active: bool
    lost: bool
    """The WAL that it should have kept is gone."""


@dataclass(frozen=True, slots=True)
class PrimarySeen:
    """The database that has the right to write. ``found`` says why something of it is not known."""

    writes: bool
    found: str = ""
    system_identifier: int | None = None
    timeline: int | None = None
    history: str | None = None
    lsn: int | None = None
    size: int = 0
    oldest_wal: int | None = None
    """From here on it has WAL to give."""
    slot: SlotSeen | None = None
    slots: int = 0
    slots_at_most: int = 0


@dataclass(frozen=True, slots=True)
class BackupFound:
    """The backup that would be restored, and how far its WAL leads; ``problem`` says why there is none that leads to the primary."""

    problem: str = ""
    id: str = ""
    bucket: str = ""
    unpacked: int = 0
    wal_files: int = 0
    wal_bytes: int = 0
    reaches: int = 0
    """LSN up to which the archived WAL goes without a gap."""
    room: int = 0
    """Bytes that it needs on disk."""
    trial_seconds: float | None = None
    """How long the last restore that was tried out took, of about as much."""


@dataclass(frozen=True, slots=True)
class DatabaseSeen:
    """Everything that is known of the database that is to come back."""

    local: LocalData | None
    """None: its agent does not answer, and ``found`` says how."""
    primary: PrimarySeen
    backup: BackupFound
    found: str = ""
    streaming: bool = False
    signs: tuple[str, ...] = ()
    """Signs of damage, in words."""


@dataclass(frozen=True, slots=True)
class Option:
    """One path. ``obstacle`` says why it is not possible or not safe (empty when it is both); ``time`` what it would take."""

    path: Path
    obstacle: str
    time: Duration | None
    why_not: str = ""
    """Why it was not picked; empty for the one that was."""


@dataclass(frozen=True, slots=True)
class DatabasePlan:
    """How the database comes back. ``picked`` is None when no path is safe."""

    component: Component
    parted_at: int | None
    """Up to where both have the same (bytes of WAL); None when they did not part, or nobody knows."""
    options: tuple[Option, ...]
    picked: Path | None

    def option(self, path: Path) -> Option:
        """That of `path`."""
        return next(option for option in self.options if option.path is path)


def plan(seen: DatabaseSeen) -> DatabasePlan:
    """Judge the state of the database, and pick the first path that is safe and possible."""
    component, parted = assess(seen)
    if component.condition is Condition.UNKNOWN or not seen.primary.writes:
        why = seen.primary.found if not seen.primary.writes else component.evidence[0]
        options = tuple(Option(path, f"not known whether it is safe: {why}", None, why) for path in Path)
        return DatabasePlan(component, parted, options, None)
    asked = [
        Option(path, _obstacle(path, component.condition, seen, parted), _time(path, seen, parted))
        for path in Path
    ]
    picked = next((option for option in asked if not option.obstacle), None)
    options = tuple(
        Option(each.path, each.obstacle, each.time, "" if each is picked else _why_not(each, picked))
        for each in asked
    )
    return DatabasePlan(component, parted, options, None if picked is None else picked.path)


def assess(seen: DatabaseSeen) -> tuple[Component, int | None]:
    """The state of the database with its evidence, and where it parted from the primary."""
    local, primary = seen.local, seen.primary
    if local is None:
        return _judged(Condition.UNKNOWN, seen.found or "its agent does not answer"), None
    if not local.exists:
        return _judged(Condition.GONE, "there is no data directory"), None
    if broken := _broken(seen, local):
        return _judged(Condition.CORRUPT, *broken), None
    if seen.streaming:
        return _judged(Condition.INTACT, "it streams from the primary"), None
    return _by_history(local, primary)


def _by_history(local: LocalData, primary: PrimarySeen) -> tuple[Component, int | None]:
    if not primary.writes or primary.history is None or primary.timeline is None or local.timeline is None:
        return _judged(Condition.UNKNOWN, f"there is no primary to compare it with: {primary.found}"), None
    try:
        parted = fork(history(local.timeline, local.history), history(primary.timeline, primary.history))
    except ValueError as error:
        return _judged(Condition.CORRUPT, f"it has no history in common with the primary: {error}"), None
    return _compared(local, primary, parted), parted


def _judged(condition: Condition, *evidence: str) -> Component:
    return Component("database", condition, evidence)


def _broken(seen: DatabaseSeen, local: LocalData) -> tuple[str, ...]:
    """What speaks against its data, whatever its history is."""
    if local.problem:
        return (f"its control data cannot be read: {local.problem}",)
    if local.broken:
        return (f"a rewind of it failed half-way: {local.broken}",)
    theirs = seen.primary.system_identifier
    if theirs is not None and local.system_identifier != theirs:
        return (f"it is of system {local.system_identifier}, the primary of {theirs}",)
    return seen.signs


def _compared(local: LocalData, primary: PrimarySeen, parted: int | None) -> Component:
    """Whether it parted from the primary, by the timelines of both."""
    behind = "" if local.ends is None or primary.lsn is None else _behind(primary.lsn - local.ends)
    if local.rewinding:
        return _judged(Condition.DIVERGED, "it diverged, and a rewind of it did not end")
    if parted is None:
        return _judged(Condition.INTACT, f"it is on the primary's timeline {local.timeline}{behind}")
    at = format_lsn(parted)
    if local.ends is None:
        words = f"the primary left its timeline at {at}, and where its own WAL ends cannot be read"
        return _judged(Condition.DIVERGED, words)
    if local.ends > parted:
        words = f"it wrote {local.ends - parted} bytes of WAL past {at} that the primary never saw"
        return _judged(Condition.DIVERGED, words)
    words = f"its WAL ends at {format_lsn(local.ends)}, before the primary went on alone at {at}{behind}"
    return _judged(Condition.INTACT, words)


def _behind(size: int) -> str:
    return f", {max(0, size)} bytes of WAL behind"


def _obstacle(path: Path, condition: Condition, seen: DatabaseSeen, parted: int | None) -> str:
    """Why a path is not safe or not possible; empty when it is both."""
    local = seen.local
    if local is None or path not in SAFE[condition]:
        return f"not safe: the database is {condition}"
    if path in (Path.FOLLOW, Path.REWIND):
        return _in_place(path, condition, seen, local, parted)
    if local.mount_point:
        return "its data directory is a file system of its own: another directory cannot take its name"
    if path is Path.BASEBACKUP:
        return _no_room(seen.primary.size, local)
    return _restorable(seen.backup, seen.primary) or _no_room(seen.backup.room - MARGIN, local)


def _in_place(
    path: Path, condition: Condition, seen: DatabaseSeen, local: LocalData, parted: int | None
) -> str:
    """What speaks against going on with the data that are there."""
    primary = seen.primary
    if path is Path.REWIND and condition is not Condition.DIVERGED:
        return "there is nothing to rewind"
    since = local.ends if path is Path.FOLLOW else parted
    # Streaming proves by itself that everything is there.
    if not seen.streaming and since is not None and _wal_is_gone(since, primary):
        oldest = format_lsn(primary.oldest_wal or 0)
        return f"the primary has no WAL from {format_lsn(since)} on any more, only from {oldest}"
    if path is Path.REWIND and primary.lsn is not None and parted is not None:
        return _no_room(primary.lsn - parted, local)
    return ""


def _restorable(backup: BackupFound, primary: PrimarySeen) -> str:
    if backup.problem:
        return f"nothing to restore: {backup.problem}"
    if _wal_is_gone(backup.reaches, primary):
        gap = f"the archived WAL ends at {format_lsn(backup.reaches)}"
        return f"{gap}, and the primary has none from before {format_lsn(primary.oldest_wal or 0)}"
    return ""


def _wal_is_gone(since: int, primary: PrimarySeen) -> bool:
    return primary.oldest_wal is not None and since < primary.oldest_wal


def _no_room(needed: int, local: LocalData) -> str:
    wanted = max(0, needed) + MARGIN
    if local.free >= wanted:
        return ""
    return f"no room: {wanted >> 20} MiB are needed beside the data directory, and {local.free >> 20} MiB are free"


def _time(path: Path, seen: DatabaseSeen, parted: int | None) -> Duration | None:
    local, lsn = seen.local, seen.primary.lsn
    if local is None or lsn is None:
        return None
    rates = local.rates
    if path is Path.FOLLOW and local.ends is not None:
        return follow_time(rates, wal=max(0, lsn - local.ends))
    if path is Path.REWIND and parted is not None:
        tail = max(0, (local.ends or parted) - parted)
        return rewind_time(rates, size=local.size, tail=tail, wal=max(0, lsn - parted))
    if path is Path.BASEBACKUP and seen.primary.size:
        return basebackup_time(rates, size=seen.primary.size)
    backup = seen.backup
    if path is not Path.RESTORE or backup.problem:
        return None
    rest = max(0, lsn - backup.reaches)
    return restore_time(
        rates, unpacked=backup.unpacked, wal=backup.wal_bytes, rest=rest, trial=backup.trial_seconds
    )


def _why_not(option: Option, picked: Option | None) -> str:
    if option.obstacle or picked is None:
        return option.obstacle
    if option.path is Path.BASEBACKUP and picked.path is Path.RESTORE:
        return "it would read the whole database from the primary, which serves patients; the backup needs nothing of it"
    return f"not needed: {picked.path} is safe, and does less"


def cannot_follow_slot(primary: PrimarySeen, name: str) -> str:
    """Why the region's server could not follow through its slot `name`, in words; empty when it can, or the slot can be made."""
    slot = primary.slot
    if slot is None:
        if primary.slots_at_most and primary.slots >= primary.slots_at_most:
            return f"there is no slot {name}, and all {primary.slots_at_most} slots of the primary are in use"
        return ""
    if slot.kind != "physical":
        return f"slot {name} is there and is a {slot.kind} one"
    if slot.lost and slot.active:
        return f"slot {name} has lost its WAL, and somebody uses it"
    return ""


def first_unmet(options: Sequence[Option]) -> str:
    """In one line, why there is no path at all."""
    return "; ".join(f"{option.path}: {option.obstacle}" for option in options)
