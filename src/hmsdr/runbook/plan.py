"""The frozen plan: what a run will do, with every value resolved. Immutable; the runner has no choices left.

A plan names the epoch it was made for: when the authority has moved on, the plan is void. Pure data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from hmsdr.playbook.base import Duration, Model

OnFailure = Literal["stop", "continue", "rollback"]
Mode = Literal["planned", "unplanned"]


class Approval(Model):
    """A step that waits for a person of this role."""

    role: str
    deadline: Duration


class PlannedStep(Model):
    """One step, ready to run. ``key`` is ``stage/step`` and never a position."""

    key: str
    title: str
    action: str
    arguments: dict[str, Any]
    deadline: Duration
    attempts: Annotated[int, Field(ge=1)]
    backoff: Duration
    on_failure: OnFailure
    approval: Approval | None = None
    point_of_no_return: bool = False
    settles: bool = False
    """Once it has succeeded, what lies behind a point of no return is whole: the run may be stopped again, and taken back up to here."""


class PlannedStage(Model):
    """A stage: groups of steps, one group after the other, the steps of a group together.

    It starts when all stages in ``after`` are done, so stages that do not wait for each other overlap.
    """

    name: str
    title: str
    after: tuple[str, ...]
    groups: tuple[tuple[PlannedStep, ...], ...]

    def steps(self) -> Iterator[PlannedStep]:
        """All steps in order."""
        for group in self.groups:
            yield from group


class Rollback(Model):
    """The way back: which runbook with which parameters, once the point of no return is behind."""

    runbook: str
    parameters: dict[str, str]


class Plan(Model):
    """A frozen plan."""

    runbook: str
    title: str
    purpose: str = ""
    mode: Mode
    parameters: dict[str, str]
    epoch: int
    """The epoch under which the plan was made; it grants the next one."""
    granted: bool = False
    """The next epoch was the target's already when it was made: the steps that lead there are only found to hold."""
    playbook: str
    playbook_hash: str
    """SHA-256 of the playbook's canonical JSON, secrets left out."""
    stages: tuple[PlannedStage, ...]
    rollback: Rollback | None

    def steps(self) -> Iterator[PlannedStep]:
        """All steps in the order of the runbook."""
        for stage in self.stages:
            yield from stage.steps()

    def digest(self) -> str:
        """SHA-256 of the plan's canonical JSON: its identity."""
        return canonical_hash(self.model_dump(mode="json"))


def canonical_hash(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
