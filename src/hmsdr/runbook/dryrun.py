"""A dry run: every step's goal is asked for and nothing is done. What holds already would be left alone.

It calls `Action.check` and nothing else. A goal that depends on an earlier step may well be out of reach now: what is
said is how things are, not how they would be in the middle of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hmsdr.errors import HmsdrError
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.plan import Plan, PlannedStep
from hmsdr.runbook.systems import Systems

CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What one step would find now. ``holds`` is None when it could not be asked; ``found`` says why."""

    step: str
    title: str
    holds: bool | None
    observed: Mapping[str, Any] = field(default_factory=dict)
    found: str = ""


async def foresee(plan: Plan, systems: Systems, catalogue: Catalogue) -> tuple[Foreseen, ...]:
    """Ask all steps of `plan`, in the plan's order, each within `CHECK_SECONDS`."""
    return tuple(await asyncio.gather(*(_ask(step, systems, catalogue) for step in plan.steps())))


async def _ask(step: PlannedStep, systems: Systems, catalogue: Catalogue) -> Foreseen:
    action = catalogue.get(step.action)
    seconds = min(CHECK_SECONDS, step.deadline.total_seconds())
    ends_at = asyncio.get_running_loop().time() + seconds
    context = StepContext(systems, "dry-run", ends_at, progress=lambda _: None)
    try:
        async with asyncio.timeout_at(ends_at):
            check = await action.check(context, action.Args.model_validate(step.arguments))
    except TimeoutError:
        return Foreseen(step.key, step.title, None, found=f"no answer within {seconds:g} s")
    except HmsdrError as error:
        return Foreseen(step.key, step.title, None, found=error.found)
    return Foreseen(step.key, step.title, check.holds, check.observed, check.waiting_for or "")
