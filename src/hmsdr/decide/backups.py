"""Which backup is meant, whether it is whole, and which are no longer needed. Pure: gets records and listings, gives judgements.

Every base backup has a record beside the data: one small object, written last, that names every object of the backup
with its size and SHA-256. A backup without a record does not count, and one whose record does not fit is not restored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from hmsdr.decide.lsn import format_lsn, parse_lsn

FORMAT = 1
RECORD_LIMIT = 1024 * 1024
"""Bytes; a larger object is no record."""
_NAME = "backup_"
_CLOCKS = timedelta(minutes=5)
"""Two clocks may differ by this much before one of them is called wrong."""
_PATIENCE = 1.25
"""Times an interval, until what is due counts as missed."""


class RecordError(ValueError):
    """A record cannot be believed, and why."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object of a backup: its key below the prefix, its size in bytes, its SHA-256."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """What is known of a base backup. LSNs in bytes of WAL, sizes in bytes, times in UTC."""

    id: str
    """As Barman calls it; with the server's name it is where the backup lies."""
    server: str
    region: str
    """The region whose server was backed up."""
    system_identifier: int
    major: int
    """PostgreSQL's major version."""
    timeline: int
    segment: int
    """Size of a file of WAL."""
    begin_wal: str
    begin_lsn: int
    end_lsn: int
    """From here on the restored database is consistent."""
    began: datetime
    ended: datetime
    unpacked: int
    """Room that the restored files need."""
    files: tuple[StoredFile, ...]

    @property
    def name(self) -> str:
        """Name of its record, as the object store lists it."""
        return f"{_NAME}{self.id}.json"

    @property
    def size(self) -> int:
        """Bytes in the object store."""
        return sum(file.size for file in self.files)


def record_text(record: BackupRecord) -> str:
    """The record as it is stored; it ends with a digest of itself."""
    values = asdict(record)
    values["files"] = [asdict(file) for file in record.files]
    values |= {name: format_lsn(values[name]) for name in ("begin_lsn", "end_lsn")}
    values |= {name: values[name].isoformat() for name in ("began", "ended")}
    values |= {"format": FORMAT, "system_identifier": str(record.system_identifier)}
    return json.dumps({**values, "digest": _digest(values)}, indent=1) + "\n"


def parse_record(text: bytes | str, name: str) -> BackupRecord:
    """Read a record that is stored under `name`.

    Raises:
        RecordError: it is damaged, of another format, or stands under another backup's name.
    """
    try:
        record = _record(json.loads(text))
    except RecordError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"it is no record of a backup ({type(error).__name__}: {error})"
        raise RecordError(msg) from error
    if record.name != name:
        msg = f"it is the record of {record.id}, and stands under the name {name}"
        raise RecordError(msg)
    return record


def _record(values: dict[str, Any]) -> BackupRecord:
    digest = values.pop("digest")
    if values["format"] != FORMAT:
        msg = f"it has format {values['format']}, and this version reads {FORMAT}"
        raise RecordError(msg)
    if digest != _digest(values):
        msg = "its digest does not fit what it says: it was changed or is damaged"
        raise RecordError(msg)
    return BackupRecord(
        id=str(values["id"]),
        server=str(values["server"]),
        region=str(values["region"]),
        system_identifier=int(values["system_identifier"]),
        major=int(values["major"]),
        timeline=int(values["timeline"]),
        segment=int(values["segment"]),
        begin_wal=str(values["begin_wal"]),
        begin_lsn=parse_lsn(values["begin_lsn"]),
        end_lsn=parse_lsn(values["end_lsn"]),
        began=datetime.fromisoformat(values["began"]),
        ended=datetime.fromisoformat(values["ended"]),
        unpacked=int(values["unpacked"]),
        files=tuple(
            StoredFile(str(each["key"]), int(each["size"]), str(each["sha256"])) for each in values["files"]
        ),
    )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def is_record(name: str) -> bool:
    """Whether an object of this name, directly below the prefix, is the record of a backup."""
    return name.startswith(_NAME) and name.endswith(".json") and "/" not in name


def backup_id(text: str) -> str:
    """The id that a person means: the id itself, the record's name, or its whole address."""
    last = text.strip().rpartition("/")[2]
    return last.removeprefix(_NAME).removesuffix(".json")


def missing(record: BackupRecord, stored: Mapping[str, int]) -> tuple[str, ...]:
    """What is wrong with a backup's objects, in words; `stored` is key to size. Empty when all are there."""
    found = []
    for file in record.files:
        size = stored.get(file.key)
        if size is None:
            found.append(f"{file.key} is not there")
        elif size != file.size:
            found.append(f"{file.key} has {size} bytes, and {file.size} were written")
    if not record.files:
        found.append("its record names no object")
    return tuple(found)


def newest(records: Iterable[BackupRecord]) -> BackupRecord | None:
    """The backup that ended last."""
    return max(records, key=lambda each: (each.ended, each.id), default=None)


def best_for(
    records: Sequence[BackupRecord], *, lsn: int | None = None, time: datetime | None = None
) -> BackupRecord | None:
    """The newest backup from which a target can be reached; None when every one is newer than the target."""
    usable = [
        each
        for each in records
        if (lsn is None or each.end_lsn <= lsn) and (time is None or each.ended <= time)
    ]
    return newest(usable)


def too_new(record: BackupRecord, *, lsn: int | None = None, time: datetime | None = None) -> str:
    """Why a target cannot be reached from a backup, in words; empty when it can."""
    if lsn is not None and record.end_lsn > lsn:
        return f"the backup is consistent from {format_lsn(record.end_lsn)} on, and the target is {format_lsn(lsn)}"
    if time is not None and record.ended > time:
        return f"the backup ended at {record.ended.isoformat()}, after the target {time.isoformat()}"
    return ""


@dataclass(frozen=True, slots=True)
class Trial:
    """The last time that a backup was tried out. ``seconds``: how long the restore took; None when it came to none."""

    at: datetime
    backup: str | None
    good: bool
    seconds: float | None


def trial_text(trial: Trial) -> str:
    """The trial as it is stored."""
    return json.dumps({**asdict(trial), "at": trial.at.isoformat()}) + "\n"


def parse_trial(text: bytes | str) -> Trial | None:
    """Read it back; None when it says nothing."""
    try:
        values = json.loads(text)
        seconds = values["seconds"]
        return Trial(
            datetime.fromisoformat(values["at"]),
            values["backup"],
            values["good"] is True,
            None if seconds is None else float(seconds),
        )
    except (ValueError, KeyError, TypeError):
        return None


def trial_problem(
    trial: Trial | None, records: Sequence[BackupRecord], now: datetime, every: timedelta
) -> str:
    """In words, when nobody knows any more whether the backups restore; empty when it is known, or not due yet."""
    if trial is not None and not trial.good:
        return f"the last one that was tried out, at {trial.at:%Y-%m-%d %H:%M} UTC, was not good: `hmsdr backup verify`"
    since = trial.at if trial is not None else min((each.ended for each in records), default=now)
    if now - since <= every * _PATIENCE:
        return ""
    hours = (now - since).total_seconds() / 3600
    return f"{'none was ever' if trial is None else 'none was'} tried out for {hours:.1f} h: `hmsdr backup verify`"


def clock_problem(what: str, told: datetime, reference: datetime) -> str:
    """In words, when two clocks differ too much to be right both; empty when they do not."""
    difference = told - reference
    if abs(difference) <= _CLOCKS:
        return ""
    seconds = round(abs(difference).total_seconds())
    return f"the clock of {what} is {seconds} s {'ahead' if difference > timedelta(0) else 'behind'}"
