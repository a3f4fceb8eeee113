"""`hmsdr follow`: the way back of an old primary, for whoever is on call; a loss that is not known takes a named person's word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hospital import EAST, WEST, Hospital, Open, until
from parting import cut_off, slot_is_kept, west_takes_over
from test_slots import handed_over

from commands import Done, hmsdr
from hmsdr.control.rejoining import LOST

WORD = ("--reason", "the ward has it on paper", "--by", "Ada Quill")


async def command(here: Hospital, *words: Any) -> Done:
    return await asyncio.to_thread(hmsdr, "follow", *words, "--playbook", here.directory / "playbook.yaml")


async def tables(here: Hospital) -> None:
    """Those that the runbook counts."""
    async with await here.east.connect() as connection:
        for name in ("appointments", "clinical_notes", "invoices", "users"):
            await connection.execute(f"CREATE TABLE {name} (id bigserial PRIMARY KEY)")


async def streams(here: Hospital) -> bool:
    status = await here.east.status()
    return status.database.state == "standby" and status.replication.streaming


@pytest.mark.req("DB-1")
async def test_an_old_primary_that_lost_nothing_follows_by_one_command(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await tables(here)
    await handed_over(here, here.east, here.west)
    assert (await here.east.status()).database.state == "fenced"
    done = await command(here, EAST, "--by", "Ada Quill")
    assert done.status == 0, done
    await until("east streams", lambda: streams(here))
    again = await command(here, EAST)
    assert again.status == 0, again
    holder = await command(here, WEST)
    assert holder.status != 0, holder
    unknown = await command(here, "us-east-3")
    assert (unknown.status, "is no region of the playbook" in unknown.err) == (2, True), unknown


@pytest.mark.req("DB-1")
async def test_a_loss_that_is_not_known_takes_a_word_and_that_is_on_the_record(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await tables(here)
    await slot_is_kept(here)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('x') RETURNING id")
    await west_takes_over(here, receiver)
    (slot,) = here.east.data.glob("pg_replslot/hmsdr_lost_*")
    slot.rename(here.directory / "slot")
    refused = await command(here, EAST)
    assert refused.status != 0, refused
    assert "hmsdr follow us-east-1 --without-lost-rows" in refused.out + refused.err
    assert (await here.east.status()).database.state != "standby"
    unnamed = await command(here, EAST, "--without-lost-rows")
    assert (unnamed.status, "It takes a named person and a reason" in unnamed.err) == (2, True), unnamed
    done = await command(here, EAST, "--without-lost-rows", *WORD)
    assert done.status == 0, done
    await until("east streams", lambda: streams(here))
    events = await here.store.read()
    started = [event for event in events if event.kind == "run.started"][-1]
    assert started.data["plan"]["parameters"] == {
        "region": EAST,
        "accepted-by": "Ada Quill",
        "accepted-because": WORD[1],
    }

    async def told() -> bool:
        lost = [event.data for event in await here.store.read() if event.kind == LOST]
        return any(each["accepted_by"] == "Ada Quill" for each in lost)

    await until("who accepted it is told", told)
