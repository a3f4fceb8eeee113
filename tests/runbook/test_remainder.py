"""The plan of a hand-back: of whom, under which epoch, and for whom there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hmsdr.decide.authority import Authority, Holder, Phase
from hmsdr.errors import RefusedError
from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.plan import Mode, Plan
from hmsdr.runbook.remainder import handed_back, refuse_following_as_holder

EAST, WEST = "us-east-1", "us-west-2"
PLAYBOOK = load(SHIPPED["hms"], secrets=False)
GAVE, RECEIVES = (PLAYBOOK.regions[name].postgres.instance for name in (EAST, WEST))
HANDED = Authority(4, Phase.HANDING_OVER, None, 10.0, 0, GAVE, RECEIVES, 1000, 4)


def frozen(mode: Mode, epoch: int) -> Plan:
    found = definition.load(definition.find("hand-back"))
    return freeze(found, PLAYBOOK, installed(), {"from": WEST, "to": EAST}, mode=mode, epoch=epoch)


@pytest.mark.req("DB-1")
def test_the_right_goes_back_under_the_next_epoch() -> None:
    plan = handed_back(PLAYBOOK, HANDED, EAST, frozen)
    assert (plan.epoch, plan.granted) == (4, False)
    assert [(step.action, step.arguments) for step in plan.steps()] == [
        ("authority.grant", {"region": EAST, "epoch": 5}),
        ("postgres.promote", {"region": EAST, "epoch": 5}),
    ]


def test_one_that_ended_between_grant_and_promotion_goes_on_under_the_epoch_that_was_granted() -> None:
    granted = replace(
        HANDED, epoch=5, phase=Phase.HELD, holder=Holder(GAVE, "e1"), handover_from=None, handover_to=None
    )
    plan = handed_back(PLAYBOOK, granted, EAST, frozen)
    assert (plan.epoch, plan.granted) == (4, True)


@pytest.mark.req("FA-4")
@pytest.mark.parametrize(
    "record",
    [
        replace(HANDED, handover_from=RECEIVES, handover_to=GAVE),
        replace(HANDED, phase=Phase.VACANT, handover_from=None, handover_to=None),
        Authority(4, Phase.HELD, Holder(RECEIVES, "w1"), 10.0, data_epoch=4),
        Authority(4, Phase.REVOKING, Holder(GAVE, "e1"), 10.0, data_epoch=4),
    ],
)
def test_who_handed_nothing_over_is_given_nothing_back(record: Authority) -> None:
    with pytest.raises(RefusedError, match="us-east-1 is not handing it over"):
        handed_back(PLAYBOOK, record, EAST, frozen)


@pytest.mark.req("DB-1")
def test_who_holds_the_right_follows_nobody() -> None:
    found = definition.load(definition.find("database-follow"))
    held = Authority(4, Phase.HELD, Holder(RECEIVES, "w1"), 10.0, data_epoch=4)

    def follows(region: str) -> Plan:
        parameters = {"region": region}
        return freeze(found, PLAYBOOK, installed(), parameters, mode="unplanned", epoch=4)

    refuse_following_as_holder(follows(EAST), PLAYBOOK, held)
    with pytest.raises(RefusedError, match=r"us-west-2 holds the right to write .*epoch 4") as refused:
        refuse_following_as_holder(follows(WEST), PLAYBOOK, held)
    assert "`hmsdr follow us-east-1`" in str(refused.value)
    vacant = Authority(4, Phase.VACANT, None, 10.0, data_epoch=4)
    refuse_following_as_holder(follows(WEST), PLAYBOOK, vacant)
