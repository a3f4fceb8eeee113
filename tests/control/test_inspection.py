"""Damage that is really done to the files of a real PostgreSQL, and seen by its agent: pages, indexes, a start that panics."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hospital import EAST, Hospital, Open, Region, until
from pages import change, garbage, swapped_items

from hmsdr.control.amcheck import APPLICATION, amcheck
from hmsdr.control.config import OnCrash, from_playbook
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.decide.corruption import Answer, Copy, diagnose
from hmsdr.decide.soundness import Doubt, Health, doubt
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.postgres import Postgres

ROWS = "INSERT INTO patients (name) SELECT 'Mary Stone ' || g FROM generate_series(1, 3000) AS g"


async def filled(hospital: Hospital) -> dict[str, Path]:
    """Patients on both sides, on disk; gives the files of table and index by name, relative to a data directory."""
    async with await hospital.east.connect() as connection:
        await connection.execute(ROWS)
        await connection.execute("VACUUM (FREEZE) patients")
        await connection.execute("CHECKPOINT")
        lsn = await (await connection.execute("SELECT pg_current_wal_flush_lsn()")).fetchone()
        assert lsn is not None
        paths = await (
            await connection.execute(
                "SELECT pg_relation_filepath('patients'), pg_relation_filepath('patients_pkey')"
            )
        ).fetchone()
        assert paths is not None

    async def replayed() -> bool:
        return bool(await hospital.west.ask(f"SELECT pg_last_wal_replay_lsn() >= '{lsn[0]}'"))

    await until("replayed", replayed)
    async with await hospital.west.connect() as connection:
        await connection.execute("CHECKPOINT")
    return {"patients": Path(str(paths[0])), "patients_pkey": Path(str(paths[1]))}


async def restarted(region: Region, role: str) -> None:
    """Let the database forget what it has in memory, as the agent does it: it dies, and is started again."""
    before = region.postmaster()
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        status = await region.status()
        return status.database.state == role and status.database.pid not in (None, before)

    await until(f"{region.name} is back", back, 30)


async def seen(region: Region, *wanted: str, seconds: float = 30) -> Health:
    """Wait for signs by their kind, or by kind and place."""

    async def ask() -> Health | None:
        health = (await region.status()).health
        if health is None:
            return None
        told = {words for each in health.signs for words in (str(each.kind), f"{each.kind} {each.where}")}
        return health if told >= set(wanted) else None

    try:
        return await until(f"{region.name} tells of {wanted}", ask, seconds)
    except AssertionError:
        print(region.log()[-4000:])  # noqa: T201
        raise


async def trusted(hospital: Hospital, seconds: float = 40) -> tuple[AgentStatus, AgentStatus]:
    """Wait until nothing speaks against west any more."""

    async def ask() -> tuple[AgentStatus, AgentStatus] | None:
        east, west = await hospital.east.status(), await hospital.west.status()
        return (east, west) if doubt(west.health, west.database.lsn, east.health) is None else None

    return await until("the standby has checked itself", ask, seconds)


@pytest.mark.req("FA-1")
async def test_a_bad_heap_page_is_seen_and_the_standby_is_trusted_once_it_has_checked_itself(
    hospital: Open,
) -> None:
    found = await hospital()
    await found.east_is_primary()
    files = await filled(found)
    change(found.east.data / files["patients"], 3, garbage, honest=False)
    await restarted(found.east, "primary")
    with pytest.raises(Exception, match="invalid page in block 3"):
        await found.east.ask("SELECT count(name) FROM patients")
    health = await seen(found.east, "page", "checksum")
    page = next(sign for sign in health.signs if str(sign.kind) == "page")
    assert page.where == str(files["patients"])
    assert page.evidence == "invalid page in block 3"
    assert page.lsn
    assert "Mary" not in str(health)
    # At that moment nobody knows what the standby has replayed; it looks, unasked.
    east, west = await trusted(found)
    assert east.health is not None
    assert east.health.signs
    assert west.health is not None
    assert (west.health.signs, west.health.checked_lsn is not None) == ((), True)


async def _reindex(hospital: Hospital) -> bool:
    """Both agents say that the check that found the index looked at every table, too."""
    copies = []
    for region in (hospital.east, hospital.west):
        told, health = await region.client.damage(deadline=5), (await region.status()).health
        copies.append(Copy(region.name, region is hospital.east, health, whole=told.whole))
    return diagnose(*copies).answer is Answer.REINDEX


@pytest.mark.req("FA-1")
async def test_a_broken_index_with_a_good_checksum_is_found_by_the_scheduled_check_on_either_side(
    hospital: Open,
) -> None:
    found = await hospital(check_every="2s")
    await found.east_is_primary()
    files = await filled(found)
    east, west = await trusted(found)
    assert (east.health and east.health.signs, west.health and west.health.signs) == ((), ())
    # On the standby, where nobody would notice until it is promoted.
    change(found.west.data / files["patients_pkey"], 1, swapped_items, honest=True)
    await restarted(found.west, "standby")
    health = await seen(found.west, "index public.patients_pkey")
    assert {str(sign.kind) for sign in health.signs} == {"index"}
    assert "Mary" not in str(health)
    west = await found.west.status()
    assert doubt(west.health, west.database.lsn, Health()) is Doubt.DAMAGED
    # And on the primary.
    change(found.east.data / files["patients_pkey"], 1, swapped_items, honest=True)
    await restarted(found.east, "primary")
    await seen(found.east, "index public.patients_pkey")
    await until("building the index anew is the answer", partial(_reindex, found), 30)
    # Mended there, and said so by a check; the standby gets it by replay, and says so too.
    async with await found.east.connect() as connection:
        await connection.execute("REINDEX INDEX patients_pkey")
    east, west = await trusted(found)
    assert west.health is not None
    assert west.health.signs == ()


@pytest.mark.req("FA-1")
async def test_a_start_that_panics_is_a_sign(hospital: Open) -> None:
    found = await hospital()
    await found.east_is_primary()
    await filled(found)
    for segment in (found.east.data / "pg_wal").glob("0000*"):
        if segment.is_file() and segment.suffix == "":
            with segment.open("r+b") as file:
                file.write(b"\0" * (16 * 1024 * 1024))
    os.kill(found.east.postmaster(), signal.SIGKILL)
    health = await seen(found.east, "panic")
    assert [sign.where for sign in health.signs if str(sign.kind) == "panic"] == ["server"]
    status = await found.east.status()
    assert status.database.state != "primary"


async def test_a_check_stays_out_of_the_way(hospital: Open) -> None:
    """The sessions of a check run at the least urgent priority."""
    found = await hospital(check_every="1s")
    await found.east_is_primary()

    async def nice() -> bool:
        async with await found.east.connect() as connection:
            rows = await (
                await connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'hmsdr-check'"
                )
            ).fetchall()
        priorities = []
        for (pid,) in rows:
            with suppress(ProcessLookupError):
                priorities.append(os.getpriority(os.PRIO_PROCESS, int(str(pid))))
        return 19 in priorities

    holder = await found.east.connect()
    try:
        # A table that somebody keeps to himself holds the check up, so that it can be looked at.
        async with holder.transaction():
            await holder.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
            await until("a session of the check is nice", nice, 30)
    finally:
        await holder.close()


async def test_a_check_that_takes_too_long_is_ended_with_its_sessions(hospital: Open, tmp_path: Path) -> None:
    found = await hospital()
    await found.east_is_primary()
    async with await found.east.connect() as connection:
        await connection.execute("CREATE EXTENSION amcheck")
    config = from_playbook(
        found.book,
        EAST,
        data_directory=found.east.data,
        state_directory=found.east.state,
        on_crash=OnCrash.RESTART,
    )
    server = PostgresServer(found.east.data, postgres_bin(), choose(), tmp_path / "log")
    sql = Postgres(config.instance, host=config.local_host)

    async def nobody() -> bool:
        return await sql.backends(APPLICATION, deadline=5) == ()

    holder = await found.east.connect()
    try:
        # Somebody keeps a table to himself: the check waits for it.
        async with holder.transaction():
            await holder.execute("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
            checked = await amcheck(config, server, sql, primary=True, deadline=0.5)
            assert (checked.complete, checked.why) == (False, "not done within 0.5 s")
            await until("its sessions are gone", nobody, 5)
    finally:
        await holder.close()
        await sql.close()
