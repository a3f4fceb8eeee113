"""What a controller makes of the log: runs, failovers, what people declared, proposed and stopped. A fold; decides nothing.

Every controller folds every event, so whoever takes the lead knows what was begun. How long ago something happened is counted on
this process's own clock from when it read the event: a wall clock that is set, here or where it was written, cuts no veto short
and no cool-down. Only how long ago a failover was that took place before this process began is told by wall clocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from hmsdr.log.events import Event
from hmsdr.runbook.launch import FREE, GRANT
from hmsdr.runbook.state import RunState, RunStatus, apply

DECIDED, PROPOSED, VETOED = "failover.decided", "failover.proposed", "failover.vetoed"
DECLARED = "disaster.declared"
WITHDRAWN = "failover.withdrawn"
"""What spoke for a proposed failover went away: should it come back, it is proposed afresh."""
HELD = "failover.held"
"""Something speaks for a failover, and something keeps it from being carried out: a person must look."""
REFUSED = "failover.refused"
"""What was decided could not be begun: a gate is closed, say. It is tried again."""


@dataclass(frozen=True, slots=True)
class Noted:
    """An event about a region under an epoch. ``at`` is when it happened, in seconds of this process's clock."""

    seq: int
    at: float
    region: str
    epoch: int
    by: str
    reason: str
    overrides: tuple[str, ...] = ()
    """Gates that whoever declared it overrules."""
    cause: str = ""
    """What it is about, where there are several."""


class Chronicle:
    """The fold so far."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}
        self.failed_over_at: float | None = None
        """When the right to write was granted by a run last: from then on the cool-down counts."""
        self._noted: dict[str, list[Noted]] = {}

    def take(self, events: Iterable[Event], now: float, wall: datetime | None = None) -> None:
        """Fold `events`, read at `now` (this process's clock); `wall` (UTC) with those from before this process began."""
        for event in events:
            age = 0.0 if wall is None else max(0.0, (wall - event.at).total_seconds())
            if event.kind in (DECIDED, PROPOSED, VETOED, DECLARED, WITHDRAWN):
                self._noted.setdefault(event.kind, []).append(_noted(event, now))
            elif event.kind == "run.started" or event.subject in self.runs:
                state = self.runs[event.subject] = apply(self.runs.get(event.subject), event)
                if event.kind == "step.succeeded" and event.data.get("step") in _moved_by(state):
                    self.failed_over_at = now - age

    def unfinished(self) -> RunState | None:
        """The run that somebody began and nobody ended."""
        return next((state for state in self.runs.values() if state.status is RunStatus.RUNNING), None)

    def last_failover(self) -> RunState | None:
        """The last run that moves the right to write."""
        return next((state for state in reversed(list(self.runs.values())) if _moves(state)), None)

    def failed_runs(self, epoch: int) -> int:
        """How many runs were to move the right to write from under `epoch`, and ended otherwise."""
        ended = (RunStatus.RUNNING, RunStatus.SUCCEEDED)
        return sum(
            _moves(state) and state.plan.epoch == epoch and state.status not in ended
            for state in self.runs.values()
        )

    def noted(self, kind: str, region: str, epoch: int) -> Noted | None:
        """The last event of `kind` about `region` under `epoch`."""
        found = [each for each in self._noted.get(kind, []) if (each.region, each.epoch) == (region, epoch)]
        return found[-1] if found else None

    def proposed(self, region: str, epoch: int, cause: str) -> Noted | None:
        """The proposal to leave `region` for `cause` under `epoch` that still stands."""
        said = [
            each
            for kind in (PROPOSED, WITHDRAWN)
            for each in self._noted.get(kind, [])
            if (each.region, each.epoch, each.cause) == (region, epoch, cause)
        ]
        last = max(said, key=lambda each: each.seq, default=None)
        return last if last is not None and last in self._noted.get(PROPOSED, []) else None


def _moves(state: RunState) -> bool:
    return bool(_grants(state))


def _grants(state: RunState) -> set[str]:
    return {step.key for step in state.plan.steps() if step.action == GRANT}


def _moved_by(state: RunState) -> set[str]:
    """Its grants, when they move the right: one that is only given back was no failover, and cools nothing down."""
    frees = any(step.action == FREE for step in state.plan.steps())
    return _grants(state) if frees else set()


def _noted(event: Event, at: float) -> Noted:
    data = event.data
    overrides = tuple(map(str, data.get("overrides", ())))
    reason = str(data.get("reason", ""))
    cause = str(data.get("kind", ""))
    return Noted(
        event.seq, at, event.subject, int(data.get("epoch", 0)), event.actor, reason, overrides, cause
    )
