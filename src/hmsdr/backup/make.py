"""Making a base backup: with Barman into the region's bucket, read back, recorded, copied to the other region, old ones removed.

It runs where the database's files are. Nothing counts until its record is written, which is the last thing done; whatever
dies before leaves objects that no record names, and the next run begins anew.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hmsdr.backup.barman import Barman, backup_info
from hmsdr.backup.vault import ASK_SECONDS, COPY_SECONDS, Vault
from hmsdr.control.archive import Archive, of_region
from hmsdr.control.locks import lock_data_directory
from hmsdr.control.server import PostgresServer
from hmsdr.decide import walchain
from hmsdr.decide.backups import BackupRecord, StoredFile, backup_id, clock_problem
from hmsdr.decide.lsn import parse_lsn
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.playbook.model import Playbook

BACKUP_SECONDS = 12 * 3600.0
_SQL_SECONDS = 10.0
_POLL_SECONDS = 0.2
_PROBE = "probe"

Say = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made. ``problems``: what is wrong all the same, in words; ``seconds`` by name of the phase."""

    record: BackupRecord
    copied: tuple[str, ...]
    problems: tuple[str, ...]
    seconds: dict[str, float]


class Maker:
    """Makes backups of one region's server.

    Args:
        playbook: where, and for how long.
        region: whose server.
        objects: the object store.
        server: reads the control file of a data directory on this machine (its own directory is not used).
        say: told about progress.
        host: reaches the server here instead of where the playbook says.
    """

    def __init__(
        self,
        playbook: Playbook,
        region: str,
        objects: ObjectStore,
        server: PostgresServer,
        say: Say,
        *,
        host: str | None = None,
    ) -> None:
        self._playbook = playbook
        self._region = region
        self._instance = playbook.regions[region].postgres
        self._host = host or self._instance.host
        self._vault = Vault(objects, playbook, region)
        self._archive = of_region(playbook, region)
        self._barman = Barman(self._archive)
        self._server = server
        self._say = say
        self._seconds: dict[str, float] = {}

    async def run(self) -> Made:
        """One backup.

        Raises:
            RefusedError: the database is not on this machine, or archives nothing.
            FailedError: there is no new backup.
        """
        here = await self._may(self._vault.buckets[0])
        lock = lock_data_directory(here, "backup", apart=True)  # Barman names backups by the second
        try:
            return await self._made()
        finally:
            os.close(lock)

    async def _made(self) -> Made:
        own, other = self._vault.buckets
        before = await self._vault.barman_ids(own)
        await self._complete(own, before)
        self._say(f"base backup of {self._instance.instance} to {self._archive.url}")
        began = datetime.now(UTC)
        with _timed(self._seconds, "backup"):
            await self._barman.backup(self._instance, host=self._host, deadline=BACKUP_SECONDS)
        fresh, values = await self._new(before)
        self._say("reading it back")
        with _timed(self._seconds, "read_back"):
            record = await self._recorded(fresh, values, began, datetime.now(UTC))
            await self._until_archived(record, values["end_wal"])
        problems = []
        written = await self._vault.write_record(own, record)
        if wrong := clock_problem(
            f"this machine (the clock of {own} is right)", record.ended, written.modified
        ):
            problems.append(wrong)
        copied: list[str] = []
        try:
            with _timed(self._seconds, "copy"):
                self._say(f"copying to s3://{other}/{self._vault.prefix}")
                copied = await self._mirrored()
        except HmsdrError as error:
            problems.append(f"it lies only in {own}, the region that it protects: {error}")
        problems += await self._expire()
        return Made(record, tuple(copied), tuple(problems), self._seconds)

    async def _may(self, bucket: str) -> Path:
        """Everything that can be known before anything is written; gives the data directory.

        Raises:
            RefusedError: see `run`.
            DriverError: database or object store do not answer.
        """
        doing = f"backing up {self._instance.instance}"
        sql = Postgres(self._instance, host=self._host)
        values = await sql.setting_values(("data_directory", "archive_mode"), deadline=_SQL_SECONDS)
        here = Path(values["data_directory"])
        if not (here / "PG_VERSION").exists():
            raise RefusedError(
                doing,
                f"its data directory {here} is not on this machine",
                "Run this beside the database: in its pod (kubectl exec), or on its host",
            )
        control = await self._server.beside(here).control()
        asked = await sql.system_identifier(deadline=_SQL_SECONDS)
        if control.system_identifier != asked:
            raise RefusedError(
                doing,
                f"{here} on this machine is of system {control.system_identifier}, the server is {asked}",
                "Run this beside the database",
            )
        if values["archive_mode"] == "off":
            raise RefusedError(
                doing,
                "the server archives no WAL: a base backup alone restores nothing",
                "Set backups.archive_wal in the playbook, and restart the agent",
            )
        key = f"{self._vault.prefix}{self._vault.server}/{_PROBE}"
        await self._vault.objects.put(bucket, key, b"hmsdr\n", deadline=ASK_SECONDS)
        return here

    async def _complete(self, own: str, there: set[str]) -> None:
        """Record what an earlier run made and had no time to record; else retention would count on what nobody can restore."""
        records, broken = await self._vault.records(own)
        named = {record.id for record in records} | {backup_id(name) for name in broken}
        for left in sorted(there - named):
            values = backup_info(await self._vault.barman_note(own, left))
            if values.get("status") != "DONE":
                continue
            self._say(f"recording backup {left}, which an earlier run left")
            began, ended = (datetime.fromisoformat(values[name]) for name in ("begin_time", "end_time"))
            record = await self._recorded(left, values, began.astimezone(UTC), ended.astimezone(UTC))
            await self._vault.write_record(own, record)

    async def _new(self, before: set[str]) -> tuple[str, dict[str, str]]:
        """The backup that was not there before, and what Barman notes of it."""
        own = self._vault.buckets[0]
        for fresh in sorted(await self._vault.barman_ids(own) - before, reverse=True):
            values = backup_info(await self._vault.barman_note(own, fresh))
            if values.get("status") == "DONE":
                return fresh, values
        raise FailedError(
            f"looking for the new backup in {self._archive.url}",
            "Barman says that it made one, and there is none that is done",
            "See where it writes: bucket, prefix and server in the playbook, and the endpoint of the object store",
        )

    async def _recorded(
        self, fresh: str, values: dict[str, str], began: datetime, ended: datetime
    ) -> BackupRecord:
        """Read every object of the backup to its end, and note what it is."""
        vault, own = self._vault, self._vault.buckets[0]
        base = f"{vault.prefix}{vault.server}/base/{fresh}/"
        listed = await vault.objects.listing(own, base, deadline=ASK_SECONDS)
        files, unpacked = [], 0
        for item in sorted(listed, key=lambda each: each.key):
            content = await vault.objects.inspect(own, item.key, deadline=COPY_SECONDS)
            files.append(StoredFile(item.key.removeprefix(vault.prefix), content.size, content.sha256))
            unpacked += content.unpacked
        return BackupRecord(
            id=fresh,
            server=vault.server,
            region=self._region,
            system_identifier=int(values["systemid"]),
            major=int(values["version"]) // 10000,
            timeline=int(values["timeline"]),
            segment=int(values["xlog_segment_size"]),
            begin_wal=str(values["begin_wal"]),
            begin_lsn=parse_lsn(values["begin_xlog"]),
            end_lsn=parse_lsn(values["end_xlog"]),
            began=began,
            ended=ended,
            unpacked=unpacked,
            files=tuple(files),
        )

    async def _until_archived(self, record: BackupRecord, last: str) -> None:
        """The backup restores nothing before all of its own WAL is in the bucket."""
        patience = self._playbook.backups.wal_late.total_seconds()
        ends = time.monotonic() + patience
        while True:
            shelf = await self._vault.shelf(self._vault.buckets[0])
            first = walchain.segment_number(record.begin_wal, record.segment)
            numbers = range(first, walchain.segment_number(last, record.segment) + 1)
            wanted = [walchain.segment_name(record.timeline, number, record.segment) for number in numbers]
            absent = [name for name in wanted if name not in shelf.wal]
            if not absent:
                return
            if time.monotonic() > ends:
                raise FailedError(
                    f"waiting for the WAL of backup {record.id} in s3://{shelf.bucket}",
                    f"{absent[0]} is not there after {patience:g} s, and the server says that it was archived",
                    "See the database's log for what its archive_command says, and where it writes",
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _mirrored(self) -> list[str]:
        own, other = [await self._vault.shelf(bucket) for bucket in self._vault.buckets]
        copied = await self._vault.mirror(own, other)
        lacking = {record.id for record in own.whole()} - {
            record.id for record in (await self._vault.shelf(other.bucket)).whole()
        }
        if lacking:
            raise FailedError(
                f"copying backups to s3://{other.bucket}",
                f"{', '.join(sorted(lacking))} is not whole there after it was copied",
                "See that bucket's rules (encryption, lifecycle, permissions)",
            )
        return copied

    async def _expire(self) -> list[str]:
        """Remove what is no longer needed, in both buckets; what cannot be removed is no failure of the backup."""
        policy, problems = self._playbook.backups, []
        days = max(1, -(-policy.keep // timedelta(days=1)))
        for bucket in self._vault.buckets:
            try:
                records, _ = await self._vault.records(bucket)
                if not any(record.ended < datetime.now(UTC) - policy.keep for record in records):
                    continue
                await Barman(self._at(bucket)).expire(days, policy.keep_at_least, deadline=COPY_SECONDS)
                left = await self._vault.barman_ids(bucket)
                for record in records:
                    if record.id not in left:
                        await self._vault.remove_record(bucket, record.name)
            except (HmsdrError, DriverError) as error:
                problems.append(f"old backups in {bucket} were not removed: {error}")
        return problems

    def _at(self, bucket: str) -> Archive:
        return of_region(self._playbook, self._region, bucket=bucket)


class _timed:  # noqa: N801 - used as a function
    """Notes under `name` how many seconds its block took."""

    def __init__(self, into: dict[str, float], name: str) -> None:
        self._into, self._name, self._began = into, name, 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._into[self._name] = round(time.monotonic() - self._began, 3)
