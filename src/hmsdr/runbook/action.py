"""What an action is: check, act, verify, and what a person would do by hand instead.

An action is typed Python with declared arguments. `check` asks whether the goal already holds, `act` does
it, `verify` asks for proof; so it can be run again after a crash, retried, or found done by a human. It
takes no decision: what to do was decided in the plan.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from hmsdr.drivers.errors import PermanentError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

ArgsT = TypeVar("ArgsT", bound=Model)


@dataclass(frozen=True, slots=True)
class Names:
    """Mark on an argument: it names a region or a service of the playbook, and is checked when a plan is frozen."""

    kind: Literal["region", "service"]


RegionName = Annotated[str, Names("region")]
ServiceName = Annotated[str, Names("service")]


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a goal holds, and what was observed (JSON values, no secrets, no patient data)."""

    holds: bool
    observed: Mapping[str, Any] = field(default_factory=dict)
    waiting_for: str | None = None
    """When it does not hold: what for, in words an operator reads."""


@dataclass(frozen=True, slots=True)
class Manual:
    """The same by hand: complete shell commands, what they print when all is well, what to do otherwise."""

    commands: tuple[str, ...]
    expected: str
    troubleshooting: tuple[str, ...]


def agent_key(region: str) -> str:
    """How a command for people names the key of a region's agent: the variable of the shipped playbook."""
    return f"$HMSDR_AGENT_KEY_{region.upper().replace('-', '_')}"


class GoBackError(PermanentError):
    """An action found that the run must be taken back, whatever the step's policy says of other failures."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What people ask of a run while a step of it is under way, in their words; None: nothing."""

    to_stop: str | None = None
    to_pause: str | None = None


async def _nothing_asked() -> Asked:
    return Asked()


@dataclass(frozen=True, slots=True)
class StepContext:
    """What an action may use: the systems, the run's id, how long is left, and a way to show progress."""

    systems: Systems
    run: str
    ends_at: float
    """Event-loop time at which this attempt's deadline passes."""
    progress: Callable[[str], None]
    asked: Callable[[], Awaitable[Asked]] = _nothing_asked
    """What people ask of the run now: for a step that takes long, and can be stopped in its midst."""
    earlier: Callable[[str], Mapping[str, Any]] = field(default=lambda _action: {})
    """What the last step of the run with this action, of those that have succeeded, gave; empty when there is none."""

    def remaining(self, at_most: float = float("inf")) -> float:
        """Seconds left before the deadline, at least one millisecond and not more than `at_most`."""
        return max(0.001, min(at_most, self.ends_at - asyncio.get_running_loop().time()))


class Action(ABC, Generic[ArgsT]):
    """Base of actions. Without state: one instance serves every step that names it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Args: type[ArgsT]
    asks_itself: ClassVar[bool] = False
    """Whether `act` finds out by itself, in one turn, that the goal holds already, and says so as ``already`` in what it returns. Then
    the runner does not ask first: for what writers wait for, a turn of three processes is much."""

    @abstractmethod
    async def check(self, context: StepContext, args: ArgsT) -> Check:
        """Does the goal hold already?"""

    @abstractmethod
    async def act(self, context: StepContext, args: ArgsT) -> Mapping[str, Any]:
        """Do it; idempotent. What is returned goes into the log, and to `UndoableAction.undo`."""

    async def verify(self, context: StepContext, args: ArgsT) -> Check:
        """Proof that the goal holds; asked again and again until the deadline. By default `check`."""
        return await self.check(context, args)

    def later(self, args: ArgsT) -> str | None:  # noqa: ARG002 - for those that can be made up for
        """The command that does it after a run that went on without it; None when there is none."""
        return None

    @abstractmethod
    def manual(self, playbook: Playbook, args: ArgsT) -> Manual:
        """What a person would do by hand."""


class UndoableAction(Action[ArgsT]):
    """An action whose effect a rollback can take back."""

    @abstractmethod
    async def remember(self, context: StepContext, args: ArgsT) -> Mapping[str, Any]:
        """What `undo` will need, read now; journaled before `act`, so that a crash inside it loses nothing."""

    @abstractmethod
    async def undo(self, context: StepContext, args: ArgsT, before: Mapping[str, Any]) -> None:
        """Put back what `remember` found before the first attempt; idempotent."""
