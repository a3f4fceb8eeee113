"""The agent brings its database back by the path that it is told: rewound, or copied beside what is there; killed at any moment, resumed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hospital import WEST, Hospital, Open, Region, until
from pages import change, garbage
from parting import caught_up, cut_off, slot_is_kept, west_takes_over

from hmsdr.drivers.agent_answers import RecoveryAnswer
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.drivers.postgres import Postgres

EPOCH = 2


async def ordered(here: Hospital, path: str, *, run: str = "r1", epoch: int = EPOCH) -> RecoveryAnswer:
    return await here.east.client.recover(
        run=run,
        epoch=epoch,
        path=path,
        primary=(here.west.host, 5432),
        slot="us_east_1_slot",
        deadline=30,
    )


async def ended(region: Region, state: str = "done", seconds: float = 60) -> RecoveryAnswer:
    async def ask() -> RecoveryAnswer | None:
        found = (await region.status()).recovery
        return found if found.state not in ("running", "none") else None

    try:
        found = await until(f"the recovery of {region.name} ends", ask, seconds)
    except AssertionError:
        print(region.log()[-6000:])  # noqa: T201
        raise
    assert found.state == state, (found, region.log()[-3000:])
    return found


async def slot(here: Hospital) -> None:
    """The west's agent makes it when it promotes; whoever is first."""
    await Postgres(here.book.regions[WEST].postgres).create_physical_slot("us_east_1_slot", deadline=5)


async def lost_region(here: Hospital, rows: int = 5) -> None:
    """The east died as the primary, the west writes; the agent of the east is down."""
    await here.east_is_primary()
    await slot_is_kept(here)
    await here.east.ask(
        f"WITH new AS (INSERT INTO patients (name) SELECT 'p' || g FROM generate_series(1, {rows}) AS g "
        "RETURNING id) SELECT count(*) FROM new"
    )
    await caught_up(here, rows)
    async with await here.east.connect() as connection:
        await connection.execute("CHECKPOINT")
    assert await west_takes_over(here, None, fenced=False) == EPOCH


async def follows(here: Hospital, rows: int) -> None:
    """The east streams, has all that the west has, and takes no write."""
    status = await here.east.status()
    assert (status.database.state, status.replication.streaming) == ("standby", True)

    async def same() -> bool:
        return await here.east.ask("SELECT count(*) FROM patients") == rows

    await until("the east has all rows", same)
    assert await here.east.ask("SELECT pg_is_in_recovery()") is True


@pytest.mark.req("RC-2")
async def test_a_directory_that_is_gone_is_copied_whoever_dies_meanwhile(hospital: Open) -> None:
    here = await hospital()
    await lost_region(here)
    shutil.rmtree(here.east.data)
    here.east.start()
    assert (await here.east.wait_state("absent")).recovery.state == "none"
    told = (await here.east.client.data(deadline=20)).data
    assert (told.exists, told.problem, told.free > 0, bool(told.rates.link)) == (False, "", True, True)
    await slot(here)
    begun = await ordered(here, "basebackup")
    assert (begun.state, begun.path) == ("running", "basebackup")
    with pytest.raises(PermanentError, match="a recovery is under way"):
        await ordered(here, "rewind", run="r2")
    for _ in range(3):  # at whatever moment it is now
        here.east.kill_agent()
        here.east.start()
        await until("it answers", here.east.status)
        await asyncio.sleep(0.15)
    done = await ended(here.east)
    assert (done.kept, done.made) == (None, "a copy of the primary")
    await follows(here, 6)
    assert not list(here.east.directory.glob(".data.hmsdr-rebuild*"))
    # The same order again does nothing; a copy is not made twice.
    inode = (here.east.data / "PG_VERSION").stat().st_ino
    assert (await ordered(here, "basebackup")).state == "done"
    assert (here.east.data / "PG_VERSION").stat().st_ino == inode
    assert (await here.east.client.data(deadline=20)).data.rates.copy


@pytest.mark.req("RC-2")
async def test_damaged_data_are_replaced_and_kept_and_the_new_ones_trusted(hospital: Open) -> None:
    here = await hospital()
    await lost_region(here, rows=3000)
    path = Path(str(await here.west.ask("SELECT pg_relation_filepath('patients')")))
    change(here.east.data / path, 3, garbage, honest=False)
    here.east.start()
    await here.east.wait_state("standby")
    with pytest.raises(Exception, match="invalid page in block 3"):
        await here.east.ask("SELECT count(name) FROM patients")

    async def seen() -> bool:
        health = (await here.east.status()).health
        return health is not None and bool(health.signs)

    await until("it tells of damage", seen)
    await slot(here)
    await ordered(here, "basebackup")
    done = await ended(here.east)
    assert done.kept is not None
    kept = Path(done.kept)
    assert kept.parent == here.east.directory
    spoilt = (kept / path).read_bytes()[3 * 8192 + 4000 : 3 * 8192 + 4040]
    assert spoilt == b"\xa5" * 40, "what was there before is kept as it was"
    await follows(here, 3001)

    async def forgotten() -> bool:
        health = (await here.east.status()).health
        return health is not None and not health.signs

    await until("signs of other data are forgotten", forgotten)


@pytest.mark.req("RC-2", "DB-1")
async def test_a_diverged_one_is_rewound_by_order_only_and_an_unfinished_rewind_is_never_started(
    hospital: Open,
) -> None:
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('only in the east') RETURNING id")
    await west_takes_over(here, receiver)
    await slot(here)
    told = (await here.east.client.data(deadline=20)).data
    assert (told.exists, told.timeline, told.ends is not None) == (True, 2, True)
    await ordered(here, "follow")
    refused = await ended(here.east, "failed")
    assert (refused.refused, "was not to rewind" in refused.found) == (True, True), refused
    # As if the machine had died in the middle of pg_rewind, which is begun on a server that was shut down in order.
    await here.east.wait_state("standby")
    here.east.kill_agent()
    os.kill(here.east.postmaster(), signal.SIGINT)

    async def down() -> bool:
        return not here.east.processes()

    await until("it is shut down", down)
    state = here.east.state / "agent.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "rewinding": True, "stopped": False}))
    here.east.start()
    status = await here.east.wait_state("stopped")
    assert "a rewind of it did not end" in str(status.database.held)
    assert not here.east.processes()
    assert (await here.east.client.data(deadline=20)).data.rewinding
    await ordered(here, "rewind", run="r2")
    done = await ended(here.east)
    assert done.made == "rewound"
    await follows(here, 1)
    assert json.loads(state.read_text())["rewinding"] is False
    # What it had alone was found before the first attempt, and is in its file.
    (lost,) = (await here.east.client.lost(deadline=5)).lost
    assert (lost["rows"], lost["complete"]) == (1, True)


def copying(here: Hospital) -> int | None:
    """The process that copies the primary; None while there is none."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/pg_basebackup") and str(here.east.directory).encode() in b" ".join(words):
                return int(entry.name)
    return None


async def test_an_order_to_promote_under_a_later_epoch_ends_it_and_no_other(hospital: Open) -> None:
    here = await hospital(lease="1s")
    await lost_region(here)
    shutil.rmtree(here.east.data)
    here.east.start()
    await here.east.wait_state("absent")
    await slot(here)
    await ordered(here, "basebackup")

    async def seen() -> int | None:
        return copying(here)

    os.kill(await until("it is copied", seen), signal.SIGSTOP)
    with pytest.raises(DriverError):
        await here.east.client.promote(epoch=EPOCH, min_lsn=None, deadline=20)
    assert (await here.east.status()).recovery.state == "running"
    with pytest.raises(DriverError):
        await here.east.client.promote(epoch=EPOCH + 1, min_lsn=None, deadline=20)
    told = await ended(here.east, "failed")
    assert (told.refused, "order to promote" in told.found) == (True, True), told
    assert copying(here) is None
    await ordered(here, "basebackup", run="r2")
    await ended(here.east)
    await follows(here, 6)


async def test_what_may_write_or_is_of_an_older_plan_is_refused(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    with pytest.raises(PermanentError, match="holds the right to write"):
        await ordered(here, "basebackup")
    with pytest.raises(
        PermanentError, match="expected path to be one of follow, rewind, restore, basebackup"
    ):
        await ordered(here, "copy")
    with pytest.raises(PermanentError, match="holds the right to write"):
        await ordered(here, "rewind", epoch=1)
