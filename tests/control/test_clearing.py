"""`hmsdr damage`: signs are cleared after real checks only, on the record, by a named person; and stay while a copy is damaged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hospital import EAST, WEST, Hospital, Open, until
from pages import change, garbage, swapped_items
from test_inspection import filled, restarted, seen

from commands import Done, hmsdr
from hmsdr.control.checksums import judged
from hmsdr.control.clearing import CLEARED

WORD = ("--reason", "the table was written anew", "--by", "Ada Quill")


async def command(here: Hospital, *words: Any) -> Done:
    return await asyncio.to_thread(hmsdr, "damage", *words, "--playbook", here.directory / "playbook.yaml")


async def recorded(here: Hospital) -> list[Any]:
    return [event for event in await here.store.read() if event.kind == CLEARED]


@pytest.mark.req("DB-4")
async def test_a_bad_page_is_cleared_once_it_is_gone_and_not_before(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    files = await filled(here)
    sound = await command(here, "clear", EAST, *WORD)
    assert (sound.status, "it shows no sign of damage" in sound.err) == (2, True), sound
    assert (await command(here, "show", EAST)).out.startswith(f"{EAST}: no sign of damage")

    change(here.east.data / files["patients"], 3, garbage, honest=False)
    await restarted(here.east, "primary")
    with pytest.raises(Exception, match="invalid page in block 3"):
        await here.east.ask("SELECT count(name) FROM patients")
    await seen(here.east, "page", "checksum")
    shown = await command(here, "show", EAST)
    assert f"page      {files['patients']}" in shown.out
    assert "Mary" not in shown.out

    refused = await command(here, "clear", EAST, *WORD)
    assert refused.status == 2, refused
    assert f"its checksum is wrong: block 3 of {files['patients']}" in refused.err
    assert "every page's checksum" in refused.err, "it says how far it is"
    assert await recorded(here) == []
    assert {str(sign.kind) for sign in (await seen(here.east, "page")).signs} >= {"page", "checksum"}

    async with await here.east.connect() as connection:  # made anew from what can be read
        await connection.execute("SET zero_damaged_pages = on")
        await connection.execute("VACUUM FULL patients")
        await connection.execute("CHECKPOINT")
    cleared = await command(here, "clear", EAST, *WORD)
    assert cleared.status == 0, cleared
    (event,) = await recorded(here)
    assert (event.subject, event.actor, event.data["reason"]) == (EAST, "Ada Quill", WORD[1])
    assert event.data["checked"] == ["checksums", "pg_amcheck"]
    assert {each["kind"] for each in event.data["signs"]} >= {"page", "checksum"}
    # PostgreSQL's counter still stands where it was, and is no new sign.
    await asyncio.sleep(5)
    machine = await command(here, "show", EAST, "--json")
    assert machine.json()["signs"] == []
    assert machine.json()["clearing"]["state"] == "cleared"
    here.east.kill_agent()  # and it was durable
    here.east.start()
    await here.east.wait_state("primary")
    assert (await command(here, "show", EAST, "--json")).json()["signs"] == []


@pytest.mark.req("DB-4")
async def test_a_standby_with_a_broken_index_is_refused_with_its_name(hospital: Open) -> None:
    here = await hospital(check_every="3s")
    await here.east_is_primary()
    files = await filled(here)
    change(here.west.data / files["patients_pkey"], 1, swapped_items, honest=True)
    await restarted(here.west, "standby")
    await seen(here.west, "index public.patients_pkey")
    refused = await command(here, "clear", WEST, *WORD)
    assert refused.status == 2, refused
    assert "index public.patients_pkey" in refused.err
    assert await recorded(here) == []


async def test_bad_orders_are_refused(hospital: Open) -> None:
    here = await hospital()
    here.west.start()
    await here.west.wait_state("standby")
    nowhere = await command(here, "show", "us-east-3")
    assert (nowhere.status, "no such region" in nowhere.err) == (2, True)
    unnamed = await command(here, "clear", WEST, "--reason", " ", "--by", "Ada Quill")
    assert (unnamed.status, "It takes a named person and a reason" in unnamed.err) == (2, True)
    dead = await command(here, "show", EAST)
    assert dead.status == 1, dead


async def test_an_order_to_promote_ends_the_checks(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    files = await filled(here)
    change(here.west.data / files["patients"], 3, garbage, honest=False)
    await restarted(here.west, "standby")
    with pytest.raises(Exception, match="invalid page in block 3"):
        await here.west.ask("SELECT count(name) FROM patients")
    await seen(here.west, "page")
    holder = await here.east.connect()
    try:
        async with holder.transaction():  # so that the check takes long: replay has the lock as well
            await holder.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
            await here.west.client.clear_damage(by="Ada Quill", reason="x", deadline=10)
            with pytest.raises(Exception, match="epoch"):
                await here.west.client.promote(epoch=2, min_lsn=None, deadline=20)

            async def ended() -> bool:
                return (await here.west.client.damage(deadline=5)).clearing.state in ("failed", "refused")

            await until("the checks ended", ended, 15)
    finally:
        await holder.close()
    assert await recorded(here) == []


@pytest.mark.parametrize(
    ("status", "errors", "complete", "found"),
    [
        (0, "", True, 0),
        (1, "pg_basebackup: error: connection refused", False, 0),
        (
            1,
            'WARNING:  checksum verification failed in file "./base/5/16384", block 3: calculated 1',
            True,
            1,
        ),
    ],
)
def test_words_of_pg_basebackup(status: int, errors: str, complete: bool, found: int) -> None:
    told = judged(status, errors)
    assert (told.complete, len(told.found)) == (complete, found)
