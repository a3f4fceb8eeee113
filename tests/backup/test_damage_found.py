"""Damage that a backup carries along, and a standby that silently differs: both are found by trying the backup out."""

from __future__ import annotations

from pathlib import Path

import pytest
from bank import Bank, Opened, tried
from hospital import EAST, WEST

from hmsdr.backup.fetch import Target
from hmsdr.backup.findings import Kind

pytestmark = pytest.mark.timeout(300)


async def heap_of(bank: Bank, region: str) -> Path:
    """The file with the patients, everything that is known written to it."""
    await bank.sql("CHECKPOINT")
    return bank.servers[region].directory / str(await bank.sql("SELECT pg_relation_filepath('patients')"))


@pytest.mark.req("TV-1")
async def test_a_page_that_rots_on_the_primarys_disk_is_found_in_its_backup(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(500)
    file = await heap_of(bank, EAST)
    content = bytearray(file.read_bytes())
    content[5000:5040] = bytes(40)
    file.write_bytes(bytes(content))
    await bank.back_up()
    verdict = await tried(bank.verifier(), Target())
    assert {each.kind for each in verdict.findings} == {Kind.DAMAGE}
    assert any("patients" in each.words for each in verdict.findings)


@pytest.mark.req("TV-1")
async def test_a_standby_that_silently_differs_is_found(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(500)
    await bank.back_up()
    file, west = await heap_of(bank, WEST), bank.servers[WEST]
    await bank.sql("CHECKPOINT", WEST)
    assert await west.stop_fast(60)
    content = file.read_bytes()
    assert b"p17" in content
    file.write_bytes(content.replace(b"p17", b"q17"))
    for change in (
        "--disable",
        "--enable",
    ):  # the checksums are right again: nobody but a comparison can tell
        status, _, errors = await west.tool("pg_checksums", change, "-D", west.directory)
        assert status == 0, errors
    await bank.start(WEST, writable=False)
    verdict = await tried(bank.verifier(), Target())
    assert [each.kind for each in verdict.findings] == [Kind.DIFFERENT]
    assert (
        "public.patients has 500 rows on both sides, and they are not the same" in verdict.findings[0].words
    )


async def test_old_backups_go_and_what_the_window_needs_stays(open_banks: Opened) -> None:
    bank = await open_banks(keep="30d", keep_at_least=1)
    await bank.both()
    ids = []
    for days in (60, 40):
        made = await bank.back_up()
        ids.append(made.record.id)
        bank.age(made.record, days)
    made = await bank.back_up()
    assert not made.problems
    for region in (EAST, WEST):
        shelf = await bank.vault().shelf(bank.bucket(region))
        assert [record.id for record in shelf.records] == [ids[1], made.record.id]
        assert {record.id for record in shelf.whole()} == {ids[1], made.record.id}
        kept = min(record.begin_wal for record in shelf.whole())
        assert min(name for name in shelf.wal if len(name) == 24) == kept
    verdict = await tried(bank.verifier(), Target())
    assert not verdict.findings
