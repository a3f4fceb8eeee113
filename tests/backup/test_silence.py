"""The classic disasters, really done: the job that writes nothing, or elsewhere; the copy that is missing; the wrong clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from bank import Bank, Opened, client, tried
from hospital import EAST

from hmsdr.backup.barman import Barman
from hmsdr.backup.fetch import Target
from hmsdr.backup.findings import Kind
from hmsdr.backup.make import Maker
from hmsdr.control import archive
from hmsdr.errors import FailedError, RefusedError

AHEAD = """
import datetime, logging, sys
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(hours=3)
    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(hours=3)
datetime.datetime = Wrong
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


async def working(opened: Opened, **policy: object) -> Bank:
    bank = await opened(wal_late="25s", **policy)
    await bank.both()
    await bank.admit()
    await bank.back_up()
    return bank


@pytest.mark.req("TV-1")
async def test_an_archive_command_that_does_nothing_is_found(open_banks: Opened) -> None:
    bank = await working(open_banks)
    settings = bank.east.directory / "hmsdr.conf"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("archive_command")]
    settings.write_text("\n".join([*lines, "archive_command = 'true'", ""]))
    await bank.sql("SELECT pg_reload_conf()")
    await bank.admit()
    verdict = await tried(bank.verifier(), Target())
    assert [each.kind for each in verdict.findings] == [Kind.LATE]
    failed = await bank.sql("SELECT failed_count FROM pg_stat_archiver")
    assert failed == 0, "PostgreSQL itself sees nothing wrong"


@pytest.mark.req("TV-1")
async def test_an_archive_that_goes_to_the_wrong_place_is_found(open_banks: Opened) -> None:
    bank = await working(open_banks)
    path = bank.directory / EAST / archive.SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"server": "elsewhere"}))
    await bank.admit()
    verdict = await tried(bank.verifier(), Target())
    assert [each.kind for each in verdict.findings] == [Kind.LATE]
    assert any("/elsewhere/" in key for _, key in bank.read())


@pytest.mark.req("TV-1")
async def test_a_base_backup_that_goes_to_the_wrong_place_is_no_backup(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    maker = Maker(bank.playbook, EAST, bank.objects, bank.east, bank.said.append)
    maker._barman = Barman(replace(archive.of_region(bank.playbook, EAST), server="elsewhere"))
    with pytest.raises(FailedError, match="there is none that is done"):
        await maker.run()
    listed = bank.hmsdr("backup", "list")
    assert listed.returncode == 1
    assert "There is no backup" in listed.stdout


async def test_a_backup_without_a_copy_is_told_at_once_and_mended_by_the_next(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    s3 = client(bank.endpoint)
    other = bank.playbook.regions[EAST].backups.copy_bucket
    await bank.archived()
    for _, key in [place for place in bank.read() if place[0] == other]:
        s3.delete_object(Bucket=other, Key=key)
    s3.put_bucket_policy(Bucket=other, Policy=json.dumps({"Statement": []}))
    s3.delete_bucket(Bucket=other)
    made = await bank.back_up()
    assert any("it lies only in" in words for words in made.problems)
    verdict = await tried(bank.verifier(), Target(lsn=made.record.end_lsn))
    assert Kind.STORE in {each.kind for each in verdict.findings}
    s3.create_bucket(Bucket=other)
    again = await bank.back_up()
    assert set(again.copied) == {made.record.id, again.record.id}


async def test_it_is_made_only_where_the_database_is_and_archives(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.start(EAST, writable=True)
    bank.east.directory.rename(bank.directory / "moved")  # as seen from another machine
    try:
        with pytest.raises(RefusedError, match="not on this machine"):
            await bank.back_up()
    finally:
        (bank.directory / "moved").rename(bank.east.directory)
    await bank.east.kill(10)


@pytest.fixture
def ahead() -> Iterator[str]:
    """An object store whose clock is three hours ahead."""
    process = subprocess.Popen(
        [sys.executable, "-c", AHEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()


@pytest.mark.req("TV-1")
async def test_a_clock_that_is_wrong_is_found_when_a_backup_is_made_and_tried(
    open_banks: Opened, ahead: str
) -> None:
    bank = await open_banks(endpoint=ahead)
    await bank.both()
    made = await bank.back_up()
    assert any("the clock of this machine" in words and "behind" in words for words in made.problems)
    verdict = await tried(bank.verifier(), Target(lsn=made.record.end_lsn))
    clocks = [each.words for each in verdict.findings if each.kind is Kind.CLOCK]
    assert len(clocks) == 2
    assert all("s ahead of this machine's" in words for words in clocks)


async def test_a_backup_that_is_due_and_was_not_made_is_found(full_bank: Bank) -> None:
    policy = full_bank.playbook.backups.model_copy(
        update={"every": type(full_bank.playbook.backups.every)(0, 1)}
    )
    late = full_bank.playbook.model_copy(update={"backups": policy})
    vault = await full_bank.vault().shelf(full_bank.bucket(EAST))
    verdict = await tried(full_bank.verifier("due", late), Target(lsn=vault.records[-1].end_lsn))
    assert Kind.OLD in {each.kind for each in verdict.findings}
