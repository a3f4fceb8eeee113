"""A backup is made, listed, tried out and brought back, on real servers."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from bank import Opened, tried
from hospital import EAST, WEST

from hmsdr.backup.fetch import Target
from hmsdr.backup.findings import Kind
from hmsdr.backup.restore import Restorer


@pytest.mark.req("TV-1")
async def test_a_backup_is_made_in_both_regions_and_restores_to_what_the_hospital_has(
    open_banks: Opened,
) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit()
    made = await bank.back_up()
    assert not made.problems
    assert made.copied == (made.record.id,)
    assert {key.rpartition("/")[2] for _, key in bank.read() if key.count("/") == 1} == {made.record.name}
    await bank.admit(250)
    verdict = await tried(bank.verifier(), Target())
    assert not verdict.findings
    assert verdict.compared
    assert verdict.tables["public.patients"] == 350
    assert verdict.tonight is not None
    assert verdict.archive_seconds is not None
    assert not (bank.directory / "scratch" / "data").exists()
    listed = bank.hmsdr("backup", "list")
    assert listed.returncode == 0
    assert f"✓ {made.record.id} was tried out at" in listed.stdout


async def test_a_run_that_was_killed_costs_no_backup(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    words = ["backup", "run", "--only", "database", "--region", EAST, "--playbook", str(bank.path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hmsdr", *words, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    while b"reading it back" not in (line := await process.stderr.readline()):
        assert line, "it ended before it could be killed"
    process.kill()
    await process.wait()
    listed = json.loads(bank.hmsdr("backup", "list", "--json").stdout)
    made = await bank.back_up()
    assert not made.problems
    for region in (EAST, WEST):
        shelf = await bank.vault().shelf(bank.bucket(region))
        assert len(shelf.whole()) == 2 > len({each["id"] for each in listed["backups"]} - {None})
    first = min(record.id for record in shelf.records)
    verdict = await tried(bank.verifier(), Target(), wanted=first)
    assert not verdict.findings
    assert verdict.backup == first


@pytest.mark.req("RC-2")
async def test_a_backup_of_before_a_failover_leads_over_it_and_the_lost_side_is_not_followed(
    open_banks: Opened,
) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(10)
    made = await bank.back_up()
    await bank.admit(10)
    await bank.servers[WEST].kill(10)
    await bank.admit(5)  # only the east has these
    await bank.sql("SELECT pg_switch_wal()")
    only_east = str(await bank.sql("SELECT pg_walfile_name(pg_current_wal_lsn())"))
    await bank.start(WEST, writable=False, follow=False)
    await bank.east.kill(10)
    await bank.sql("SELECT pg_promote()", WEST)
    lsn = await bank.admit(3, WEST)
    verdict = await tried(bank.verifier(region=WEST), Target())
    assert verdict.backup == made.record.id
    assert {each.kind for each in verdict.findings} <= {
        Kind.GAP
    }  # the east's bucket alone lacks what came after
    assert verdict.lsn is not None
    assert verdict.lsn >= lsn
    assert not verdict.compared
    assert "postgres-primary-0" in verdict.not_compared
    directory = bank.directory / "restored"
    restorer = Restorer(bank.playbook, WEST, bank.objects, bank.servers[WEST], bank.said.append)
    done = await restorer.run(Target(lsn=lsn), wanted=None, into=directory)
    names = {path.name for path in (directory / "pg_wal").iterdir()}
    assert "00000003.history" in names  # two led here, and it got one of its own
    assert only_east not in names
    assert done.lsn >= lsn or done.lsn % (1 << 24) == 0
