"""Damaged data: which copies have it, what the safe answer is, and before which moment a restore has to end (issue 4). Pure.

The rules, each with its test in ``tests/decide/test_corruption.py``:

1. A copy that shows damage, or may have replayed it, is never proposed for the right to write.
2. A copy that does not answer, or was never checked, is unknown: never sound.
3. Where a sound copy exists, nothing is restored: a restore loses what was acknowledged, and a failover does not.
4. An index is built anew only when every sign is of an index, its name is known, and the check that found it looked at everything: then
   the heap under it is known to be sound.
5. A point lies before the first sign on any copy. Without a person's word it lies where something proved the data clean.
6. A person who names a point says that the data were wrong from then on: every copy that has gone past it has replayed that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from hmsdr.decide.backups import BackupRecord, Trial
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.soundness import DamageKind, Doubt, Health, Sign, doubt

_UNNAMED = frozenset({"unnamed", "database", "server"})


class Condition(StrEnum):
    """What is known of a copy."""

    SOUND = "sound"
    DAMAGED = "damaged"
    DOUBTED = "doubted"
    UNKNOWN = "unknown"


class Answer(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    """No copy shows damage."""
    FAILOVER = "failover"
    """The standby is sound and has not replayed it."""
    STANDBY = "rebuild-standby"
    """Only the standby is damaged: it is made anew, and users notice nothing."""
    REINDEX = "reindex"
    """Only indexes are damaged, over a heap that was checked."""
    RESTORE = "restore"
    """Every copy has it: back to a point before it."""
    UNDECIDED = "undecided"
    """Something has to be known first."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One region's database as it was seen. Moments in UTC, LSNs in bytes of WAL.

    ``health`` is None when its agent does not answer (``found`` says why) or knows nothing of damage. ``checked_at``: when the last
    complete check that found nothing began. ``whole``: the last check that found damage looked at everything, and is confirmed.
    """

    region: str
    primary: bool
    health: Health | None = None
    replayed: int | None = None
    checked_at: datetime | None = None
    whole: bool = False
    found: str = ""

    @property
    def signs(self) -> tuple[Sign, ...]:
        """Its signs of damage."""
        return () if self.health is None else self.health.signs


@dataclass(frozen=True, slots=True)
class Before:
    """A person's word: the data are wrong from this moment (UTC), or from this LSN (bytes of WAL), on."""

    time: datetime | None = None
    lsn: int | None = None

    def __str__(self) -> str:
        """As a person wrote it."""
        return format_lsn(self.lsn) if self.lsn is not None else "" if self.time is None else stamp(self.time)


@dataclass(frozen=True, slots=True)
class Judged:
    """A copy, and what is thought of it."""

    copy: Copy
    condition: Condition
    why: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The map of the copies and the answer; ``remedy`` says what to do where the answer is none."""

    copies: tuple[Judged, ...]
    answer: Answer
    why: str
    remedy: str = ""

    @property
    def first_sign(self) -> datetime | None:
        """When damage was first seen, on any copy."""
        return first_sign(each.copy for each in self.copies)


@dataclass(frozen=True, slots=True)
class Clean:
    """A moment (UTC) at which the data were shown to be in order, and by what."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Point:
    """Where a restore ends, one of ``time`` (UTC) and ``lsn`` (bytes of WAL). ``proven``: something showed the data clean then."""

    time: datetime | None
    lsn: int | None
    proven: bool
    reason: str


class PointRefused(Exception):  # noqa: N818 - a refusal is an answer
    """There is no such point: why, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


def first_sign(copies: Iterable[Copy]) -> datetime | None:
    """When damage was first seen, on any of them."""
    return min((moment(sign.since) for copy in copies for sign in copy.signs), default=None)


def diagnose(primary: Copy, standby: Copy, before: Before | None = None) -> Diagnosis:
    """What is known of both copies, and the answer.

    Args:
        primary: of the region that has, or had last, the right to write.
        standby: the other one.
        before: a person's word that the data are wrong from there on.
    """
    if before is not None:
        copies = tuple(_past(copy, before) for copy in (primary, standby))
        why = f"the data are said to be wrong from {before} on, and what was written was replayed: no copy that runs is an answer"
        return Diagnosis(copies, Answer.RESTORE, why)
    first = _primary(primary)
    second = _standby(standby, primary)
    answer, why, remedy = _answer(first, second)
    return Diagnosis((first, second), answer, why, remedy)


def _past(copy: Copy, before: Before) -> Judged:
    if copy.health is None:
        return Judged(copy, Condition.UNKNOWN, copy.found or "its agent knows nothing of damage")
    behind = before.lsn is not None and copy.replayed is not None and copy.replayed < before.lsn
    if behind and not copy.signs:
        return Judged(copy, Condition.DOUBTED, f"it stands before {before}, and may go past it at any moment")
    return Judged(copy, Condition.DAMAGED, f"it went past {before}: it has what is wrong")


def _primary(copy: Copy) -> Judged:
    if copy.health is None:
        return Judged(copy, Condition.UNKNOWN, copy.found or "its agent knows nothing of damage")
    if copy.signs:
        return Judged(copy, Condition.DAMAGED, _told(copy.signs))
    if copy.health.checked_lsn is None:
        return Judged(copy, Condition.UNKNOWN, "no sign of damage, and no complete check of it")
    return Judged(copy, Condition.SOUND, _checked(copy))


def _standby(copy: Copy, primary: Copy) -> Judged:
    if copy.health is None:
        return Judged(copy, Condition.UNKNOWN, copy.found or "its agent knows nothing of damage")
    if copy.signs:
        return Judged(copy, Condition.DAMAGED, _told(copy.signs))
    if primary.health is None:
        words = "no sign of damage; what the primary had seen when this copy replayed from it is not known"
        return Judged(copy, Condition.UNKNOWN, words)
    if doubt(copy.health, copy.replayed, primary.health) is not None:
        return Judged(copy, Condition.DOUBTED, Doubt.UNCHECKED)
    if copy.health.checked_lsn is None:
        return Judged(copy, Condition.UNKNOWN, "no sign of damage, and no complete check of it")
    return Judged(copy, Condition.SOUND, _checked(copy))


def _answer(primary: Judged, standby: Judged) -> tuple[Answer, str, str]:
    """The answer, why, and what to do."""
    if not primary.copy.signs and not standby.copy.signs:
        return _no_sign(primary, standby)
    if not primary.copy.signs:
        return _standby_only(primary, standby)
    ours, theirs = primary.copy.region, standby.copy.region
    if _only_indexes(primary, standby):
        why = "only indexes are damaged; the check that found them looked at every table, and found those in order"
        return Answer.REINDEX, why, ""
    if standby.condition is Condition.SOUND:
        why = f"{theirs} is sound, and was checked since it replayed what {ours} had written: nothing needs to be lost"
        return Answer.FAILOVER, why, ""
    if standby.condition is Condition.DAMAGED:
        return (
            Answer.RESTORE,
            "both copies are damaged: a copy that replayed the damage is never the answer",
            "",
        )
    why = f"{ours} is damaged, and whether {theirs} is, is not known: {standby.why}"
    remedy = (
        f"Wait for the check of {theirs}, which begins by itself (`hmsdr damage show {theirs}`): if it is clean, a failover loses "
        "nothing. To go back all the same, name a moment with --before"
    )
    return Answer.UNDECIDED, why, remedy


def _no_sign(primary: Judged, standby: Judged) -> tuple[Answer, str, str]:
    unknown = [each for each in (primary, standby) if each.condition is not Condition.SOUND]
    if not unknown:
        return Answer.NOTHING, "both copies were checked and are in order", _LOGICAL
    first = unknown[0]
    why = f"no copy shows damage, and of {first.copy.region} it is not known: {first.why}"
    return (
        Answer.UNDECIDED,
        why,
        f"`hmsdr damage show {first.copy.region}` tells how its checks stand. {_LOGICAL}",
    )


def _standby_only(primary: Judged, standby: Judged) -> tuple[Answer, str, str]:
    ours, theirs = primary.copy.region, standby.copy.region
    if primary.condition is Condition.SOUND:
        return Answer.STANDBY, f"only {theirs}, which does not write, is damaged", ""
    remedy = (
        f"See its agent: `hmsdr damage show {ours}`. To go back all the same, name a moment with --before"
    )
    return Answer.UNDECIDED, f"{theirs} is damaged, and of {ours} it is not known: {primary.why}", remedy


_LOGICAL = "Data that are wrong without being broken show no sign: name the moment with --before"


def _only_indexes(primary: Judged, standby: Judged) -> bool:
    """The server's log tells of a broken index without its name, also where the check found it: then a name has to be known beside it."""

    def indexes(each: Judged) -> bool:
        signs = each.copy.signs
        return (
            each.copy.whole and all(sign.kind is DamageKind.INDEX for sign in signs) and bool(_named(signs))
        )

    return indexes(primary) and (not standby.copy.signs or indexes(standby))


def damaged_indexes(copies: Iterable[Copy]) -> tuple[str, ...]:
    """Names of the indexes that are damaged on any copy: built anew on the primary, each is new on the standby too."""
    return tuple(sorted({name for copy in copies for name in _named(copy.signs)}))


def _named(signs: Iterable[Sign]) -> set[str]:
    return {sign.where for sign in signs if sign.kind is DamageKind.INDEX and sign.where not in _UNNAMED}


def clean_moments(
    copies: Iterable[Copy], trial: Trial | None, records: Sequence[BackupRecord]
) -> tuple[Clean, ...]:
    """What showed the data to be in order, the latest first.

    A check of a standby is none of a moment: how far behind it was when the check began is not remembered. A backup that was tried out counts as of its own end: what was replayed on top of it is not taken for granted.
    """
    found = [
        Clean(copy.checked_at, f"a complete check of {copy.region} began, and found nothing")
        for copy in copies
        if copy.primary and copy.checked_at is not None
    ]
    if trial is not None and trial.good:
        found += [
            Clean(record.ended, f"backup {record.id} ended, which was restored and checked since")
            for record in records
            if record.id == trial.backup
        ]
    return tuple(sorted(found, key=lambda each: each.at, reverse=True))


def first_lsn(copies: Iterable[Copy]) -> int | None:
    """Where the database was when damage was first seen, on any of them, in bytes of WAL; None where no sign tells."""
    return min((sign.lsn for copy in copies for sign in copy.signs if sign.lsn is not None), default=None)


def point(
    first: datetime | None, cleans: Sequence[Clean], before: Before | None, *, seen_lsn: int | None = None
) -> Point:
    """The point in time to go back to.

    Args:
        first: when damage was first seen on any copy; None when nothing was.
        cleans: what showed the data to be in order.
        before: a person's word.
        seen_lsn: where the database was when damage was first seen, in bytes of WAL.

    Raises:
        PointRefused: nothing proves a moment, or the one that was named lies in the damaged span.
    """
    if before is None:
        return _proven(first, cleans)
    if before.lsn is not None:
        if seen_lsn is not None and before.lsn > seen_lsn:
            found = f"{before} lies in the damaged span: damage was seen when the database was at {format_lsn(seen_lsn)}"
            raise PointRefused(found, f"Name an LSN before {format_lsn(seen_lsn)}, or a moment")
        reason = f"named by a person: everything that ended before {before}"
        return Point(None, before.lsn, proven=False, reason=reason)
    assert before.time is not None  # noqa: S101 - a word names one of the two
    if first is not None and before.time > first:
        found = f"{before} lies in the damaged span: damage was seen at {stamp(first)}"
        known = next((each for each in cleans if each.at < first), None)
        hint = "" if known is None else f"; {stamp(known.at)} is known to be clean ({known.by})"
        raise PointRefused(found, f"Name a moment before it{hint}")
    # What was committed in that very moment is what is wrong: the server would take it in.
    time = before.time - timedelta(microseconds=1)
    known = next((each for each in cleans if each.at >= time and (first is None or each.at < first)), None)
    shown = (
        "" if known is None else f"; {known.by} at {stamp(known.at)}, so that pages and indexes were in order"
    )
    return Point(time, None, proven=False, reason=f"named by a person: before {before}{shown}")


def _proven(first: datetime | None, cleans: Sequence[Clean]) -> Point:
    known = next((each for each in cleans if first is None or each.at < first), None)
    if known is None:
        seen = "" if first is None else f" before {stamp(first)}, when damage was first seen"
        raise PointRefused(
            f"nothing shows the data to have been in order at any moment{seen}",
            "Try a moment out: `hmsdr backup verify --target-time TIME`; then name it with --before",
        )
    since = "" if first is None else f"; damage was first seen at {stamp(first)}"
    return Point(known.at, None, proven=True, reason=f"at {stamp(known.at)} {known.by}{since}")


def backup_condition(
    record: BackupRecord, first: datetime | None, cleans: Sequence[Clean], trial: Trial | None
) -> tuple[Condition, str]:
    """What is known of a backup as a copy."""
    if trial is not None and trial.backup == record.id and trial.good:
        return Condition.SOUND, f"restored and checked at {stamp(trial.at)}"
    if first is not None and record.ended > first:
        return Condition.DOUBTED, f"it ended after damage was first seen, at {stamp(first)}"
    known = next(
        (each for each in cleans if each.at >= record.ended and (first is None or each.at < first)), None
    )
    if known is not None:
        return Condition.SOUND, f"it ended before {known.by} ({stamp(known.at)})"
    return Condition.UNKNOWN, "nothing showed the data to be in order after it ended"


def not_archived(wanted: Point, archived_until: datetime | None) -> str:
    """Why the archive does not reach a point in time, in words; empty when it may.

    ``archived_until`` is when the archive last got a file (UTC): nothing of later moments can be in it.
    """
    if wanted.time is None or (archived_until is not None and wanted.time <= archived_until):
        return ""
    until = "has no WAL" if archived_until is None else f"got its last file of WAL at {stamp(archived_until)}"
    return f"the archive {until}, and the point is {stamp(wanted.time)}"


def moment(text: str) -> datetime:
    """A sign's time. Raises ValueError when it is none."""
    return datetime.fromisoformat(text)


def stamp(at: datetime) -> str:
    """A moment as commands take it."""
    return at.isoformat(timespec="microseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _told(signs: Sequence[Sign]) -> str:
    return f"{len(signs)} sign{'s' if len(signs) > 1 else ''} of damage, since {min(sign.since for sign in signs)}"


def _checked(copy: Copy) -> str:
    return (
        "no sign of damage"
        if copy.checked_at is None
        else f"a complete check at {stamp(copy.checked_at)} found nothing"
    )
