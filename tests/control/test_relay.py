"""SAFETY rule 7 on real PostgreSQL: losing the store alone does not stop the hospital, and a promise binds who gave it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hospital import Hospital, Open, until

from hmsdr.control.proctable import boottime
from hmsdr.decide.authority import Holder
from hmsdr.drivers.errors import PermanentError


@contextmanager
def store_that_takes_nothing(here: Hospital) -> Iterator[None]:
    """It can be read; nobody else can write."""
    blocker = sqlite3.connect(here.store.path, isolation_level=None, timeout=10)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        yield
    finally:
        blocker.close()


def said(log: str, event: str) -> list[dict[str, object]]:
    return [line for line in map(json.loads, filter(None, log.splitlines())) if line["event"] == event]


@pytest.mark.req("FA-4")
async def test_the_holder_goes_on_by_promises_while_the_store_is_away(hospital: Open) -> None:
    here = await hospital(lease="2s")
    await here.east_is_primary()
    before = here.east.postmaster()
    with store_that_takes_nothing(here):
        ends = boottime() + 6
        while boottime() < ends:
            await here.east.ask("INSERT INTO patients (name) VALUES ('meanwhile') RETURNING id")
            await asyncio.sleep(0.1)
    assert said(here.west.log(), "promise.given")
    assert {line["by"] for line in said(here.east.log(), "peer.helped")} == {"a promise"}

    async def renewed() -> bool:
        record = await here.store.read_authority()
        await asyncio.sleep(0.5)
        return (await here.store.read_authority()).renewal > record.renewal

    await until("renewals again", renewed)
    assert here.east.postmaster() == before
    assert (await here.store.read_authority()).epoch == 1


@pytest.mark.req("FA-4")
async def test_who_promised_accepts_no_grant_until_the_promise_is_over_also_after_a_restart(
    hospital: Open,
) -> None:
    here = await hospital(lease="10s")
    await here.east_is_primary()
    east = await here.east.status()
    here.east.kill_agent()  # else it would stop by itself when it sees the right taken away
    asked = boottime()
    with store_that_takes_nothing(here):
        answer = await here.west.client.relay(epoch=1, holder=here.holder(east), deadline=5)
    assert answer.promised == 10, answer.why
    here.west.kill_agent()
    here.west.start()
    await here.west.wait_state("standby")
    revoked = await here.revoke()
    await asyncio.sleep(revoked.lease_seconds * 0.1)
    receipt = await _fenced(here)
    await here.prove(receipt)
    await here.grant(here.west)
    granted = boottime()
    assert granted < asked + 9, "the grant came while the promise lasts"
    await here.west.client.promote(epoch=2, min_lsn=None, deadline=20)
    assert boottime() >= asked + 10
    assert said(here.west.log(), "promote.bound")


async def _fenced(here: Hospital):  # type: ignore[no-untyped-def]
    """East's agent is back for a moment, to give its receipt."""
    here.east.start()
    await here.east.wait_state("fenced", "stopped", "standby")
    return await here.east.client.fence(epoch=1, reason="test", run="t", clean=False, deadline=10)


@pytest.mark.req("FA-4")
async def test_a_peer_that_saw_the_right_taken_away_neither_relays_nor_promises(hospital: Open) -> None:
    here = await hospital(lease="6s")
    await here.east_is_primary()
    holder = here.holder(await here.east.status())
    relayed = await here.west.client.relay(epoch=1, holder=holder, deadline=5)
    assert relayed.record is not None
    assert relayed.record.holder == holder
    await here.revoke()
    told = await here.west.client.relay(epoch=1, holder=holder, deadline=5)
    assert (str(told.record.phase) if told.record else None, told.promised) == ("revoking", None)
    with store_that_takes_nothing(here):
        # It can be read here: the record itself says no. A promise needs that nobody could have said so.
        again = await here.west.client.relay(epoch=1, holder=holder, deadline=5)
    assert again.promised is None


async def test_orders_cannot_be_forged_replayed_or_given_to_an_earlier_life(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    holder = Holder("postgres-primary-0@us-east-1", "x")
    with pytest.raises(PermanentError, match="nobody is its own peer"):
        await here.east.client.relay(epoch=1, holder=holder, deadline=5)
    answer = await here.west.client.relay(epoch=1, holder=holder, deadline=5)
    assert answer.promised is None
    assert "holds epoch 1, not" in answer.why
    here.west.kill_agent()
    here.west.start()
    await here.west.wait_state("standby")
    # The client knew the life before; it is told of the new one and orders again.
    assert (await here.west.client.relay(epoch=1, holder=holder, deadline=5)).promised is None
