"""Forward or back: what the agents say of both sides of a hand-over decides, and silence is no yes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hmsdr.control.handback import way_back
from hmsdr.decide.authority import Authority, Phase
from hmsdr.drivers.agent_answers import (
    AgentDatabase,
    AgentLease,
    AgentReplication,
    AgentStatus,
    FenceAnswer,
)
from hmsdr.playbook.load import load

EAST, WEST = "us-east-1", "us-west-2"
EPOCH, LSN = 4, 1000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOOK = load("hms", secrets=False)
INSTANCES = {name: region.postgres.instance for name, region in BOOK.regions.items()}
RECORD = Authority(
    epoch=EPOCH,
    phase=Phase.HANDING_OVER,
    holder=None,
    lease_seconds=4.0,
    handover_from=INSTANCES[EAST],
    handover_to=INSTANCES[WEST],
    handover_lsn=LSN,
    data_epoch=EPOCH,
)


def told(
    region: str, *, lsn: int | None, timeline: int = 7, receipt: FenceAnswer | None = None
) -> AgentStatus:
    return AgentStatus(
        region,
        INSTANCES[region],
        "life",
        EPOCH,
        AgentDatabase("fenced" if receipt else "standby", 1, lsn, timeline),
        AgentReplication(True, 0.0, 0, NOW),
        receipt,
        AgentLease(False, None, None),
    )


RECEIPT = FenceAnswer(INSTANCES[EAST], "life", EPOCH, NOW, LSN, 7, True, 3, 0)
GAVE = told(EAST, lsn=LSN - 40, receipt=RECEIPT)
BACK = (WEST, EAST)


@pytest.mark.req("DB-1")
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (told(WEST, lsn=LSN), None),
        (told(WEST, lsn=LSN + 8), None),
        (told(WEST, lsn=LSN - 1), BACK),
        (told(WEST, lsn=None), BACK),
        (told(WEST, lsn=LSN + 8, timeline=6), BACK),
        (None, BACK),
    ],
    ids=["has it all", "has more", "lacks a byte", "does not know", "of another history", "is silent"],
)
def test_forward_where_nothing_is_lost_by_it_else_back(
    other: AgentStatus | None, expected: tuple[str, str] | None
) -> None:
    said = {EAST: GAVE} | ({} if other is None else {WEST: other})
    assert way_back(BOOK, RECORD, said) == expected


@pytest.mark.parametrize(
    "receipt",
    [
        None,
        replace(RECEIPT, epoch=EPOCH - 1),
        replace(RECEIPT, clean=False),
        replace(RECEIPT, last_lsn=LSN - 1),
        replace(RECEIPT, last_lsn=None),
    ],
    ids=["none", "of another epoch", "not clean", "short", "of no place"],
)
def test_who_cannot_show_that_it_has_everything_takes_nothing_back(receipt: FenceAnswer | None) -> None:
    assert way_back(BOOK, RECORD, {EAST: told(EAST, lsn=LSN, receipt=receipt)}) is None


def test_silence_of_who_gave_and_a_right_that_is_not_handed_over_change_nothing() -> None:
    assert way_back(BOOK, RECORD, {WEST: told(WEST, lsn=LSN - 1)}) is None
    vacant = replace(RECORD, phase=Phase.VACANT, handover_to=None, handover_from=None)
    assert way_back(BOOK, vacant, {EAST: GAVE}) is None
    unknown = replace(RECORD, handover_from="somebody")
    assert way_back(BOOK, unknown, {EAST: GAVE}) is None
