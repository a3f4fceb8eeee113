"""From the buckets to a directory: what is needed is chosen, read whole and checked before anything is unpacked or replayed.

Only files that are what their record says reach Barman; only WAL that belongs to this database reaches PostgreSQL. It writes
into the directory that it is given, and nowhere else.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

from hmsdr.backup.barman import Barman, backup_info, tablespaces
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.backup.tarcheck import look
from hmsdr.backup.vault import COPY_SECONDS, Shelf, Vault
from hmsdr.control.archive import of_region
from hmsdr.control.server import PostgresServer
from hmsdr.decide import walchain
from hmsdr.decide.backups import BackupRecord, best_for, missing, too_new
from hmsdr.decide.walchain import Broken, Chain, Start
from hmsdr.drivers.errors import PermanentError
from hmsdr.errors import FailedError
from hmsdr.playbook.model import Playbook

MARGIN = 256 * 1024 * 1024
"""Room that replay and PostgreSQL itself need besides what is unpacked."""
_WAL_AT_ONCE = 4
_TAR_SLACK = 1 << 20
_PAGE = struct.Struct("<HHIQI4xQI")
"""XLogLongPageHeader: magic, flags, timeline, address, rest, system identifier, size of a file. Little-endian."""
_KINDS = {
    Broken.GAP: Kind.GAP,
    Broken.SHORT: Kind.GAP,
    Broken.HISTORY: Kind.HISTORY,
    Broken.PARTED: Kind.PARTED,
    Broken.BEYOND: Kind.TARGET,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go: an LSN (bytes of WAL; what ends there is in), a time (UTC), or as far as the archive goes."""

    lsn: int | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A backup, the bucket with all of it, and the WAL that leads to the target."""

    record: BackupRecord
    bucket: str
    chain: Chain
    target: Target

    @property
    def room(self) -> int:
        """Bytes that it needs on disk."""
        return MARGIN + self.record.unpacked * 11 // 10 + len(self.chain.files) * self.record.segment


def choose(
    shelves: Sequence[Shelf], histories: dict[int, str], target: Target, *, wanted: str | None = None
) -> Choice:
    """The backup to restore: the one that is `wanted`, or the newest from which the target is reached.

    Raises:
        UnfitError: there is none, or it does not lead there.
    """
    doing = f"choosing a backup{f' ({wanted})' if wanted else ''}"
    whole = {record.id: (record, shelf.bucket) for shelf in reversed(shelves) for record in shelf.whole()}
    records = [record for record, _ in whole.values()]
    if wanted is not None:
        record = _wanted(doing, shelves, whole, wanted)
    elif not records:
        raise UnfitError(doing, Kind.NONE, _nothing(shelves))
    else:
        best = best_for(records, lsn=target.lsn, time=target.time)
        if best is None:
            oldest = min(records, key=lambda each: each.ended)
            raise UnfitError(doing, Kind.TARGET, too_new(oldest, lsn=target.lsn, time=target.time))
        record = best
    if words := too_new(record, lsn=target.lsn, time=target.time):
        raise UnfitError(doing, Kind.TARGET, words)
    chain = chain_of(record, shelves, histories, target)
    if chain.problems:
        first = chain.problems[0]
        raise UnfitError(
            f"following the WAL of backup {record.id}",
            _KINDS[first.kind],
            "; ".join(problem.words for problem in chain.problems),
        )
    return Choice(record, whole[record.id][1], chain, target)


def chain_of(
    record: BackupRecord, shelves: Sequence[Shelf], histories: dict[int, str], target: Target
) -> Chain:
    """The WAL from a backup on, wherever it lies."""
    archived = {name for shelf in shelves for name in shelf.wal}
    start = Start(record.timeline, record.begin_lsn, record.end_lsn, record.segment)
    return walchain.chain(start, archived, histories, target_lsn=target.lsn)


def _wanted(
    doing: str, shelves: Sequence[Shelf], whole: dict[str, tuple[BackupRecord, str]], wanted: str
) -> BackupRecord:
    if wanted in whole:
        return whole[wanted][0]
    for shelf in shelves:
        name = f"backup_{wanted}.json"
        if name in shelf.broken:
            raise UnfitError(doing, Kind.RECORD, f"its record in {shelf.bucket}: {shelf.broken[name]}")
        for record in shelf.records:
            if record.id == wanted:
                words = "; ".join(missing(record, shelf.sizes))
                raise UnfitError(doing, Kind.OBJECTS, f"in {shelf.bucket}: {words}")
    raise UnfitError(doing, Kind.NONE, f"no bucket has the backup {wanted}; {_nothing(shelves)}")


def _nothing(shelves: Sequence[Shelf]) -> str:
    there = sorted({record.id for shelf in shelves for record in shelf.whole()})
    if there:
        return f"there are {', '.join(there)}"
    told = [f"{shelf.bucket}: {name}: {why}" for shelf in shelves for name, why in shelf.broken.items()]
    told += [
        f"{shelf.bucket}: {record.id}: {words}"
        for shelf in shelves
        for record in shelf.records
        for words in missing(record, shelf.sizes)[:1]
    ]
    return "no backup is whole" + (f" ({'; '.join(told[:4])})" if told else ": there is none")


class Fetcher:
    """Brings a chosen backup to a directory.

    Args:
        vault: the buckets.
        playbook: keys of the object store.
        region: whose server it was.
        server: reads control files.
    """

    def __init__(self, vault: Vault, playbook: Playbook, region: str, server: PostgresServer) -> None:
        self._vault = vault
        self._playbook = playbook
        self._region = region
        self._server = server

    async def check(self, choice: Choice) -> None:
        """Read every object of the backup to its end.

        Raises:
            UnfitError: one is not what was written.
            DriverError: the object store does not answer.
        """
        doing = f"checking backup {choice.record.id} in {choice.bucket}"
        for file in choice.record.files:
            key, limit = f"{self._vault.prefix}{file.key}", choice.record.unpacked + _TAR_SLACK
            try:
                if ".tar" in file.key:
                    looked = await self._vault.objects.consume(
                        choice.bucket,
                        key,
                        partial(look, limit=limit, judge=lambda _: ""),
                        deadline=COPY_SECONDS,
                    )
                    sha256, problem = looked.sha256, looked.problem
                else:
                    content = await self._vault.objects.inspect(choice.bucket, key, deadline=COPY_SECONDS)
                    sha256, problem = content.sha256, ""
            except PermanentError as error:
                raise UnfitError(doing, Kind.CONTENT, f"{file.key}: {error.found}") from error
            if sha256 != file.sha256:
                words = f"{file.key} is not what was written: its SHA-256 begins {sha256[:12]}, not {file.sha256[:12]}"
                raise UnfitError(doing, Kind.CONTENT, words)
            if problem:
                raise UnfitError(doing, Kind.CONTENT, f"{file.key}: {problem}")

    async def unpack(self, choice: Choice, data: Path) -> None:
        """Have Barman unpack it into `data`, and see that it is the database that the record says.

        Raises:
            UnfitError: no room, or another database.
            FailedError: Barman failed.
        """
        record = choice.record
        doing = f"restoring backup {record.id} into {data}"
        has_room(doing, data.parent, choice.room)
        await self._speaks_version(doing, record.major)
        archive = of_region(self._playbook, self._region, bucket=choice.bucket)
        elsewhere = {name: data.parent / "tablespaces" / name for name in await self.tablespaces(choice)}
        try:
            await Barman(archive).restore(record.id, data, tablespaces=elsewhere, deadline=COPY_SECONDS)
        except FailedError as error:
            raise UnfitError(doing, Kind.CONTENT, f"Barman cannot restore it: {error.found}") from error
        if not (data / "PG_VERSION").exists():
            raise UnfitError(doing, Kind.CONTENT, "there is no database in it")
        data.chmod(0o700)
        major = int((data / "PG_VERSION").read_text())
        if major != record.major:
            raise UnfitError(doing, Kind.VERSION, f"it is of version {major}, its record says {record.major}")
        label = (data / "backup_label").read_text() if (data / "backup_label").exists() else ""
        if f"(file {record.begin_wal})" not in label:
            raise UnfitError(doing, Kind.CONTENT, f"its backup_label does not begin in {record.begin_wal}")
        control = await self._server.beside(data).control()
        if control.system_identifier != record.system_identifier:
            raise UnfitError(
                doing,
                Kind.SYSTEM,
                f"it is of system {control.system_identifier}, its record says {record.system_identifier}",
            )

    async def tablespaces(self, choice: Choice) -> tuple[str, ...]:
        """Names of the backup's tablespaces, as Barman notes them."""
        try:
            note = backup_info(await self._vault.barman_note(choice.bucket, choice.record.id))
            return tablespaces(note)
        except (ValueError, SyntaxError, TypeError) as error:
            raise UnfitError(
                f"reading Barman's note of backup {choice.record.id}", Kind.CONTENT, str(error)
            ) from error

    async def _speaks_version(self, doing: str, major: int) -> None:
        _, output, _ = await self._server.tool("postgres", "--version")
        found = re.search(r"\)\s+(\d+)", output)
        if found is None or int(found[1]) != major:
            words = f"it is of PostgreSQL {major}, and the programs here are {output.strip() or 'none'}"
            raise UnfitError(doing, Kind.VERSION, words)

    async def fetch_wal(
        self,
        choice: Choice,
        shelves: Sequence[Shelf],
        directory: Path,
        given: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Bring the files of WAL and the histories that replay needs into `directory`, each checked; `given` is the text of some.

        Raises:
            UnfitError: a file is of another database, or damaged in every bucket.
        """
        directory.mkdir(mode=0o700, exist_ok=True)
        for name, text in given.items():
            (directory / name).write_text(text)
        limit = asyncio.Semaphore(_WAL_AT_ONCE)

        async def one(name: str) -> None:
            async with limit:
                await self._fetch(choice.record, shelves, name, directory)

        try:
            async with asyncio.TaskGroup() as tasks:
                for name in (*choice.chain.histories, *choice.chain.files):
                    if name not in given:
                        tasks.create_task(one(name))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _fetch(
        self, record: BackupRecord, shelves: Sequence[Shelf], name: str, directory: Path
    ) -> None:
        target = directory / name
        kind, wrong = Kind.CONTENT, ["no bucket has it"]
        for shelf in shelves:
            key = shelf.wal.get(name)
            if key is None:
                continue
            part = directory / f"{name}.{'gz' if key.endswith('.gz') else 'part'}"
            await self._vault.objects.get_file(
                shelf.bucket, f"{self._vault.prefix}{key}", part, deadline=COPY_SECONDS
            )
            problem = await asyncio.to_thread(_settle, part, target, record)
            if problem is None:
                return
            kind = problem[0]
            wrong.append(f"in {shelf.bucket}: {problem[1]}")
        raise UnfitError(f"fetching {name} of the archive", kind, "; ".join(wrong[1:] or wrong))


def has_room(doing: str, directory: Path, needed: int) -> None:
    """See that `directory` has `needed` bytes free.

    Raises:
        UnfitError: it has not.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        words = f"{needed >> 20} MiB are needed in {directory}, and {free >> 20} MiB are free"
        raise UnfitError(doing, Kind.SPACE, words)


def _settle(part: Path, target: Path, record: BackupRecord) -> tuple[Kind, str] | None:
    """Unpack and check one file of the archive; gives what is wrong with it."""
    try:
        if part.suffix == ".gz":
            with gzip.open(part) as source, target.open("wb") as sink:
                while (chunk := source.read(1 << 20)) and sink.tell() <= record.segment:
                    sink.write(chunk)
            part.unlink()
        else:
            part.replace(target)
    except (OSError, EOFError, zlib.error) as error:
        target.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
        return Kind.CONTENT, f"it cannot be unpacked ({error})"
    if not walchain.is_segment(target.name):
        return None
    problem = _wal_problem(target, record)
    if problem is not None:
        target.unlink()
    return problem


def _wal_problem(file: Path, record: BackupRecord) -> tuple[Kind, str] | None:
    """What its first page says against it."""
    with file.open("rb") as content:
        head = content.read(_PAGE.size)
    size = file.stat().st_size
    if len(head) < _PAGE.size or size != record.segment:
        return Kind.CONTENT, f"it has {size} bytes, and a file of WAL here has {record.segment}"
    _, _, _, address, _, system, segment = _PAGE.unpack(head)
    if system != record.system_identifier:
        return Kind.SYSTEM, f"it is of system {system}, the backup of {record.system_identifier}"
    number = walchain.segment_number(file.name, record.segment)
    if address != number * record.segment or segment != record.segment:
        return (
            Kind.CONTENT,
            f"it says that it begins at {address:#x}, and its name says {number * record.segment:#x}",
        )
    return None
