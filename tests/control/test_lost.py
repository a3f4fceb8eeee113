"""What the old primary committed alone, on real PostgreSQL: every row of it is in a file before anything is rewound."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hospital import EAST, Hospital, Open, Region, until
from parting import break_stream, caught_up, cut_off, follow, slot_is_kept, west_takes_over

from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.log.events import Event

NAMES = "SELECT string_agg(name, ',' ORDER BY id) FROM patients"


def lines(region: Region, lost: Any) -> list[dict[str, Any]]:
    path = region.state / "reconciliation" / lost["file"]
    return [json.loads(line) for line in path.read_text().splitlines()]


async def has(region: Region, names: str) -> None:
    async def there() -> bool:
        return await region.ask(NAMES) == names

    await until(names, there)


async def told(here: Hospital) -> list[Event]:
    return [event for event in await here.store.read(subject=EAST) if event.kind == "writes.lost"]


async def reconcile(here: Hospital, epoch: int) -> Any:
    return await here.east.client.reconcile(
        epoch=epoch, primary_host=here.west.host, primary_port=5432, deadline=60
    )


async def parted(here: Hospital, *commands: str) -> int:
    """The west takes over without what `commands` do in the east; gives the new epoch."""
    await here.east_is_primary()
    async with await here.east.connect() as east:
        await east.execute("CREATE TABLE visits (patient bigint, at timestamptz, PRIMARY KEY (patient, at))")
        await east.execute("CREATE TABLE notes (text text)")
        await east.execute("INSERT INTO notes VALUES ('both have this')")
        await east.execute("INSERT INTO patients (name) VALUES ('Ada'), ('Berta'), ('Carla')")
        await caught_up(here, 3)
        await slot_is_kept(here)
        receiver = await cut_off(here)
        for command in commands:
            await east.execute(command)  # type: ignore[arg-type]
    return await west_takes_over(here, receiver)


@pytest.mark.req("FM-4")
async def test_every_row_that_the_new_primary_never_saw_is_in_a_file(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(
        here,
        "INSERT INTO patients (name) VALUES (E'O''Hara\n\\\\tab\tend')",
        "UPDATE patients SET name = 'Ada Lovelace' WHERE id = 1",
        "UPDATE patients SET id = 30 WHERE id = 3",
        "DELETE FROM patients WHERE id = 2",
        "BEGIN",
        "INSERT INTO visits VALUES (1, '2026-01-02 03:04:05+00')",
        "INSERT INTO notes VALUES (NULL)",
        "COMMIT",
        "BEGIN",
        "INSERT INTO patients (name) VALUES ('rolled back')",
        "ROLLBACK",
        "DELETE FROM notes WHERE text IS NOT NULL",
    )
    answer = await follow(here, epoch)
    assert (answer.rewound, answer.streaming) == (True, True)
    lost = answer.lost
    assert lost is not None
    found = lines(here.east, lost)
    assert [(each["table"], each["operation"], each["old_key"], each["new"]) for each in found] == [
        ("public.patients", "insert", None, {"id": "4", "name": "O'Hara\n\\tab\tend"}),
        ("public.patients", "update", {"id": "1"}, {"id": "1", "name": "Ada Lovelace"}),
        ("public.patients", "update", {"id": "3"}, {"id": "30", "name": "Carla"}),
        ("public.patients", "delete", {"id": "2"}, None),
        ("public.visits", "insert", None, {"patient": "1", "at": "2026-01-02 03:04:05+00"}),
        ("public.notes", "insert", None, {"text": None}),
        ("public.notes", "delete", None, None),  # a table without a key: which row it was, nobody logged
    ]
    assert found[4]["xid"] == found[5]["xid"] != found[3]["xid"]
    assert found[4]["commit_lsn"] == found[5]["commit_lsn"]
    assert (lost["complete"], lost["transactions"], lost["rows"], lost["unidentified"]) == (True, 6, 7, 1)
    assert lost["tables"] == {"public.notes": 2, "public.patients": 4, "public.visits": 1}
    assert lost["commits"] == lost["transactions"] + lost["own"]
    assert lost["bytes"] > 0
    assert 0 < lost["seconds"] < 60
    await has(here.east, "Ada,Berta,Carla,only in the west")


async def test_a_transaction_belongs_to_where_it_was_committed_also_with_a_changed_table(
    hospital: Open,
) -> None:
    """Begun and seen by both sides, committed in the east alone; and rows of a table as it was at that moment."""
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    async with await here.east.connect() as long, await here.east.connect() as east:
        await long.execute("BEGIN")
        await long.execute("INSERT INTO patients (name) VALUES ('begun before')")
        await east.execute("INSERT INTO patients (name) VALUES ('both')")
        await caught_up(here, 1)
        receiver = await cut_off(here)
        await long.execute("INSERT INTO patients (name) VALUES ('ended after')")
        await long.execute("COMMIT")
        await east.execute("INSERT INTO patients (name) VALUES ('old shape')")
        await east.execute("ALTER TABLE patients ADD COLUMN born date")
        await east.execute("UPDATE patients SET born = '1815-12-10' WHERE name = 'both'")
        await east.execute("ALTER TABLE patients DROP COLUMN born")
        await east.execute("TRUNCATE patients")
    epoch = await west_takes_over(here, receiver)
    lost = (await follow(here, epoch)).lost
    assert lost is not None
    assert [(each["operation"], each["new"]) for each in lines(here.east, lost)] == [
        ("insert", {"id": "1", "name": "begun before"}),
        ("insert", {"id": "3", "name": "ended after"}),
        ("insert", {"id": "4", "name": "old shape"}),
        ("update", {"id": "2", "name": "both", "born": "1815-12-10"}),
        ("truncate", None),
    ]
    assert (lost["complete"], lost["transactions"]) == (True, 4)
    assert lost["commits"] == lost["transactions"] + lost["own"] + 2  # the two that changed the table itself


async def test_the_file_is_for_the_hospital_and_the_log_has_counts_only(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(here, "INSERT INTO patients (name) VALUES ('Secret Patient')")
    lost = (await follow(here, epoch)).lost
    assert lost is not None
    path = here.east.state / "reconciliation" / lost["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = path.read_bytes()
    assert b"Secret Patient" in content
    assert hashlib.sha256(content).hexdigest() == lost["sha256"]

    async def in_the_log() -> list[Event]:
        return await told(here)

    (event,) = await until("the event", in_the_log)
    assert (event.data["file"], event.data["sha256"]) == (lost["file"], lost["sha256"])
    assert (event.data["transactions"], event.data["rows"], event.data["bytes"]) == (1, 1, lost["bytes"])
    answer = await here.east.client.lost(deadline=5)
    assert [each["sha256"] for each in answer.lost] == [lost["sha256"]]
    assert Path(answer.directory) == path.parent
    part, size = await here.east.client.lost_part(lost["file"], 0, deadline=5)
    assert (part, size) == (content, len(content))
    with pytest.raises(PermanentError, match="no such file"):
        await here.east.client.lost_part("agent.json", 0, deadline=5)
    said = here.east.log() + json.dumps([dict(each.data) for each in await here.store.read()])
    said += path.with_suffix(".json").read_text() + (here.east.state / "postgres.log").read_text()
    assert "Secret" not in said
    here.east.kill_agent()
    here.east.start()  # it looks at its files again, and tells nothing twice
    await here.east.wait_state("standby")
    assert len(await told(here)) == 1


async def test_extracted_again_it_is_the_same_file_and_nothing_is_rewound_for_it(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(here, "INSERT INTO patients (name) VALUES ('only in the east')")
    first = await reconcile(here, epoch)
    assert first["complete"] is True
    assert await reconcile(here, epoch) == first
    for path in (here.east.state / "reconciliation").iterdir():
        path.unlink()
    again = await reconcile(here, epoch)
    assert (again["file"], again["sha256"]) == (first["file"], first["sha256"])
    assert (await here.east.status()).database.state == "fenced"
    assert not list(here.east.directory.glob(".*.hmsdr-lost"))
    lost = (await follow(here, epoch)).lost
    assert lost is not None
    assert lost["sha256"] == first["sha256"]


async def test_a_region_that_comes_back_by_itself_has_not_lost_its_rows(hospital: Open) -> None:
    """Nobody fenced it: all of it died. It starts as a standby, which does not stream, and waits for an order."""
    here = await hospital(lease="2s")
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('both') RETURNING id")
    await caught_up(here, 1)
    await slot_is_kept(here)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('only in the east') RETURNING id")
    epoch = await west_takes_over(here, receiver, fenced=False)
    here.east.start()
    await here.east.wait_state("standby")
    assert await here.east.ask(NAMES) == "both,only in the east"
    answer = await follow(here, epoch)
    assert (answer.rewound, answer.streaming) == (True, True)
    assert answer.lost is not None
    assert [each["new"]["name"] for each in lines(here.east, answer.lost)] == ["only in the east"]
    await has(here.east, "both,only in the west")


async def test_without_its_slot_nothing_is_rewound_until_somebody_says_why(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(here, "INSERT INTO patients (name) VALUES ('only in the east')")
    (slot,) = here.east.data.glob("pg_replslot/hmsdr_lost_*")
    slot.rename(here.directory / "slot")
    with pytest.raises(PermanentError, match=r"\d transactions .* no slot from which") as refused:
        await follow(here, epoch)
    assert "only in the east" not in str(refused.value)
    assert (await here.east.status()).database.state == "fenced"
    (before,) = (await here.east.client.lost(deadline=5)).lost
    assert (before["complete"], before["file"]) == (False, None)
    assert before["commits"] >= 1  # heartbeats cannot be told apart now
    answer = await follow(here, epoch, word=("Dr Who", "the ward has it on paper"))
    assert (answer.rewound, answer.streaming) == (True, True)

    async def accepted() -> bool:
        return [each.data["accepted_by"] for each in await told(here)] == [None, "Dr Who"]

    await until("the word in the log", accepted)
    await has(here.east, "Ada,Berta,Carla,only in the west")


async def test_a_slot_that_was_made_again_says_what_it_does_not_know(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('too early') RETURNING id")
    await here.east.ask("SELECT pg_drop_replication_slot('hmsdr_lost_1')::text")
    await slot_is_kept(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('in time') RETURNING id")
    epoch = await west_takes_over(here, receiver)
    with pytest.raises(PermanentError, match="decodes only what was committed from"):
        await follow(here, epoch)
    (lost,) = (await here.east.client.lost(deadline=5)).lost
    assert lost["complete"] is False
    assert lost["commits"] >= 2
    assert [each["new"]["name"] for each in lines(here.east, lost)] == ["in time"]


async def test_a_slot_whose_wal_was_not_kept_is_made_again_and_that_is_said(hospital: Open) -> None:
    """It never holds WAL without bound, and nobody pretends afterwards."""
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    await break_stream(here)
    async with await here.east.connect() as east:
        await east.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        await east.execute("ALTER SYSTEM SET wal_keep_size = '0'")
        await east.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            await east.execute("INSERT INTO patients (name) VALUES ('gone with its WAL')")
            await east.execute("SELECT pg_switch_wal()")
        await east.execute("CHECKPOINT")

    async def said() -> bool:
        return "lost.slot_invalid" in here.east.log()

    await until("that the slot is invalid", said)
    await slot_is_kept(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('in time') RETURNING id")
    epoch = await west_takes_over(here, None)
    with pytest.raises(PermanentError, match="an unknown number of transactions") as refused:
        await follow(here, epoch)
    assert "it can be read up to" in str(refused.value)
    (lost,) = (await here.east.client.lost(deadline=5)).lost
    assert (lost["complete"], lost["commits"]) == (False, None)


@pytest.mark.req("FM-4")
async def test_an_agent_that_dies_while_it_extracts_leaves_nothing_and_does_it_again(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(here, "INSERT INTO notes SELECT repeat('x', 200) FROM generate_series(1, 100000)")
    place = here.east.directory / ".data.hmsdr-lost"
    files = here.east.state / "reconciliation"
    order = asyncio.create_task(follow(here, epoch))

    async def decoding() -> bool:
        return (place / "rows.txt").exists()

    await until("decoding", decoding)
    here.east.kill_agent()
    with pytest.raises(DriverError):
        await order
    assert place.exists()
    assert not list(files.glob("lost-*"))
    here.east.start()
    await here.east.wait_state("fenced")

    async def swept() -> bool:
        return not place.exists()

    await until("the copy is gone", swept)
    answer = await follow(here, epoch)
    assert answer.rewound
    assert answer.lost is not None
    assert answer.lost["rows"] == len(lines(here.east, answer.lost)) == 100000
    assert not place.exists()
    assert {path.suffix for path in files.iterdir()} == {".json", ".jsonl"}


@pytest.mark.req("DB-2")
async def test_an_order_to_promote_ends_the_search_at_once(hospital: Open) -> None:
    here = await hospital()
    epoch = await parted(here, "INSERT INTO notes SELECT repeat('x', 200) FROM generate_series(1, 300000)")
    place = here.east.directory / ".data.hmsdr-lost"
    order = asyncio.create_task(reconcile(here, epoch))

    async def decoding() -> bool:
        return (place / "rows.txt").exists()

    await until("decoding", decoding)
    record = await here.revoke()
    receipt = await here.west.client.fence(epoch=record.epoch, reason="t", run="t", clean=False, deadline=30)
    await here.prove(receipt)
    granted = (await here.grant(here.east)).epoch
    assert not order.done()
    await here.east.client.promote(epoch=granted, min_lsn=None, deadline=20)
    with pytest.raises(PermanentError, match="ended for an order to promote"):
        await order
    assert await here.east.ask("SELECT count(*) FROM notes") == 300001  # nothing of it is lost now
    assert not place.exists()


async def test_the_slot_moves_on_with_the_standby_and_goes_when_its_primary_follows(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    behind = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'hmsdr_lost_1'"
    await here.east.ask(
        "INSERT INTO patients (name) SELECT repeat('x', 1000) FROM generate_series(1, 5000) RETURNING id"
    )

    async def close() -> bool:
        return int(str(await here.east.ask(behind))) < 100_000

    await until("the slot has moved", close)
    record = await here.revoke()
    receipt = await here.east.client.fence(epoch=record.epoch, reason="t", run="t", clean=True, deadline=30)
    await here.prove(receipt, (await here.west.status()).instance)
    epoch = (await here.grant(here.west)).epoch
    await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    answer = await follow(here, epoch)
    assert (answer.rewound, answer.lost) == (False, None) or answer.lost["commits"] == 0  # type: ignore[index]

    async def gone() -> bool:
        return (
            await here.east.ask("SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'") == 0
        )

    await until("the slot in the east is gone", gone)
    assert await here.west.ask("SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'") == (
        f"hmsdr_lost_{epoch}"
    )
