"""Promotion on real PostgreSQL: once per epoch, by the agent alone, never below what was handed over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import suppress

import psycopg
import pytest
from hospital import EAST, Hospital, Open, until
from parting import slot_is_kept

from hmsdr.control import pgconf
from hmsdr.control.programs import postgres_bin
from hmsdr.drivers.errors import PermanentError
from hmsdr.drivers.postgres import Postgres


async def fail_over(hospital: Hospital, *, clean: bool) -> int:
    """East to west by the whole protocol; gives the new epoch."""
    record = await hospital.revoke()
    receipt = await hospital.east.client.fence(
        epoch=record.epoch, reason="test", run="t", clean=clean, deadline=30
    )
    target = (await hospital.west.status()).instance
    await hospital.prove(receipt, target if clean else None)
    return (await hospital.grant(hospital.west)).epoch


@pytest.mark.req("DB-2")
async def test_a_promotion_is_done_once_and_its_second_delivery_does_nothing(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    epoch = await fail_over(here, clean=False)
    first = await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    again = await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    print(f"promotion to first write: {first.seconds * 1000:.1f} ms")  # noqa: T201
    assert (first.already, again.already) == (False, True)
    assert (again.promoted_at, again.lsn, again.timeline) == (first.promoted_at, first.lsn, first.timeline)
    assert (
        await here.west.ask("SELECT instance FROM hmsdr_epoch WHERE epoch = 2")
        == (await here.west.status()).instance
    )
    assert await here.west.ask("SELECT count(*) FROM hmsdr_epoch") == 2


@pytest.mark.req("DB-2")
async def test_an_epoch_that_is_not_ours_or_is_old_is_refused_and_changes_nothing(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    with pytest.raises(PermanentError, match="held by postgres-primary-0@us-east-1"):
        await here.west.client.promote(epoch=1, min_lsn=None, deadline=10)
    with pytest.raises(PermanentError, match="under epoch 1"):
        await here.west.client.promote(epoch=2, min_lsn=None, deadline=10)
    epoch = await fail_over(here, clean=False)
    await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    with pytest.raises(PermanentError, match="epoch 2 was accepted here"):
        await here.west.client.promote(epoch=1, min_lsn=None, deadline=10)
    assert (await here.west.status()).accepted_epoch == 2


@pytest.mark.req("DB-2", "FA-4")
async def test_a_standby_that_is_promoted_around_its_agent_is_killed_and_stays_down(hospital: Open) -> None:
    """`SELECT pg_promote()` by whoever may: a second writer, which nobody gave the right."""
    here = await hospital()
    await here.east_is_primary()
    with suppress(psycopg.OperationalError):  # it may be killed before it has answered
        await here.west.ask("SELECT pg_promote(true, 10)")

    async def down() -> bool:
        return (await here.west.status()).database.state in ("stopped", "fenced")

    await until("the second writer is dead", down)
    assert "without its agent" in ((await here.west.status()).database.held or "")
    assert not here.west.processes()
    await here.east.ask("INSERT INTO patients (name) VALUES ('the holder writes on') RETURNING id")
    order = {"epoch": 1, "primary_host": here.east.host, "primary_port": 5432, "slot": "us_west_2_slot"}
    answer = await here.west.client.follow(**order, deadline=60)  # type: ignore[arg-type]
    assert (answer.rewound, answer.streaming) == (True, True)


@pytest.mark.req("DB-2")
async def test_a_standby_that_is_promoted_around_its_agent_acknowledges_next_to_nothing(
    hospital: Open,
) -> None:
    here = await hospital()
    await here.east_is_primary()
    acknowledged: list[float] = []
    writing = await here.west.connect()
    await here.west.ask("SELECT pg_promote(false)")
    with suppress(psycopg.OperationalError):
        while len(acknowledged) < 100_000:
            with suppress(psycopg.errors.ReadOnlySqlTransaction):
                await writing.execute("INSERT INTO patients (name) VALUES ('nobody should keep me')")
                acknowledged.append(time.monotonic())
            await asyncio.sleep(0.002)
    await writing.close()
    took = acknowledged[-1] - acknowledged[0] if acknowledged else 0.0
    print(f"acknowledged for {took * 1000:.0f} ms")  # noqa: T201
    # What the agent cannot prevent (docs/safety.md); a look every second would often take longer.
    assert took < 0.5
    assert not here.west.processes()


@pytest.mark.req("DB-2")
async def test_commits_that_were_asked_for_are_waited_for_and_then_missed(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    epoch = await fail_over(here, clean=False)
    beyond = 1 << 40
    with pytest.raises(PermanentError, match="asked for is 100/0"):
        await here.west.client.promote(epoch=epoch, min_lsn=beyond, deadline=20)
    assert (await here.west.status()).database.state == "standby"
    assert (await here.west.client.promote(epoch=epoch, min_lsn=1, deadline=20)).already is False


@pytest.mark.req("DB-2")
async def test_a_hand_over_loses_nothing_and_its_lsn_binds(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    for number in range(50):
        await here.east.ask(f"INSERT INTO patients (name) VALUES ('p{number}') RETURNING id")
    epoch = await fail_over(here, clean=True)
    record = await here.store.read_authority()
    fence = (await here.east.status()).fence
    assert fence is not None
    assert fence.clean
    assert record.handover_lsn == fence.last_lsn
    await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    assert await here.west.ask("SELECT count(*) FROM patients") == 50


async def test_the_old_side_follows_the_new_one_rewound_when_it_diverged(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('before') RETURNING id")

    async def replayed() -> bool:
        return await here.west.ask("SELECT count(*) FROM patients") == 1

    await until("the first row in the west", replayed)
    await slot_is_kept(here)
    receiver = here.west.find(b"walreceiver")
    assert receiver is not None
    os.kill(receiver, signal.SIGSTOP)  # what the east writes from here on never reaches the west
    await here.east.ask("INSERT INTO patients (name) VALUES ('only in the east') RETURNING id")
    record = await here.revoke()
    receipt = await here.east.client.fence(epoch=record.epoch, reason="t", run="t", clean=False, deadline=30)
    crashed = here.west.postmaster()
    os.kill(
        receiver, signal.SIGKILL
    )  # with what it had not read yet; a standby that crashes is started again
    await here.prove(receipt)

    async def again() -> bool:
        return here.west.postmaster() != crashed and (await here.west.status()).database.state == "standby"

    await until("the west started again", again)
    epoch = (await here.grant(here.west)).epoch
    await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    await here.west.ask("INSERT INTO patients (name) VALUES ('after') RETURNING id")
    order = {"epoch": epoch, "primary_host": here.west.host, "primary_port": 5432, "slot": "us_east_1_slot"}
    answer = await here.east.client.follow(**order, deadline=60)  # type: ignore[arg-type]
    assert (answer.rewound, answer.streaming) == (True, True)
    names = "SELECT string_agg(name, ',' ORDER BY id) FROM patients"

    async def same() -> bool:
        return await here.east.ask(names) == await here.west.ask(names) == "before,after"

    await until("the same rows on both sides", same)
    assert (await here.east.status()).database.state == "standby"
    once_more = await here.east.client.follow(**order, deadline=60)  # type: ignore[arg-type]
    assert not once_more.rewound


@pytest.mark.req("DB-2")
async def test_after_a_promotion_slot_and_signal_file_are_put_back(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    slots = Postgres(here.book.regions[EAST].postgres)

    async def slot() -> bool:
        return "us_west_2_slot" in [each.name for each in await slots.slots(deadline=3)]

    await until("the other region's slot", slot)
    assert pgconf.is_standby(here.east.data)


@pytest.mark.req("DB-2")
async def test_a_restart_outside_the_agent_gives_a_standby(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('kept') RETURNING id")
    assert await here.east.ask("SELECT pg_is_in_recovery()") is False
    here.east.kill_agent()
    prefix = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--"]
    ctl = [*prefix, str(postgres_bin() / "pg_ctl"), "-D", str(here.east.data), "-w"]
    await asyncio.to_thread(
        subprocess.run, [*ctl, "stop", "-m", "immediate"], check=True, capture_output=True
    )
    await asyncio.to_thread(
        subprocess.run, [*ctl, "-l", str(here.directory / "outside.log"), "start"], check=True, timeout=30
    )
    assert await here.east.ask("SELECT pg_is_in_recovery()") is True
    assert await here.east.ask("SELECT count(*) FROM patients") == 1
