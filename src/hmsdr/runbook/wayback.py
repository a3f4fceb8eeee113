"""The way back of a plan: whether it can be made, and what it is in words (FM-1, FM-5). It takes none."""

from __future__ import annotations

from hmsdr.playbook.model import Playbook
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.plan import Plan


def refuse_way_back(plan: Plan, playbook: Playbook) -> None:
    """A rollback plan that cannot be made is none.

    Raises:
        RefusedError: it names a runbook, a region or a parameter that is not there.
    """
    if plan.rollback is not None:
        back = definition.load(definition.find(plan.rollback.runbook))
        freeze(back, playbook, installed(), plan.rollback.parameters, mode="unplanned", epoch=plan.epoch)


def way_back(plan: Plan) -> str | None:
    """The way back in words; None when the runbook has none."""
    if plan.rollback is None:
        return None
    back = plan.rollback.parameters
    where = f"from {back['from']} to {back['to']}" if {"from", "to"} <= back.keys() else ""
    first = ""
    if plan.mode == "unplanned" and "to" in back:
        first = f", once {back['to']} follows again (`hmsdr follow {back['to']}`)"
    return f"{plan.rollback.runbook} {where}{first}; before the right is taken away, undo of each step"
