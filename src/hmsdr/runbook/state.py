"""The state of a run as a fold of its events: the one file that owns the states of runs, stages and steps.

    step:  planned -> started -> succeeded | failed            (failed -> started again, up to its attempts)
           succeeded -> undo_started -> undone | undo_failed
           planned -> found_done (its goal held already: nothing was done)
    run:   running -> succeeded | failed | rolled_back | rollback_failed

Pure: no store, no clock. An order of events that no correct runner writes is refused, not guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from hmsdr.log.events import Event
from hmsdr.runbook.plan import Plan, PlannedStep


class StepState(StrEnum):
    """State of one step."""

    PLANNED = "planned"
    WAITING = "waiting"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDO_STARTED = "undo_started"
    UNDONE = "undone"
    UNDO_FAILED = "undo_failed"


class RunStatus(StrEnum):
    """State of a run."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"


_STEP_MOVES: Mapping[str, tuple[frozenset[StepState], StepState]] = {
    "approval.requested": (frozenset({StepState.PLANNED, StepState.WAITING}), StepState.WAITING),
    "approval.given": (frozenset({StepState.WAITING}), StepState.WAITING),
    "approval.denied": (frozenset({StepState.WAITING}), StepState.WAITING),
    "step.started": (
        frozenset({StepState.PLANNED, StepState.WAITING, StepState.STARTED, StepState.FAILED}),
        StepState.STARTED,
    ),
    "step.acting": (frozenset({StepState.STARTED}), StepState.STARTED),
    "step.succeeded": (frozenset({StepState.STARTED}), StepState.SUCCEEDED),
    "step.failed": (frozenset({StepState.STARTED, StepState.WAITING}), StepState.FAILED),
    "step.undo_started": (
        frozenset({StepState.SUCCEEDED, StepState.STARTED, StepState.FAILED, StepState.UNDO_STARTED}),
        StepState.UNDO_STARTED,
    ),
    "step.undone": (frozenset({StepState.UNDO_STARTED}), StepState.UNDONE),
    "step.undo_failed": (frozenset({StepState.UNDO_STARTED}), StepState.UNDO_FAILED),
}
_ENDS: Mapping[str, RunStatus] = {
    "run.succeeded": RunStatus.SUCCEEDED,
    "run.failed": RunStatus.FAILED,
    "run.rolled_back": RunStatus.ROLLED_BACK,
    "run.rollback_failed": RunStatus.ROLLBACK_FAILED,
}


_ASKED = frozenset({"run.abort_requested", "run.pause_requested", "run.pause_ended"})


class IllegalOrderError(ValueError):
    """The events of a run are not in an order that a runner writes."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What is known of one step."""

    state: StepState = StepState.PLANNED
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    already: bool = False
    """The goal held before anything was done."""
    before: Mapping[str, Any] | None = None
    """What there was before the first attempt acted; None while none has."""
    output: Mapping[str, Any] = field(default_factory=dict)
    observed: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] | None = None
    approved: bool | None = None
    answered: str = ""
    """Who answered, and why not."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """When a stage started and ended; None while it has not."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """A run."""

    run: str
    plan: Plan
    status: RunStatus
    started_at: datetime
    by: str
    context: Mapping[str, Any]
    """Gates as they were observed, overrides, trigger: what `run.started` recorded."""
    steps: Mapping[str, StepRecord]
    stages: Mapping[str, StageRecord]
    ended_at: datetime | None = None
    abort_requested: str | None = None
    paused: str | None = None
    """Who asked it to wait, and why; None when nobody does."""
    last_seq: int = 0

    def record(self, key: str) -> StepRecord:
        """The step's record; a step without events is planned."""
        return self.steps.get(key, StepRecord())

    @property
    def irreversible(self) -> bool:
        """Behind a point of no return, and not yet where the run is whole again: it can neither be stopped nor taken back."""
        return any(
            step.point_of_no_return and self.record(step.key).state is not StepState.PLANNED
            for step in self.since_settled()
        )

    def since_settled(self) -> tuple[PlannedStep, ...]:
        """The steps, in order, behind the last one that settles and has succeeded: all that a rollback may take back."""
        steps = tuple(self.plan.steps())
        done = [
            number
            for number, step in enumerate(steps)
            if step.settles and self.record(step.key).state is StepState.SUCCEEDED
        ]
        return steps[done[-1] + 1 :] if done else steps


def fold(events: Iterable[Event]) -> RunState | None:
    """The state after `events`, all about one run, in order; None when there are none.

    Raises:
        IllegalOrderError: the order is not one that a runner writes.
    """
    state: RunState | None = None
    for event in events:
        state = apply(state, event)
    return state


def apply(state: RunState | None, event: Event) -> RunState:
    """The state after one more event."""
    if event.kind == "run.started":
        if state is not None:
            raise IllegalOrderError(f"event {event.seq}: run {event.subject} was started twice")
        return RunState(
            run=event.subject,
            plan=Plan.model_validate(event.data["plan"]),
            status=RunStatus.RUNNING,
            started_at=event.at,
            by=event.actor,
            context={key: value for key, value in event.data.items() if key != "plan"},
            steps={},
            stages={},
            last_seq=event.seq,
        )
    if state is None:
        raise IllegalOrderError(f"event {event.seq}: {event.kind} before run.started")
    if state.status is not RunStatus.RUNNING and event.kind.split(".")[0] in (
        "run",
        "step",
        "stage",
        "approval",
    ):
        raise IllegalOrderError(f"event {event.seq}: {event.kind} after the run ended ({state.status})")
    state = replace(state, last_seq=event.seq)
    if event.kind in _ENDS:
        return replace(state, status=_ENDS[event.kind], ended_at=event.at)
    if event.kind in _ASKED:
        return _apply_asked(state, event)
    if event.kind.startswith("stage."):
        return _apply_stage(state, event)
    if event.kind in _STEP_MOVES:
        return _apply_step(state, event)
    return state


def _apply_asked(state: RunState, event: Event) -> RunState:
    """What people ask of a run."""
    if event.kind == "run.abort_requested":
        return replace(state, abort_requested=str(event.data["reason"]))
    asks = event.kind == "run.pause_requested"
    return replace(state, paused=f"{event.actor}: {event.data['reason']}" if asks else None)


def _apply_stage(state: RunState, event: Event) -> RunState:
    name = str(event.data["stage"])
    record = state.stages.get(name, StageRecord())
    if event.kind == "stage.started":
        # A resumed run starts the stage again: its time is from the first start.
        record = replace(record, started_at=record.started_at or event.at)
    else:
        record = replace(record, ended_at=event.at, outcome=str(event.data["outcome"]))
    return replace(state, stages={**state.stages, name: record})


def _apply_step(state: RunState, event: Event) -> RunState:
    key = str(event.data["step"])
    record = state.record(key)
    allowed, target = _STEP_MOVES[event.kind]
    if record.state not in allowed:
        raise IllegalOrderError(f"event {event.seq}: {event.kind} of step {key}, which is {record.state}")
    record = replace(record, state=target)
    data = event.data
    if event.kind == "step.started":
        record = replace(
            record,
            attempt=int(data["attempt"]),
            started_at=record.started_at or event.at,
            ended_at=None,
            error=None,
        )
    elif event.kind == "step.acting":
        # A later attempt finds what the first one left: that is nothing to go back to.
        record = replace(record, before=data["before"] if record.before is None else record.before)
    elif event.kind == "step.succeeded":
        record = replace(
            record,
            ended_at=event.at,
            already=bool(data["already"]),
            output=data["output"],
            observed=data["observed"],
        )
    elif event.kind in ("step.failed", "step.undo_failed"):
        record = replace(record, ended_at=event.at, error=data["error"])
    elif event.kind in ("approval.given", "approval.denied"):
        reason = str(data.get("reason", ""))
        answered = f"{event.actor}: {reason}" if reason else event.actor
        record = replace(record, approved=event.kind == "approval.given", answered=answered)
    return replace(state, steps={**state.steps, key: record})
