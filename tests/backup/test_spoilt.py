"""Backups that are corrupted, truncated and mixed up: every one is found by verify, or refused before anything is replaced."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest
from bank import Bank, Shelves, tried
from hospital import EAST

from hmsdr.backup.fetch import Target
from hmsdr.backup.findings import Kind
from hmsdr.decide.backups import BackupRecord, StoredFile, parse_record, record_text

Spoil = Callable[[Shelves], None]
WAYS: dict[str, tuple[Spoil, Kind]] = {}


def way(kind: Kind) -> Callable[[Spoil], Spoil]:
    """`kind` is what verify must find."""

    def register(spoil: Spoil) -> Spoil:
        WAYS[spoil.__name__] = (spoil, kind)
        return spoil

    return register


def places(shelves: Shelves, part: str) -> list[tuple[str, str]]:
    found = sorted(place for place in shelves if part in place[1])
    assert found, f"nothing is called {part}"
    return found


def wal(shelves: Shelves) -> list[str]:
    """Keys of whole files of WAL from the backup on, in their order."""
    begin = record_of(shelves).begin_wal
    return sorted(
        {key for _, key in shelves if "/wals/" in key and len(name(key)) == 24 and name(key) >= begin}
    )


def name(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".gz")


def record_of(shelves: Shelves) -> BackupRecord:
    (_, key), *_ = places(shelves, "/backup_")
    return parse_record(shelves[places(shelves, "/backup_")[0]], name(key))


def rewrite(shelves: Shelves, change: Callable[[BackupRecord], BackupRecord]) -> None:
    """Another record, whose digest is right: as a wrong job would write it, or somebody who may write to the bucket."""
    for place in places(shelves, "/backup_"):
        shelves[place] = record_text(change(parse_record(shelves[place], name(place[1])))).encode()


def with_data(shelves: Shelves, content: bytes) -> None:
    """Other data, and a record that agrees with them."""
    import hashlib

    for place in places(shelves, "data.tar.gz"):
        shelves[place] = content
    digest = hashlib.sha256(content).hexdigest()

    def change(record: BackupRecord) -> BackupRecord:
        files = tuple(
            StoredFile(file.key, len(content), digest) if file.key.endswith("data.tar.gz") else file
            for file in record.files
        )
        return replace(record, files=files)

    rewrite(shelves, change)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@way(Kind.NONE)
def there_is_no_record(shelves: Shelves) -> None:
    for place in places(shelves, "/backup_"):
        del shelves[place]


@way(Kind.RECORD)
def the_record_is_truncated(shelves: Shelves) -> None:
    for place in places(shelves, "/backup_"):
        shelves[place] = shelves[place][:300]


@way(Kind.RECORD)
def the_record_was_edited(shelves: Shelves) -> None:
    for place in places(shelves, "/backup_"):
        values = json.loads(shelves[place])
        shelves[place] = json.dumps(values | {"end_lsn": "0/1"}).encode()


@way(Kind.RECORD)
def the_record_stands_under_another_name(shelves: Shelves) -> None:
    for bucket, key in places(shelves, "/backup_"):
        shelves[bucket, key.replace("/backup_2", "/backup_3")] = shelves.pop((bucket, key))


@way(Kind.OBJECTS)
def the_data_are_missing(shelves: Shelves) -> None:
    for place in places(shelves, "data.tar.gz"):
        del shelves[place]


@way(Kind.OBJECTS)
def the_data_are_truncated(shelves: Shelves) -> None:
    for place in places(shelves, "data.tar.gz"):
        shelves[place] = shelves[place][:-5000]


@way(Kind.CONTENT)
def the_data_have_a_wrong_byte(shelves: Shelves) -> None:
    for place in places(shelves, "data.tar.gz"):
        content = bytearray(shelves[place])
        content[len(content) // 2] ^= 1
        shelves[place] = bytes(content)


@way(Kind.CONTENT)
def the_job_wrote_nothing_and_says_that_it_did(shelves: Shelves) -> None:
    with_data(shelves, tar_of())


@way(Kind.CONTENT)
def a_member_climbs_out_of_its_directory(shelves: Shelves) -> None:
    with_data(shelves, tar_of((tarfile.TarInfo("../../../tmp/hmsdr-climbed"), b"x")))


@way(Kind.CONTENT)
def a_member_is_a_link_to_elsewhere(shelves: Shelves) -> None:
    link = tarfile.TarInfo("base")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with_data(shelves, tar_of((link, b"")))


@way(Kind.CONTENT)
def a_bomb(shelves: Shelves) -> None:
    with_data(shelves, tar_of((tarfile.TarInfo("base/zeros"), bytes(64 << 20))))


@way(Kind.SPACE)
def it_needs_more_room_than_there_is(shelves: Shelves) -> None:
    rewrite(shelves, lambda record: replace(record, unpacked=1 << 50))


@way(Kind.SYSTEM)
def it_is_another_hospitals(shelves: Shelves) -> None:
    rewrite(shelves, lambda record: replace(record, system_identifier=record.system_identifier + 1))


@way(Kind.VERSION)
def it_is_of_another_major_version(shelves: Shelves) -> None:
    rewrite(shelves, lambda record: replace(record, major=record.major - 1))


@way(Kind.COPY)
def it_lies_only_where_it_is_needed(shelves: Shelves) -> None:
    bucket = sorted({bucket for bucket, _ in shelves})[1]
    for place in places(shelves, "/backup_"):
        if place[0] == bucket:
            del shelves[place]


@way(Kind.GAP)
def a_file_of_wal_is_missing(shelves: Shelves) -> None:
    lost = wal(shelves)[2]
    for place in places(shelves, lost):
        del shelves[place]


@way(Kind.GAP)
def a_file_of_wal_is_missing_in_one_bucket(shelves: Shelves) -> None:
    del shelves[places(shelves, wal(shelves)[2])[0]]


@way(Kind.GAP)
def the_backups_own_wal_is_missing(shelves: Shelves) -> None:
    for key in wal(shelves):
        for place in places(shelves, key):
            del shelves[place]


@way(Kind.CONTENT)
def a_file_of_wal_is_truncated(shelves: Shelves) -> None:
    for place in places(shelves, wal(shelves)[2]):
        shelves[place] = shelves[place][: len(shelves[place]) // 2]


@way(Kind.CONTENT)
def two_files_of_wal_changed_places(shelves: Shelves) -> None:
    first, second = wal(shelves)[1:3]
    for bucket in {bucket for bucket, _ in shelves}:
        shelves[bucket, first], shelves[bucket, second] = shelves[bucket, second], shelves[bucket, first]


@way(Kind.SYSTEM)
def a_file_of_wal_is_another_databases(shelves: Shelves) -> None:
    for place in places(shelves, wal(shelves)[2]):
        content = bytearray(gzip.decompress(shelves[place]))
        content[24] ^= 0xFF  # the system identifier in its first page
        shelves[place] = gzip.compress(bytes(content), 1)


@way(Kind.REPLAY)
def a_file_of_wal_has_wrong_records(shelves: Shelves) -> None:
    for place in places(shelves, wal(shelves)[2]):
        content = bytearray(gzip.decompress(shelves[place]))
        content[100:4000] = bytes(byte ^ 0x55 for byte in content[100:4000])
        shelves[place] = gzip.compress(bytes(content), 1)


@way(Kind.HISTORY)
def a_timelines_history_is_missing(shelves: Shelves) -> None:
    last = wal(shelves)[-1]
    for bucket in {bucket for bucket, _ in shelves}:
        shelves[bucket, last.replace("/00000001", "/00000002")] = shelves[bucket, last]


@way(Kind.HISTORY)
def a_timelines_history_is_garbage(shelves: Shelves) -> None:
    for bucket in {bucket for bucket, _ in shelves}:
        shelves[bucket, "databases/hms/wals/00000002.history"] = b"not a history\n"


@way(Kind.PARTED)
def the_hospital_left_the_backups_history(shelves: Shelves) -> None:
    for bucket in {bucket for bucket, _ in shelves}:
        shelves[bucket, "databases/hms/wals/00000002.history"] = b"1\t0/1000000\tno recovery target\n"


async def target(bank: Bank) -> Target:
    """Well within what is archived."""
    vault = bank.vault()
    shelf = await vault.shelf(bank.bucket(EAST))
    return Target(lsn=max(int(name[16:], 16) for name in shelf.wal if len(name) == 24) * (1 << 24) + 0x28)


async def test_nothing_is_wrong_with_what_is_whole(full_bank: Bank) -> None:
    verdict = await tried(full_bank.verifier("whole"), await target(full_bank))
    assert not verdict.findings
    assert verdict.lsn is not None


@pytest.mark.req("TV-1")
@pytest.mark.parametrize("way", WAYS)
async def test_it_is_found(full_bank: Bank, way: str) -> None:
    spoil, kind = WAYS[way]
    goal = await target(full_bank)
    with full_bank.spoilt(spoil):
        verdict = await tried(full_bank.verifier(way), goal)
    assert kind in {each.kind for each in verdict.findings}
    assert all(each.words and each.remedy for each in verdict.findings)
    assert not (full_bank.directory / way / "data").exists()


async def test_a_target_before_the_backup_or_after_the_archive_is_refused(full_bank: Bank) -> None:
    early = await tried(full_bank.verifier("early"), Target(lsn=1 << 24))
    late = await tried(full_bank.verifier("late"), Target(lsn=1 << 40))
    assert [each.kind for each in early.findings] == [Kind.TARGET]
    assert [each.kind for each in late.findings] == [Kind.TARGET]


def test_there_are_more_than_twenty_ways() -> None:
    assert len(WAYS) > 20
