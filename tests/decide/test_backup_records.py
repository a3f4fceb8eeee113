"""Records of backups, and which one is meant: what was written comes back, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.backups import (
    BackupRecord,
    RecordError,
    StoredFile,
    Trial,
    backup_id,
    best_for,
    clock_problem,
    is_record,
    missing,
    newest,
    parse_record,
    parse_trial,
    record_text,
    too_new,
    trial_problem,
    trial_text,
)

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)


def record(number: int, hours: float = 1.0) -> BackupRecord:
    ended = NOW - timedelta(hours=hours)
    return BackupRecord(
        id=f"20261125T{number:06d}",
        server="hms",
        region="us-east-1",
        system_identifier=7_711_934_278_007_402_788,
        major=18,
        timeline=2,
        segment=1 << 24,
        begin_wal=f"0000000200000000{number:08X}",
        begin_lsn=(number << 24) + 0x28,
        end_lsn=(number << 24) + 0x138,
        began=ended - timedelta(minutes=5),
        ended=ended,
        unpacked=25_000_000,
        files=(StoredFile(f"hms/base/20261125T{number:06d}/data.tar.gz", 3_000_000, "ab" * 32),),
    )


def test_what_was_written_is_read_back() -> None:
    made = record(3)
    assert parse_record(record_text(made), made.name) == made


@given(st.integers(0, 2000), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, mask: int) -> None:
    made = record(3)
    content = bytearray(record_text(made).encode())
    at %= len(content)
    content[at] ^= mask
    try:
        read = parse_record(bytes(content), made.name)
    except (RecordError, UnicodeDecodeError):
        return
    assert read == made  # a space for another, between two values


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_words(content: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(content, "backup_1.json")
    assert str(caught.value)


def test_a_record_of_another_format_or_under_another_name_is_refused() -> None:
    made = record(3)
    values = json.loads(record_text(made))
    with pytest.raises(RecordError, match="format 2"):
        parse_record(json.dumps(values | {"format": 2}), made.name)
    with pytest.raises(RecordError, match="stands under the name"):
        parse_record(record_text(made), "backup_20261125T000004.json")


@pytest.mark.parametrize(
    "text",
    [
        "20261125T000003",
        "backup_20261125T000003.json",
        "s3://hms-backups-us-east-1/databases/backup_20261125T000003.json",
        " backup_20261125T000003.json\n",
    ],
)
def test_a_person_may_name_a_backup_as_they_see_it(text: str) -> None:
    assert backup_id(text) == "20261125T000003"


def test_only_records_are_records() -> None:
    assert is_record("backup_20261125T000003.json")
    assert not any(map(is_record, ["readme.txt", "backup_1.tar.gz", "hms/backup_1.json", "xbackup_1.json"]))


def test_a_backup_is_whole_when_every_object_is_as_large_as_it_was_written() -> None:
    made = record(3)
    (file,) = made.files
    assert not missing(made, {file.key: file.size})
    assert "is not there" in missing(made, {})[0]
    assert "2999999 bytes" in missing(made, {file.key: file.size - 1})[0]
    assert missing(replace(made, files=()), {file.key: file.size})


def test_the_newest_that_ended_before_the_target_is_chosen() -> None:
    records = [record(3, 10), record(5, 5), record(7, 1)]
    assert newest(records) == records[2]
    assert best_for(records) == records[2]
    assert best_for(records, lsn=records[1].end_lsn) == records[1]
    assert best_for(records, time=NOW - timedelta(hours=6)) == records[0]
    assert best_for(records, time=NOW - timedelta(hours=11)) is None
    assert "after the target" in too_new(records[2], time=NOW - timedelta(hours=6))
    assert "consistent from 0/7000138" in too_new(records[2], lsn=records[1].end_lsn)
    assert not too_new(records[0], lsn=records[1].end_lsn)


def test_a_clock_is_wrong_when_it_differs_by_minutes() -> None:
    assert not clock_problem("the machine", NOW + timedelta(seconds=200), NOW)
    assert (
        clock_problem("the machine", NOW + timedelta(hours=1), NOW)
        == "the clock of the machine is 3600 s ahead"
    )
    assert (
        clock_problem("the machine", NOW - timedelta(hours=1), NOW)
        == "the clock of the machine is 3600 s behind"
    )


def test_a_trial_is_read_back_and_garbage_is_none() -> None:
    trial = Trial(NOW, "20261125T000003", good=True, seconds=6.5)
    assert parse_trial(trial_text(trial)) == trial
    assert not [found for text in (b"", b"{}", b"[1]", b'{"at": 1}') if (found := parse_trial(text))]


def test_backups_that_nobody_tries_out_are_told() -> None:
    day = timedelta(days=1)
    assert not trial_problem(None, [], NOW, day)
    assert not trial_problem(None, [record(3, 10)], NOW, day)
    assert "none was ever tried out for 40.0 h" in trial_problem(None, [record(3, 40)], NOW, day)
    good = Trial(NOW - timedelta(hours=40), "x", good=True, seconds=1)
    assert "none was tried out for 40.0 h" in trial_problem(good, [record(3, 90)], NOW, day)
    assert not trial_problem(replace(good, at=NOW - timedelta(hours=29)), [record(3, 90)], NOW, day)
    assert "was not good" in trial_problem(replace(good, at=NOW, good=False), [record(3, 1)], NOW, day)
