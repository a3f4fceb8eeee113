"""The lease on real PostgreSQL: what happens to the database when the agent, the store or the right goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from hospital import Hospital, Open, Region, until

from hmsdr.control.proctable import boottime
from hmsdr.decide.authority import Holder, Phase, grant


async def dead(region: Region, seconds: float) -> float:
    """Wait until no process of the database is left; gives the boot-time clock then."""

    async def gone() -> bool:
        return not region.processes()

    await until("the database dead", gone, seconds)
    return boottime()


async def revoked_until_waited_out(here: Hospital) -> float:
    """Revoke as a successor does; gives when, on the boot-time clock, it may go on."""
    record = await here.revoke()
    return boottime() + record.lease_seconds * (1 + here.book.database.drift_margin)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_guard_kills_at_the_deadline_when_the_agent_cannot(
    hospital: Open, number: signal.Signals
) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    assert here.east.agent.poll() is None
    here.east.agent.send_signal(number)
    may_go_on = await revoked_until_waited_out(here)
    deadline = here.east.guard().deadline()
    assert deadline is not None
    assert here.east.processes()
    died = await dead(here.east, 10)

    async def counted() -> float | None:
        return here.east.guard().killed_at

    late = await until("the guard's own count", counted) - deadline
    print(f"{number.name}: dead {late * 1000:.1f} ms after the deadline, {may_go_on - died:.3f} s to spare")  # noqa: T201
    assert deadline <= died < may_go_on


async def test_an_agent_that_comes_back_within_the_lease_adopts_the_running_database(hospital: Open) -> None:
    here = await hospital(lease="8s")
    await here.east_is_primary()
    postmaster, first = here.east.postmaster(), await here.east.status()
    old_guard = here.east.guard().guard_pid
    here.east.kill_agent()
    assert await here.east.ask("SELECT pg_is_in_recovery()") is False
    here.east.start()

    async def adopted() -> bool:
        status = await here.east.status()
        return status.database.state == "primary" and status.lease.held

    await until("adopted", adopted)
    status = await here.east.status()
    record = await here.store.read_authority()
    assert here.east.postmaster() == postmaster
    assert (record.epoch, record.phase) == (1, Phase.HELD)
    assert (
        record.holder
        == Holder(status.instance, status.incarnation)
        != Holder(first.instance, first.incarnation)
    )

    async def replaced() -> bool:
        return here.east.guard().guard_pid != old_guard and not Path(f"/proc/{old_guard}").exists()

    await until("the old guard gone", replaced)
    # The new life's guard works as the old one did.
    here.east.kill_agent()
    await dead(here.east, 15)


async def test_a_running_primary_whose_right_was_taken_meanwhile_is_not_adopted(hospital: Open) -> None:
    here = await hospital(lease="20s")
    await here.east_is_primary()
    postmaster = here.east.postmaster()
    here.east.kill_agent()
    await here.revoke()
    assert await here.east.ask("SELECT pg_is_in_recovery()") is False  # its lease still runs
    here.east.start()
    await here.east.wait_state("standby", "stopped")
    assert postmaster not in here.east.processes()
    assert not (await here.east.status()).lease.held


async def test_the_holder_that_is_revoked_fences_itself_in_order(hospital: Open) -> None:
    here = await hospital(lease="4s")
    await here.east_is_primary()
    may_go_on = await revoked_until_waited_out(here)
    status = await here.east.wait_state("fenced")
    assert boottime() < may_go_on
    assert status.fence is not None
    assert (status.fence.epoch, status.fence.clean) == (1, True)
    assert here.east.processes() == {}


async def test_without_store_and_peer_it_dies_before_the_waiter_goes_on_and_comes_back_with_the_store(
    hospital: Open,
) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    here.west.kill_agent()
    blocker = sqlite3.connect(here.store.path, isolation_level=None, timeout=10)
    blocker.execute("BEGIN IMMEDIATE")  # nobody else can write
    last_renewal_at_most = boottime()
    await dead_or_standby(here)
    lost = boottime()
    assert lost < last_renewal_at_most + 2 * (1 + here.book.database.drift_margin)
    blocker.execute("ROLLBACK")
    blocker.close()
    await here.east.wait_state("primary", seconds=20)
    assert (await here.store.read_authority()).epoch == 1
    assert (await here.east.status()).accepted_epoch == 1


async def dead_or_standby(here: Hospital) -> None:
    async def no_primary() -> bool:
        try:
            return await here.east.ask("SELECT pg_is_in_recovery()") is not False
        except (psycopg.Error, OSError):
            return True

    await until("no primary any more", no_primary, 10)


async def test_the_entry_point_without_a_lease_is_not_writable(hospital: Open) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    here.east.kill_agent()
    await dead(here.east, 10)
    record = await here.revoke()
    await asyncio.sleep(record.lease_seconds * 1.06)
    await here.prove_waited(1, record.lease_seconds * 1.06)
    other = await here.west.status()
    await here.change(lambda now: grant(now, Holder(other.instance, other.incarnation)))
    here.east.start()
    await here.east.wait_state("standby")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await here.east.ask("INSERT INTO patients (name) VALUES ('never') RETURNING id")


async def test_the_entry_point_with_a_live_lease_goes_on_under_the_same_epoch(hospital: Open) -> None:
    here = await hospital(lease="3s")
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('kept') RETURNING id")
    here.east.agent.terminate()
    assert await asyncio.to_thread(here.east.agent.wait, 20) == 0
    assert here.east.processes() == {}
    here.east.start()
    status = await here.east.wait_state("primary")
    assert (status.accepted_epoch, (await here.store.read_authority()).epoch) == (1, 1)
    assert await here.east.ask("SELECT count(*) FROM patients") == 1
    assert (here.east.data / "standby.signal").exists()


async def test_a_killed_primary_is_started_again_or_held(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    first = here.east.postmaster()
    os.kill(first, signal.SIGKILL)

    async def again() -> bool:
        return here.east.postmaster() != first and (await here.east.status()).database.state == "primary"

    await until("started again", again)
    here.east.kill_agent()
    here.east.start("--on-crash", "hold")
    await here.east.wait_state("primary")
    os.kill(here.east.postmaster(), signal.SIGKILL)
    await here.east.wait_state("stopped")

    async def told() -> bool:
        # The process is seen dead first, and the agent's own verdict follows at its next look.
        return (await here.east.status()).database.held is not None

    await until("told why", told)
    status = await here.east.status()
    assert status.lease.held  # nobody else needs it: a failover fences this one first, at once


@pytest.mark.req("FA-4")
async def test_what_the_guard_killed_comes_back_with_the_lease_also_where_crashes_are_held(
    hospital: Open,
) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary("--on-crash", "hold")
    first = here.east.postmaster()
    here.east.agent.send_signal(signal.SIGSTOP)

    async def killed() -> bool:
        return here.east.guard().kills == 1

    try:
        await until("the guard killed it", killed)
    finally:
        here.east.agent.send_signal(signal.SIGCONT)

    async def again() -> bool:
        status = await here.east.status()
        return (status.database.state, status.database.held) == ("primary", None)

    await until("primary again", again)
    assert here.east.postmaster() != first
    assert (await here.store.read_authority()).epoch == 1


async def test_an_agent_answers_at_once_also_about_a_database_that_does_not(hospital: Open) -> None:
    """Who waited for the database would count as silent himself, and the region as lost."""
    here = await hospital()
    await here.east_is_primary()
    postgres = list(here.east.processes())
    for pid in postgres:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert (await here.east.client.status(deadline=0.4)).database.state == "primary"
            await asyncio.sleep(0.3)
    finally:
        for pid in postgres:
            os.kill(pid, signal.SIGCONT)


async def test_two_agents_never_share_a_data_directory(hospital: Open) -> None:
    here = await hospital()
    here.east.start()
    await here.east.wait_state("standby")
    command = here.east.command("--state-directory", str(here.directory / "other-state"))
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
    assert second.returncode == 2
    assert f"another agent (process {here.east.agent.pid}) keeps it" in second.stderr
    assert "Traceback" not in second.stderr


async def test_the_guard_is_small(hospital: Open) -> None:
    here = await hospital()
    here.east.start()
    await here.east.wait_state("standby")
    status = Path(f"/proc/{here.east.guard().guard_pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < 15 * 1024
    assert time.clock_gettime(time.CLOCK_BOOTTIME) - here.east.guard().last_look < 1


async def test_a_guard_that_dies_is_replaced(hospital: Open) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    first = here.east.guard().guard_pid
    os.kill(first, signal.SIGKILL)

    async def replaced() -> bool:
        return here.east.guard().guard_pid != first

    await until("a new guard", replaced)
    assert (await here.east.status()).database.state == "primary"
