"""What a person types wrongly, and what is not there: refused with what was found and what to do, and never with a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bank import client, write_playbook
from hospital import EAST, WEST

from hmsdr.playbook.load import load


@pytest.fixture
def book(tmp_path: Path, s3: str) -> Path:
    return write_playbook(tmp_path, s3, "127.0.0")


def hmsdr(book: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hmsdr", "backup", *arguments, "--playbook", str(book)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("verify", "--target-lsn", "0/1", "--target-time", "2026-11-25T02:15:00Z"),
            "both a time and an LSN",
        ),
        (("verify", "--target-lsn", "here"), "expected an LSN"),
        (("verify", "--target-time", "yesterday"), "A time looks like"),
        (("verify", "--target-time", "2026-11-25T02:15:00"), "names no time zone"),
        (("verify", "--target-time", "2126-11-25T02:15:00Z"), "is in the future"),
        (("verify", "--region", "us-east-2"), "Did you mean"),
        (("verify", "--region", EAST, "--scratch", "/proc/x"), "Name another with --scratch"),
        (("run", "--region", "mars"), "Known: us-east-1, us-west-2"),
        (("run", "--if-primary"), "no region is named"),
        (("restore-database", "--region", "mars"), "Known: us-east-1, us-west-2"),
        (("restore-database", "--target-lsn", "0/1"), "--into"),
        (("restore-database", "x", "--data-directory", "/nowhere/data"), "/nowhere"),
        (("restore-kubernetes", "notes.txt"), "no archive's name"),
        (
            ("restore-kubernetes", "kubernetes_backup_20261125.tar.gz", "--identity", "/nowhere"),
            "the file with the key",
        ),
        (("restore-kubernetes", "kubernetes_backup_20261125.tar.gz"), "NoSuchKey"),
    ],
)
def test_it_is_refused_with_words(book: Path, arguments: tuple[str, ...], words: str) -> None:
    done = hmsdr(book, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nothing_is_nothing_is_claimed(book: Path) -> None:
    done = hmsdr(book, "list")
    assert done.returncode == 1
    assert "There is no backup" in done.stdout
    done = hmsdr(
        book,
        "verify",
        "--json",
        "--region",
        EAST,
        "--target-lsn",
        "0/3000000",
        "--scratch",
        str(book.parent / "s"),
    )
    assert done.returncode == 1
    assert [each["kind"] for each in json.loads(done.stdout)["findings"]] == ["no-backup"]


def test_a_bucket_that_is_not_there_is_named(book: Path, s3: str) -> None:
    client(s3).delete_bucket(Bucket=load(book).regions[WEST].backups.bucket)
    done = hmsdr(book, "list")
    assert done.returncode == 1
    assert "NoSuchBucket" in done.stdout


def test_no_primary_is_said(book: Path) -> None:
    done = hmsdr(book, "run")
    assert done.returncode == 1
    assert "Name the region with --region" in done.stderr


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"every": "25h"}, "thresholds.gates.backup_age"),
        ({"keep": "12h"}, "backups.keep"),
        ({"wal_every": "1h", "wal_late": "10m"}, "backups.wal_late"),
        ({"keep_at_least": 0}, "keep_at_least"),
        ({"wal_queue": 5}, "wal_queue"),
        ({"server": "../x"}, "server"),
        ({"compression": "zip"}, "compression"),
        ({"kubernetes": {"kinds": ["pods"]}}, "kinds"),
        ({"kubernetes": {"prefix": "kubernetes"}}, "prefix"),
        ({"kubernetes": {"recipients": ["age1short"]}}, "recipients"),
        ({"kubernetes": {"identity": "AGE-SECRET-KEY-1"}}, "a literal value in place of a secret"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(book: Path, policy: dict[str, object], words: str) -> None:
    values = yaml.safe_load(book.read_text())
    book.write_text(yaml.safe_dump(values | {"backups": policy}))
    done = subprocess.run(
        [sys.executable, "-m", "hmsdr", "validate", str(book)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert words in done.stdout + done.stderr
