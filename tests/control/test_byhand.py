"""Break-glass orders: what pg_ctl would do, through the whole protocol, on real databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from hospital import Hospital, Open, Region

from hmsdr.decide.authority import Phase
from hmsdr.drivers.errors import PermanentError


async def pg_ctl(region: Region, order: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hmsdr.control.manual", order, "--playbook", str(region.playbook)]
    return await asyncio.to_thread(
        subprocess.run, [*command, "--region", region.name], capture_output=True, text=True, timeout=60
    )


@pytest.mark.req("DB-2")
async def test_stop_here_then_promote_there_moves_the_right_and_loses_nothing(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await here.east.ask("INSERT INTO patients (name) VALUES ('kept') RETURNING id")
    stopped = await pg_ctl(here.east, "stop")
    assert (stopped.returncode, stopped.stdout.splitlines()[-1]) == (0, "server stopped")
    record = await here.store.read_authority()
    assert (record.epoch, record.phase) == (1, Phase.VACANT)
    assert record.handover_lsn is not None
    promoted = await pg_ctl(here.west, "promote")
    assert (promoted.returncode, promoted.stdout.splitlines()[-1]) == (0, "server promoted")
    record = await here.store.read_authority()
    assert (record.epoch, record.phase) == (2, Phase.HELD)
    assert await here.west.ask("SELECT count(*) FROM patients") == 1
    again = await pg_ctl(here.west, "promote")
    assert again.returncode == 0
    assert (await here.store.read_authority()).epoch == 2


@pytest.mark.req("DB-2")
async def test_promote_is_refused_while_the_holder_renews(hospital: Open) -> None:
    here = await hospital(lease="4s")
    await here.east_is_primary()
    refused = await pg_ctl(here.west, "promote")
    assert refused.returncode != 0
    assert "and renews it" in refused.stderr
    assert "hmsdr failover" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (await here.store.read_authority()).phase is Phase.HELD
    assert (await here.east.status()).database.state == "primary"


@pytest.mark.req("DB-2")
async def test_promote_takes_the_right_of_a_dead_holder_after_waiting_its_lease_out(hospital: Open) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    here.east.kill_agent()  # the guard kills the database at the deadline
    promoted = await pg_ctl(here.west, "promote")
    assert promoted.returncode == 0, promoted.stderr
    assert here.east.processes() == {}
    assert (await here.store.read_authority()).epoch == 2


async def test_a_database_stopped_by_hand_is_promoted_again_only_under_a_new_epoch(hospital: Open) -> None:
    here: Hospital = await hospital()
    await here.east_is_primary()
    await here.east.client.manual_stop(deadline=30)
    with pytest.raises(PermanentError):
        await here.east.client.promote(epoch=1, min_lsn=None, deadline=10)
    answer = await here.east.client.manual_promote(deadline=30)
    assert answer.epoch == 2
    assert (await here.east.status()).database.state == "primary"
