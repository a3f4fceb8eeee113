"""For how long users have been without a writable hospital, as far as a run can know: the RTO clock. Pure; it decides nothing.

What users really felt only they can tell (the drill's clinics do); this is what a person on call needs to see meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from hmsdr.runbook.state import RunState, StepState

SEEN_AT = "source_seen_at"
"""Under this name a run records when anything of the lost side was last seen."""


@dataclass(frozen=True, slots=True)
class Outage:
    """``since`` is when it began; ``until`` when users were served again, None while it lasts."""

    since: datetime
    until: datetime | None = None

    def lasted(self, now: datetime) -> timedelta:
        """So far, or in all."""
        return max(timedelta(), (self.until or now) - self.since)


def outage(state: RunState) -> Outage | None:
    """The outage that `state` is about; None for a run that stops nobody, or has not yet.

    It begins when the region was seen to be lost, else with its last sign of life; a planned one begins with the fence, and
    there is none when the target writes already.
    """
    since = _since(state)
    if since is None:
        return None
    # Users who go home share by share are served all the while, once the database is there.
    stages = {stage.name for stage in state.plan.stages}
    validation = state.stages.get("handed-over" if "handed-over" in stages else "validation")
    served = validation is not None and validation.outcome == "succeeded"
    return Outage(since, validation.ended_at if validation is not None and served else None)


def steps_done(state: RunState) -> tuple[int, int]:
    """How many of its steps have ended, and how many there are."""
    steps = list(state.plan.steps())
    open_states = (StepState.PLANNED, StepState.WAITING, StepState.STARTED)
    return sum(state.record(step.key).state not in open_states for step in steps), len(steps)


def _since(state: RunState) -> datetime | None:
    if state.plan.mode == "planned":
        if state.plan.granted:
            return None
        fencing = state.stages.get("fencing")
        return None if fencing is None else fencing.started_at
    trigger = state.context.get("trigger")
    told = trigger.get("unreachable_since") if isinstance(trigger, dict) else None
    told = told or state.context.get(SEEN_AT)
    return datetime.fromisoformat(told) if isinstance(told, str) else None
