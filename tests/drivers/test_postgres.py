"""The PostgreSQL driver against a real server: what it reads, what it changes, and how it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hospital import free_network, make_template

from hmsdr.control import pgconf
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.lab.binaries import postgres_bin
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


@pytest.mark.parametrize("warm", [False, True])
async def test_a_frozen_server_costs_the_deadline_and_no_more(running: Running, warm: bool) -> None:
    driver = Postgres(running[1], warm=warm)
    await driver.status(deadline=5)
    frozen = [*running[0].processes()]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status = await driver.status(deadline=0.5)
        assert not status.reachable
        assert "within 0.5 s" in status.found
        with pytest.raises((TemporaryError, OutcomeUnknownError)):
            await driver.heartbeat("db@here", deadline=0.5)
        assert time.monotonic() - began < 4
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert (await driver.status(deadline=10)).reachable
    await driver.close()


async def test_a_write_whose_answer_is_lost_is_unknown(running: Running) -> None:
    driver = Postgres(running[1], warm=True)
    await driver.connect(deadline=5)
    frozen = [*running[0].processes()]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknownError, match="Look whether it took effect"):
            await driver.heartbeat("db@here", deadline=0.5)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
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
