"""The archive command with a real bucket: once, verified, never over something else, and never in the way of a stop."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bank import Opened, client
from hospital import EAST, until

from hmsdr.control import archive, walpush
from hmsdr.control.archive import Archive
from hmsdr.control.unprivileged import Unprivileged

NAME = "000000010000000000000001"


@dataclass
class Desk:
    """A data directory with one file of WAL, and where it is archived."""

    directory: Path
    settings: Path
    bucket: str
    endpoint: str

    @property
    def file(self) -> Path:
        return self.directory / "pg_wal" / NAME

    def push(self, name: str = NAME) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name), cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )

    def command(self, name: str = NAME) -> list[str]:
        return [sys.executable, "-I", walpush.__file__, str(self.settings), f"pg_wal/{name}"]

    def change(self, **values: object) -> None:
        self.settings.write_text(json.dumps(json.loads(self.settings.read_text()) | values))

    def stored(self) -> dict[str, bytes]:
        s3: Any = client(self.endpoint)
        found = s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {
            item["Key"]: s3.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read() for item in found
        }


@pytest.fixture
def desk(tmp_path: Path, template: Path, s3: str) -> Desk:
    bucket = f"desk-{tmp_path.name.replace('_', '-')}"[:60].rstrip("-").lower()
    client(s3).create_bucket(Bucket=bucket)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    where = Archive(bucket, "databases/", "hms", "gzip", None, s3, keys, every=60, queue=1 << 33)
    command = archive.prepare(where, tmp_path, Unprivileged())
    assert str(tmp_path / archive.SETTINGS) in command
    assert not (tmp_path / archive.SETTINGS).stat().st_mode & 0o077
    (tmp_path / "pg_wal" / "archive_status").mkdir(parents=True)
    shutil.copy(template / "pg_wal" / NAME, tmp_path / "pg_wal" / NAME)
    return Desk(tmp_path, tmp_path / archive.SETTINGS, bucket, s3)


def test_a_file_is_archived_once_and_doing_it_again_is_done(desk: Desk) -> None:
    assert desk.push().returncode == 0
    stored = desk.stored()
    key = f"databases/hms/wals/{NAME[:16]}/{NAME}.gz"
    assert list(stored) == [key]
    assert gzip.decompress(stored[key]) == desk.file.read_bytes()
    desk.change(program="/bin/false")  # nothing is written again
    assert desk.push().returncode == 0
    assert desk.stored() == stored


def test_a_history_and_a_partial_file_are_archived(desk: Desk) -> None:
    (desk.directory / "pg_wal" / "00000002.history").write_text("1\t0/3000000\tx\n")
    shutil.copy(desk.file, desk.directory / "pg_wal" / f"{NAME}.partial")
    assert desk.push("00000002.history").returncode == 0
    assert desk.push(f"{NAME}.partial").returncode == 0
    assert {key.rpartition("/")[2] for key in desk.stored()} == {"00000002.history.gz", f"{NAME}.partial.gz"}


def test_what_holds_something_else_is_never_overwritten(desk: Desk) -> None:
    assert desk.push().returncode == 0
    stored = desk.stored()
    content = bytearray(desk.file.read_bytes())
    content[9000] ^= 1
    desk.file.write_bytes(bytes(content))
    done = desk.push()
    assert done.returncode == 1
    assert "holds something else under this name" in done.stderr
    assert desk.stored() == stored


def test_what_is_damaged_in_the_bucket_is_not_taken_for_archived(desk: Desk) -> None:
    key = f"databases/hms/wals/{NAME[:16]}/{NAME}.gz"
    client(desk.endpoint).put_object(Bucket=desk.bucket, Key=key, Body=b"garbage")
    done = desk.push()
    assert done.returncode == 1
    assert "damaged" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "says that it should have"),
        (lambda file: file.write_bytes(b""), "only 0 bytes"),
        (lambda file: file.write_bytes(bytes(8) + b"\1" * 16 + file.read_bytes()[24:]), "its name says"),
    ],
)
def test_a_file_that_is_not_whole_is_not_archived(desk: Desk, spoil: Any, words: str) -> None:
    spoil(desk.file)
    done = desk.push()
    assert done.returncode == 1
    assert words in done.stderr
    assert not desk.stored()


@pytest.mark.parametrize("name", ["../PG_VERSION", "postgresql.conf", "00000001.HISTORY"])
def test_only_wal_is_archived(desk: Desk, name: str) -> None:
    done = desk.push(name)
    assert done.returncode == 1
    assert "no name of a file of WAL" in done.stderr


def test_a_job_that_says_that_it_wrote_is_not_believed(desk: Desk) -> None:
    desk.change(program="/bin/true")
    done = desk.push()
    assert done.returncode == 1
    assert "is not in s3://" in done.stderr
    desk.change(program="/bin/false")
    assert "Barman ended with 1" in desk.push().stderr


def test_an_object_store_that_is_away_is_told_and_tried_again(desk: Desk) -> None:
    desk.change(endpoint="http://127.0.0.1:9")
    done = desk.push()
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    desk.change(endpoint=desk.endpoint)
    assert desk.push().returncode == 0


def test_wal_is_given_up_before_it_fills_the_disk(desk: Desk) -> None:
    for number in range(5):
        (desk.directory / "pg_wal" / "archive_status" / f"{number}.ready").touch()
    desk.change(queue=4 << 24, endpoint="http://127.0.0.1:9")
    done = desk.push()
    assert done.returncode == 0
    assert "GIVEN UP: 80 MiB" in done.stderr
    assert not desk.stored()


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_upload_that_hangs_ends_when_the_database_stops(desk: Desk, silent: str) -> None:
    options = json.loads(desk.settings.read_text())["options"]
    desk.change(options=[silent if option == desk.endpoint else option for option in options])
    process = subprocess.Popen(desk.command(), cwd=desk.directory, stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    ends = time.monotonic() + 20
    while not children.read_text() and time.monotonic() < ends:
        time.sleep(0.02)
    barman = int(children.read_text().split()[0])
    (desk.directory / walpush.STOP_FILE).touch()
    assert process.wait(timeout=10) == walpush.STOPPED
    assert not Path(f"/proc/{barman}").exists()


async def test_a_stop_does_not_wait_for_an_archive_that_hangs(open_banks: Opened, silent: str) -> None:
    bank = await open_banks()
    await bank.start(EAST, writable=True)
    path = bank.directory / EAST / archive.SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"endpoint": silent}))
    await bank.admit(10)
    await bank.sql("SELECT pg_switch_wal()")

    async def archiving() -> bool:
        return any("walpush" in command(pid) for pid in bank.east.processes())

    await until("it is archiving", archiving, 30)
    began = time.monotonic()
    assert await bank.east.stop_fast(60)
    took = time.monotonic() - began
    assert (await bank.east.control()).state == "shut down"
    assert took < 20  # one upload alone is given five minutes
    await asyncio.sleep(0)


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""
