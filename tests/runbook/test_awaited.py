"""What the run says while it waits for the right to write to be free."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hmsdr.decide.authority import Authority, Holder, LeaseWaited, Phase, Receipt
from hmsdr.decide.takeover import Takeover, answered
from hmsdr.drivers.errors import TemporaryError
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.authority import FreeArgs, FreeAuthority, awaited

LEASE = 0.3
HOLDER = Holder("db-east", "life")


@dataclass
class Stopping:
    """An agent that stops its database for `busy` seconds; `dies`: it says nothing at all."""

    busy: float
    dies: bool = False

    async def status(self, *, deadline: float) -> object:
        await asyncio.sleep(min(deadline, 0.05))
        if self.dies:
            raise TemporaryError("asking", "no answer", "Wait")
        return object()

    async def fence(self, *, deadline: float, **_: object) -> Any:
        await asyncio.sleep(min(deadline, self.busy))
        if self.dies or self.busy > deadline:
            raise TemporaryError("fencing", "no answer", "Wait")
        return SimpleNamespace(
            instance="db-east", incarnation="life", last_lsn=7, clean=True, survivors=0, unused=False
        )


async def proof(agent: Stopping, deadline: float) -> tuple[Receipt | LeaseWaited, float]:
    """What a planned hand-over ends with, and after how many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    def remaining(*, at_most: float = 1e9) -> float:
        return min(at_most, began + deadline - loop.time())

    lease = SimpleNamespace(total_seconds=lambda: LEASE)
    playbook = SimpleNamespace(database=SimpleNamespace(lease=lease))
    systems = SimpleNamespace(playbook=playbook, agent=lambda _region: agent)
    context = SimpleNamespace(systems=systems, remaining=remaining, progress=lambda _: None, run="run-1")
    revoked = Authority(epoch=3, phase=Phase.REVOKING, holder=HOLDER, lease_seconds=LEASE)
    takeover = answered(Takeover(3, "db-west", 0.1, clean=True), revoked, loop.time())
    args = FreeArgs(region="us-east-1", epoch=3, to="us-west-2", clean=True)
    given = await FreeAuthority()._proof(cast("StepContext", context), args, takeover)
    return given, loop.time() - began


@pytest.mark.req("FA-4")
async def test_a_planned_hand_over_does_not_wait_long_for_an_agent_that_is_gone() -> None:
    given, seconds = await proof(Stopping(busy=9, dies=True), deadline=30)
    assert isinstance(given, LeaseWaited)
    assert 2 * LEASE <= seconds < 15, "its lease, and one of silence"


@pytest.mark.req("FA-4", "DB-1")
async def test_it_waits_beyond_the_lease_for_one_that_is_there_and_takes_long() -> None:
    given, seconds = await proof(Stopping(busy=5 * LEASE), deadline=30)
    assert isinstance(given, Receipt)
    assert seconds >= 5 * LEASE


def test_before_the_lease_has_run_out_it_says_how_long() -> None:
    assert awaited("us-east-1", 4.2, 50) == (
        "fence receipt from us-east-1, or 4.2 s until its lease has run out"
    )


def test_afterwards_it_does_not_count_at_nothing_but_says_until_when_a_receipt_is_waited_for() -> None:
    said = awaited("us-east-1", 0.0, 49.6)
    assert "0.0 s" not in said
    assert "at most 50 s" in said
