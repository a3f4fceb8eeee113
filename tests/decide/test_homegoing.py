"""The pre-checks of switching back: what was seen, and whether it suffices."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hmsdr.decide.gates import GateName, GateState
from hmsdr.decide.homegoing import Homegoing, Noted, gates
from hmsdr.playbook.procedures import Switchback

LIMITS = Switchback.model_validate({"home_shares": [20, 100], "hold": "5m"})
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EQUAL: dict[str, Any] = {
    "primary": "us-west-2",
    "equal": True,
    "tables": 9,
    "rows": 100,
    "lsn": "0/1",
    "different": [],
}
WELL = Homegoing(
    home="us-east-1",
    other="us-west-2",
    stable=timedelta(hours=5),
    stable_words="",
    moved=False,
    figures="",
    shares=(20, 100),
    compared=Noted(NOW - timedelta(minutes=10), "hmsdr compare", EQUAL),
    told=Noted(NOW - timedelta(hours=1), "Ann", {"channel": "slack:#x"}),
)


def states(seen: Homegoing) -> dict[str, GateState]:
    return {gate.name: gate.state for gate in gates(seen, LIMITS, NOW)}


def compared(age: timedelta = timedelta(minutes=10), **change: Any) -> dict[str, Any]:
    return {"compared": Noted(NOW - age, "hmsdr compare", EQUAL | change)}


@pytest.mark.req("SW-1")
def test_all_pass_when_all_is_well() -> None:
    assert set(states(WELL).values()) == {GateState.PASSED}
    assert len(states(WELL)) == 5
    moved = replace(WELL, moved=True, stable=None, compared=None)
    assert set(states(moved).values()) == {GateState.PASSED}


@pytest.mark.req("SW-1", "RC-3")
@pytest.mark.parametrize(
    ("change", "name", "state"),
    [
        ({"stable": timedelta(minutes=59)}, "primary-stable", "failed"),
        ({"stable": None, "stable_words": "no answer"}, "primary-stable", "unknown"),
        ({"compared": None}, "data-equal", "unknown"),
        (compared(equal=False, different=["public.patients"]), "data-equal", "failed"),
        (compared(timedelta(hours=25)), "data-equal", "failed"),
        (compared(timedelta(hours=6)), "data-equal", "failed"),
        (compared(timedelta(hours=-1)), "data-equal", "unknown"),
        (compared(primary="us-east-1"), "data-equal", "unknown"),
        ({"shares": ()}, "steps-planned", "failed"),
        ({"shares": (20, 80)}, "steps-planned", "failed"),
        ({"told": None}, "stakeholders-told", "failed"),
        ({"told": Noted(NOW - timedelta(days=2), "Ann", {})}, "stakeholders-told", "failed"),
        ({"figures": "Connection refused"}, "guard-sees", "unknown"),
    ],
)
def test_what_is_wrong_or_unknown_does_not_pass(change: dict[str, Any], name: str, state: str) -> None:
    found = states(replace(WELL, **change))
    assert found.pop(GateName(name)) == state
    assert set(found.values()) == {GateState.PASSED}
    assert all(gate.remedy for gate in gates(replace(WELL, **change), LIMITS, NOW) if gate.name == name)
