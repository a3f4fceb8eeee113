"""What the buckets hold of one database: records of base backups, their objects, WAL and histories. Reads, copies, removes records.

It judges nothing: a record that cannot be believed is given as such, with the reason.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from hmsdr.decide import walchain
from hmsdr.decide.backups import (
    RECORD_LIMIT,
    BackupRecord,
    RecordError,
    Trial,
    is_record,
    missing,
    parse_record,
    parse_trial,
    record_text,
    trial_text,
)
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.s3 import ObjectStore, StoredObject
from hmsdr.errors import FailedError
from hmsdr.playbook.model import Playbook

ASK_SECONDS = 20.0
LIST_SECONDS = 300.0
COPY_SECONDS = 6 * 3600.0
_HISTORY_LIMIT = 1024 * 1024
_TRIAL = "tried.json"


@dataclass(frozen=True, slots=True)
class Shelf:
    """One bucket as it was found. Keys are those below the prefix."""

    bucket: str
    records: tuple[BackupRecord, ...]
    broken: dict[str, str]
    """Records that cannot be believed: name to why."""
    stored: dict[str, StoredObject]
    """Every object of the database: key to what the bucket says of it."""
    wal: dict[str, str] = field(default_factory=dict)
    """Name of a file of WAL (or a history) to its key."""

    @property
    def sizes(self) -> dict[str, int]:
        """Key to size in bytes."""
        return {key: each.size for key, each in self.stored.items()}

    def whole(self) -> tuple[BackupRecord, ...]:
        """Backups of which every object is there, as large as it was written."""
        sizes = self.sizes
        return tuple(record for record in self.records if not missing(record, sizes))


class Vault:
    """The two buckets of one region's database.

    Args:
        objects: the object store.
        playbook: names buckets, prefix, server.
        region: whose server is (or was) backed up: its own bucket comes first, the copy after it.
    """

    def __init__(self, objects: ObjectStore, playbook: Playbook, region: str) -> None:
        where = playbook.regions[region].backups
        self.objects = objects
        self.buckets = (where.bucket, where.copy_bucket)
        self.prefix = where.prefix
        self.server = playbook.backups.server

    async def shelf(self, bucket: str, *, deadline: float = LIST_SECONDS) -> Shelf:
        """What `bucket` holds.

        Raises:
            DriverError: it cannot be listed or read.
        """
        listed = await self.objects.listing(bucket, f"{self.prefix}{self.server}/", deadline=deadline)
        stored = {item.key.removeprefix(self.prefix): item for item in listed}
        records, broken = await self.records(bucket)
        wal = {}
        for key in stored:
            if key.startswith(f"{self.server}/wals/"):
                wal[key.rpartition("/")[2].removesuffix(".gz")] = key
        return Shelf(bucket, records, broken, stored, wal)

    async def shelves(self) -> tuple[list[Shelf], dict[str, DriverError]]:
        """Both buckets, those that answer; and why the others do not."""
        found, problems = [], {}
        for bucket in self.buckets:
            try:
                found.append(await self.shelf(bucket))
            except DriverError as error:
                problems[bucket] = error
        return found, problems

    async def records(self, bucket: str) -> tuple[tuple[BackupRecord, ...], dict[str, str]]:
        """The records in `bucket`, the newest last, and those that cannot be believed."""
        records, broken = [], {}
        for item in await self.objects.names(bucket, self.prefix, deadline=LIST_SECONDS):
            name = item.key.removeprefix(self.prefix)
            if not is_record(name):
                continue
            try:
                content = await self.objects.read(bucket, item.key, limit=RECORD_LIMIT, deadline=ASK_SECONDS)
                records.append(parse_record(content, name))
            except RecordError as error:
                broken[name] = str(error)
        return tuple(sorted(records, key=lambda each: (each.ended, each.id))), broken

    async def write_record(self, bucket: str, record: BackupRecord) -> StoredObject:
        """Write the record, which makes a backup count; gives the object as the store then has it."""
        content = record_text(record).encode()
        return await self.objects.put(bucket, f"{self.prefix}{record.name}", content, deadline=ASK_SECONDS)

    async def remove_record(self, bucket: str, name: str) -> None:
        """Remove the record of a backup that is gone."""
        await self.objects.delete(bucket, f"{self.prefix}{name}", deadline=ASK_SECONDS)

    async def write_trial(self, trial: Trial) -> None:
        """Note in both buckets that a backup was tried out; one that does not answer goes without."""
        for bucket in self.buckets:
            with suppress(DriverError):
                key = f"{self.prefix}{self.server}/{_TRIAL}"
                await self.objects.put(bucket, key, trial_text(trial).encode(), deadline=ASK_SECONDS)

    async def last_trial(self, shelves: Iterable[Shelf]) -> Trial | None:
        """The last time that a backup was tried out, as far as any bucket knows."""
        found = []
        for shelf in shelves:
            key = f"{self.server}/{_TRIAL}"
            if key in shelf.stored and (trial := parse_trial(await self.small(shelf.bucket, key))):
                found.append(trial)
        return max(found, key=lambda each: each.at, default=None)

    async def barman_ids(self, bucket: str) -> set[str]:
        """Ids of the backups that Barman notes in `bucket`, done or not."""
        base = f"{self.prefix}{self.server}/base/"
        listed = await self.objects.listing(bucket, base, deadline=LIST_SECONDS)
        notes = [item.key.removeprefix(base) for item in listed if item.key.endswith("/backup.info")]
        return {note.partition("/")[0] for note in notes}

    async def barman_note(self, bucket: str, backup: str) -> str:
        """What Barman itself notes of a backup."""
        content = await self.small(bucket, f"{self.server}/base/{backup}/backup.info")
        return content.decode(errors="replace")

    async def histories(self, shelves: Iterable[Shelf]) -> dict[int, str]:
        """The text of every timeline's history, from whichever bucket has it."""
        found: dict[int, str] = {}
        for shelf in shelves:
            for name, key in shelf.wal.items():
                timeline = walchain.history_timeline(name)
                if timeline is not None and timeline not in found:
                    found[timeline] = (await self.small(shelf.bucket, key)).decode(errors="replace")
        return found

    async def small(self, bucket: str, key: str) -> bytes:
        """The content of a small object, unpacked.

        Raises:
            FailedError: it cannot be unpacked.
        """
        content = await self.objects.read(
            bucket, f"{self.prefix}{key}", limit=_HISTORY_LIMIT, deadline=ASK_SECONDS
        )
        if not key.endswith(".gz"):
            return content
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise FailedError(
                f"reading s3://{bucket}/{self.prefix}{key}", f"it cannot be unpacked: {error}", "Use its copy"
            ) from error

    async def mirror(self, source: Shelf, target: Shelf) -> list[str]:
        """Copy what `target` lacks of the whole backups in `source`, their WAL with them; records last. Gives their ids."""
        have = {record.id for record in target.whole()}
        copied = []
        lacking = [name for name in source.wal if name not in target.wal]
        oldest = min((record.begin_wal for record in source.whole()), key=lambda name: name[8:], default="")
        needed = [name for name in lacking if _needed(name, oldest)]
        await self._copy([source.wal[name] for name in needed], source, target)
        for record in source.whole():
            if record.id in have:
                continue
            sizes = target.sizes
            keys = [file.key for file in record.files if sizes.get(file.key) != file.size]
            await self._copy(keys, source, target)
            await self.write_record(target.bucket, record)
            copied.append(record.id)
        return copied

    async def _copy(self, keys: list[str], source: Shelf, target: Shelf) -> None:
        limit = asyncio.Semaphore(4)

        async def one(key: str) -> None:
            async with limit:
                await self.objects.copy(
                    source.bucket, f"{self.prefix}{key}", target.bucket, deadline=COPY_SECONDS
                )

        await asyncio.gather(*(one(key) for key in keys))


def _needed(name: str, oldest: str) -> bool:
    """Whether a file of the archive may be needed with a backup that begins in `oldest`."""
    if walchain.history_timeline(name) is not None:
        return True
    return walchain.is_segment(name) and bool(oldest) and name[8:] >= oldest[8:]
