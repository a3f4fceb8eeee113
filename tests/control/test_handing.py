"""A hand-over that was begun and did not arrive: when it goes back, and what the log then says of it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hospital import EAST, WEST

from hmsdr.control.chronicle import Chronicle
from hmsdr.control.handing import goes_back
from hmsdr.decide.authority import Authority, Phase, initial
from hmsdr.drivers.agent_answers import (
    AgentDatabase,
    AgentLease,
    AgentReplication,
    AgentStatus,
    FenceAnswer,
)
from hmsdr.drivers.errors import TemporaryError
from hmsdr.log.events import Event
from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.systems import Systems

ENDED = 1000
PLAYBOOK = load(SHIPPED["hms"], secrets=False)
INSTANCES = {name: settings.postgres.instance for name, settings in PLAYBOOK.regions.items()}


def handing_over() -> Authority:
    return Authority(
        epoch=4,
        phase=Phase.HANDING_OVER,
        holder=None,
        lease_seconds=initial(10.0).lease_seconds,
        handover_from=INSTANCES[EAST],
        handover_to=INSTANCES[WEST],
        handover_lsn=ENDED,
        data_epoch=4,
    )


def status(region: str, lsn: int | None, receipt: dict[str, Any] | None = None) -> AgentStatus:
    now = datetime.now(UTC)
    fence = None
    if receipt is not None:
        told = {"epoch": 4, "last_lsn": ENDED, "clean": True} | receipt
        fence = FenceAnswer(
            INSTANCES[region], "life", fenced_at=now, timeline=1, killed=0, survivors=0, **told
        )
    return AgentStatus(
        region,
        INSTANCES[region],
        "life",
        4,
        AgentDatabase("fenced" if fence else "standby", None, lsn, 1),
        AgentReplication(False, None, None, None),
        fence,
        AgentLease(False, None, None),
    )


class Told:
    """An agent that tells that, or is silent."""

    def __init__(self, said: AgentStatus | None) -> None:
        self._said = said

    async def status(self, *, deadline: float) -> AgentStatus:
        if self._said is None:
            raise TemporaryError("asking", f"no answer within {deadline} s", "Ask again")
        return self._said


def systems(**told: AgentStatus | None) -> Systems:
    agents = {EAST: Told(told["east"]), WEST: Told(told["west"])}
    return cast("Systems", SimpleNamespace(playbook=PLAYBOOK, agent=agents.__getitem__))


GAVE = status(EAST, None, {})


@pytest.mark.req("DB-1", "FA-4")
@pytest.mark.parametrize(
    ("east", "west", "back"),
    [
        (GAVE, None, True),
        (GAVE, status(WEST, ENDED - 1), True),
        (GAVE, status(WEST, None), True),
        (GAVE, status(WEST, ENDED), False),
        (None, status(WEST, ENDED - 1), False),
        (None, None, False),
        (status(EAST, ENDED), None, False),
        (status(EAST, None, {"epoch": 3}), None, False),
        (status(EAST, None, {"clean": False}), None, False),
        (status(EAST, None, {"last_lsn": ENDED - 1}), None, False),
    ],
)
async def test_it_goes_back_only_to_who_has_a_receipt_of_it_and_only_where_forward_is_no_way(
    east: AgentStatus | None, west: AgentStatus | None, back: bool
) -> None:
    assert await goes_back(systems(east=east, west=west), handing_over()) is back


@pytest.mark.req("DB-1")
async def test_a_closed_gate_is_no_way_forward_and_without_a_receipt_there_is_none_back() -> None:
    """West was begun anew, nobody knows its lag any more, and the gate for it stayed closed (seed 1705)."""
    has_all = status(WEST, ENDED)
    assert await goes_back(systems(east=GAVE, west=has_all), handing_over(), refused=True)
    assert not await goes_back(systems(east=None, west=has_all), handing_over(), refused=True)


def told_of(runbook: str, run: str, *parameters: str, end: str) -> list[Event]:
    source, target = parameters
    found = definition.load(definition.find(runbook))
    plan = freeze(found, PLAYBOOK, installed(), {"from": source, "to": target}, mode="planned", epoch=4)
    grant = next(step for step in plan.steps() if step.action == "authority.grant")
    given: dict[str, Any] = {"step": grant.key, "attempt": 1}
    kinds: list[tuple[str, dict[str, Any]]] = [("run.started", {"plan": plan.model_dump(mode="json")})]
    if end == "run.succeeded":
        kinds += [
            ("step.started", given),
            ("step.succeeded", {**given, "already": False, "output": {}, "observed": {}}),
        ]
    kinds.append((end, {}))
    at = datetime.now(UTC)
    return [Event(seq, at, 1, kind, run, "tester", data, "", "") for seq, (kind, data) in enumerate(kinds, 1)]


@pytest.mark.req("FA-3")
def test_a_right_that_went_back_was_no_failover_and_cools_nothing_down() -> None:
    chronicle = Chronicle()
    chronicle.take(told_of("database-failover", "run-1", EAST, WEST, end="run.failed"), 10.0)
    assert (chronicle.failed_runs(4), chronicle.failed_runs(3)) == (1, 0)
    chronicle.take(told_of("hand-back", "run-2", WEST, EAST, end="run.succeeded"), 20.0)
    assert chronicle.failed_over_at is None
    assert chronicle.failed_runs(4) == 1
    last = chronicle.last_failover()
    assert last is not None
    assert (last.run, last.plan.parameters["to"]) == ("run-2", EAST)
    chronicle.take(told_of("database-failover", "run-3", EAST, WEST, end="run.succeeded"), 30.0)
    assert chronicle.failed_over_at == 30.0
