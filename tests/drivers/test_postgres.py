"""The PostgreSQL driver against a real server: what it reads, what it changes, and how it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from hospital import free_network, make_template

from hmsdr.control import pgconf
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_snapshots import connect
from hmsdr.drivers.postgres_sums import add_up, prepare, tables
from hmsdr.playbook.topology import PostgresInstance


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[PostgresServer, PostgresInstance]]:
    place = tmp_path_factory.mktemp("driver")
    host = f"{free_network()}.1"
    instance = PostgresInstance(
        instance="db@here",
        host=host,
        service_host=host,
        statefulset="db",
        slot="s",
        data_directory=str(place),
    )
    server = PostgresServer(make_template(place), postgres_bin(), choose(), place / "log")
    settings = pgconf.settings(instance, listen=host, sockets=None, upstream=None)
    await server.start(writable=True, settings=settings, deadline=30)
    yield server, instance
    await server.kill(10)


Running = tuple[PostgresServer, PostgresInstance]


@pytest.mark.req("DB-4")
async def test_it_says_what_it_is(running: Running) -> None:
    status = await Postgres(running[1]).status(deadline=5)
    assert (status.reachable, status.in_recovery, status.timeline) == (True, False, 1)
    assert status.cluster_name == "db@here"
    assert status.system_identifier == (await running[0].control()).system_identifier
    assert status.lsn is not None
    assert status.lsn > 0


async def test_it_counts_what_was_committed_after_a_moment(running: Running) -> None:
    postgres = Postgres(running[1])
    moment = await postgres.now(deadline=5)
    assert await postgres.commits_after(moment, deadline=10) == (0, False)
    for epoch in (9001, 9002, 9003):
        await postgres.claim_epoch(epoch, "db@here", deadline=5)
    assert await postgres.commits_after(moment, deadline=10) == (3, False)
    assert (await postgres.commits_after(await postgres.now(deadline=5), deadline=10))[0] == 0


async def test_a_server_that_is_not_there_is_a_status_and_for_orders_an_error(running: Running) -> None:
    nowhere = Postgres(running[1].model_copy(update={"port": 5999}))
    status = await nowhere.status(deadline=3)
    assert not status.reachable
    assert "5999" in status.found
    with pytest.raises(TemporaryError, match="Check that the server is up"):
        await nowhere.counts(["patients"], deadline=3)


@pytest.mark.req("DB-4")
async def test_counts_and_checksums_tell_equal_from_different_data(running: Running) -> None:
    driver = Postgres(running[1], warm=True)
    before = (await driver.counts(["patients"], deadline=5), await driver.checksum("patients", deadline=5))
    assert before == (
        await driver.counts(["patients"], deadline=5),
        await driver.checksum("patients", deadline=5),
    )
    await driver._change("inserting", "INSERT INTO patients (name) VALUES ('x')", (), 5)
    after = (await driver.counts(["patients"], deadline=5), await driver.checksum("patients", deadline=5))
    assert after[0]["patients"] == before[0]["patients"] + 1
    assert after[1] != before[1]
    with pytest.raises(PermanentError, match="does not exist"):
        await driver.counts(['nothing"; DROP TABLE patients; --'], deadline=5)
    assert await driver.counts(["public.patients"], deadline=5) == {"public.patients": after[0]["patients"]}
    await driver.close()


async def test_what_changes_something_can_be_repeated(running: Running) -> None:
    driver = Postgres(running[1])
    assert await driver.create_physical_slot("a_slot", deadline=5) is True
    assert await driver.create_physical_slot("a_slot", deadline=5) is False
    assert [(slot.name, slot.kind, slot.active) for slot in await driver.slots(deadline=5)] == [
        ("a_slot", "physical", False)
    ]
    for _ in range(2):
        await driver.claim_epoch(7, "db@here", deadline=5)
    first, second = [await driver.heartbeat("db@here", deadline=5) for _ in range(2)]
    assert first < second
    assert await driver.replication(deadline=5) == ()
    await driver.checkpoint(deadline=20)


@pytest.mark.req("DB-4")
async def test_many_may_make_the_same_slot_at_once_and_one_of_them_has_made_it(running: Running) -> None:
    drivers = [Postgres(running[1], warm=True) for _ in range(8)]
    await asyncio.gather(*(driver.connect(deadline=10) for driver in drivers))
    for number in range(50):
        name = f"raced_{number}"
        made = await asyncio.gather(*(driver.create_physical_slot(name, deadline=10) for driver in drivers))
        assert sum(made) == 1, (number, made)
        await drivers[0].drop_slot(name, deadline=10)
    await asyncio.gather(*(driver.close() for driver in drivers))


async def test_a_warm_connection_that_broke_is_opened_again(running: Running) -> None:
    driver = Postgres(running[1], warm=True)
    await driver.connect(deadline=5)
    killer = Postgres(running[1])
    await killer._rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hmsdr' "
        "AND pid <> pg_backend_pid()",
        5,
    )
    assert (await driver.status(deadline=5)).reachable
    await driver.close()


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # an autovacuum worker may have ended meanwhile
            os.kill(pid, number)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_frozen_server_costs_the_deadline_and_no_more(running: Running, warm: bool) -> None:
    driver = Postgres(running[1], warm=warm)
    await driver.status(deadline=5)
    frozen = [*running[0].processes()]
    signal_all(frozen, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status = await driver.status(deadline=0.5)
        assert not status.reachable
        assert "within 0.5 s" in status.found
        with pytest.raises((TemporaryError, OutcomeUnknownError)):
            await driver.heartbeat("db@here", deadline=0.5)
        assert time.monotonic() - began < 4
    finally:
        signal_all(frozen, signal.SIGCONT)
    assert (await driver.status(deadline=10)).reachable
    await driver.close()


async def test_a_write_whose_answer_is_lost_is_unknown(running: Running) -> None:
    driver = Postgres(running[1], warm=True)
    await driver.connect(deadline=5)
    frozen = [*running[0].processes()]
    signal_all(frozen, signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknownError, match="Look whether it took effect"):
            await driver.heartbeat("db@here", deadline=0.5)
    finally:
        signal_all(frozen, signal.SIGCONT)
    await driver.close()


async def test_closing_under_a_call_ends_it_and_disturbs_no_other(running: Running) -> None:
    driver = Postgres(running[1], warm=True)
    slow = asyncio.create_task(driver._change("sleeping", "SELECT pg_sleep(30)", (), 60))
    while not driver._lock.locked() or driver._connection is None:
        await asyncio.sleep(0.01)
    await driver.close()
    with pytest.raises(OutcomeUnknownError):
        await asyncio.wait_for(slow, 5)
    assert (await driver.status(deadline=5)).reachable
    await driver.close()


async def test_a_wrong_database_is_permanent(running: Running) -> None:
    with pytest.raises(PermanentError, match="Check user, password and database"):
        await Postgres(running[1].model_copy(update={"database": "other"})).status(deadline=5)


def test_the_end_of_wal_needs_no_server(running: Running, tmp_path: Path) -> None:
    async def read() -> tuple[int | None, int | None]:
        server = running[0]
        control = await server.control()
        beyond = await server.end_of_wal(1 << 50, 1)
        return await server.end_of_wal(control.redo, control.timeline), beyond

    end, beyond = asyncio.run(read())
    assert end is not None
    assert beyond is None


@pytest.mark.req("DB-4")
async def test_a_count_stops_at_its_limit(running: Running) -> None:
    driver = Postgres(running[1])
    await driver._change(
        "making", "CREATE TABLE IF NOT EXISTS many AS SELECT generate_series(1, 500) AS n", (), 5
    )
    for limit, counted in ((1_000, 500), (500, 500), (499, 499), (1, 1), (0, 0)):
        assert await driver.counts(["many", "patients"], deadline=5, at_most=limit) == {
            "many": counted,
            "patients": (await driver.counts(["patients"], deadline=5, at_most=limit))["patients"],
        }
    with pytest.raises(PermanentError, match="must not be negative"):
        await driver.counts(["many"], deadline=5, at_most=-1)


@pytest.mark.req("DB-4", "FM-4")
async def test_damage_is_seen(running: Running) -> None:
    driver = Postgres(running[1])
    sound = await driver.integrity(deadline=5)
    assert (sound.checksum_failures, sound.invalid_indexes) == (0, 0)
    await driver._change("making", "CREATE TABLE twice AS SELECT 1 AS n FROM generate_series(1, 2)", (), 5)
    with pytest.raises(PermanentError, match="could not create unique index"):
        await driver._change("indexing", "CREATE UNIQUE INDEX CONCURRENTLY twice_n ON twice (n)", (), 10)
    assert (await driver.integrity(deadline=5)).invalid_indexes == 1
    await driver._change("dropping", "DROP INDEX twice_n", (), 5)
    assert await driver.integrity(deadline=5) == sound

    # One byte of a page is changed on disk; a database that is copied file by file has to read it from there.
    await driver._change("spoiling", "CREATE DATABASE spoilt", (), 20)
    inner = Postgres(running[1].model_copy(update={"database": "spoilt"}))
    await inner._change(
        "filling", "CREATE TABLE page AS SELECT repeat('x', 500) FROM generate_series(1, 40)", (), 5
    )
    ((path,),) = await inner._rows("SELECT pg_relation_filepath('page')", 5)
    await driver.checkpoint(deadline=20)
    file = running[0].directory / path
    content = bytearray(file.read_bytes())
    content[5000] ^= 0xFF
    file.write_bytes(content)
    await driver._change("copying", "CREATE DATABASE copied TEMPLATE spoilt STRATEGY file_copy", (), 30)
    copied = Postgres(running[1].model_copy(update={"database": "copied"}))
    with pytest.raises(PermanentError, match="invalid page"):
        await copied.counts(["page"], deadline=5)

    ends = time.monotonic() + 20
    while (await driver.integrity(deadline=5)).checksum_failures == 0:
        assert time.monotonic() < ends, "the damage was not counted"
        await asyncio.sleep(0.05)


@pytest.mark.req("RC-3")
@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("numeric", "1.0", "1.00"),
        ("numeric", "5", "-5"),
        ("numeric", "NaN", "Infinity"),
        ("numeric", "Infinity", "-Infinity"),
        ("float8", "0", "-0"),
        ("float4", "0", "-0"),
        ("interval", "1 month", "30 days"),
        ("timestamptz", "2026-11-25 10:00+00", "2026-11-25 10:00+01"),
        ("timestamptz", "infinity", "-infinity"),
        ("date", "2026-11-25", "2026-11-26"),
        ("bool", "true", "false"),
        ("bytea", r"\x00", r"\x0000"),
        ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
        ("text", "a", "A"),
        ("bpchar", "a", "b"),
    ],
)
async def test_values_that_are_not_the_same_bytes_add_up_to_different_sums(
    running: Running, newer: bool, kind: str, one: str, other: str
) -> None:
    async with await connect(running[1]) as session:
        await prepare(session)
        found = []
        for value in (one, other):
            await session.execute("DROP TABLE IF EXISTS public.odd")
            await session.execute(f"CREATE TABLE public.odd (x {kind}, y int)")  # type: ignore[arg-type]
            await session.execute("INSERT INTO public.odd VALUES (%s, NULL)", (value,))
            (table,) = [each for each, _ in await tables(session) if each.name == "odd"]
            chosen = replace(table, server=table.server if newer else 150000)
            found.append([await add_up(session, chosen) for _ in range(2)])
        await session.execute("DROP TABLE public.odd")
    assert found[0][0] == found[0][1]
    assert found[0][0] != found[1][0]
