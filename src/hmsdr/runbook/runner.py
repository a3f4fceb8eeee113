"""Executes a frozen plan durably: journals intent before each effect, stops at once when it may not act.

It has no choices: order, deadlines, attempts and what a failure means all stand in the plan. Killed at any
point, it is run again with the same run id and goes on: finished steps are left alone, a step that was under
way is checked first. It talks to systems only through actions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hmsdr.drivers.errors import PermanentError
from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.log.store import EventLog, StoreError
from hmsdr.runbook.action import Action, Asked, Check, GoBackError, StepContext, UndoableAction
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.journal import Journal
from hmsdr.runbook.plan import Plan, PlannedStage, PlannedStep
from hmsdr.runbook.state import RunState, RunStatus, StepState
from hmsdr.runbook.systems import Systems

_VERIFY_FIRST_PAUSE = 0.004
_VERIFY_LONGEST_PAUSE = 0.25
_FOLLOW_PAUSE = 0.2
PAUSED_AT_MOST_SECONDS = 24 * 3600.0
"""A run that is paused for longer ends, and leaves everything as it is."""
_GO_BACK = "go_back"


class _StopRun(Exception):  # noqa: N818 - control flow between stages, never seen outside
    """A step failed and its policy ends the run."""

    def __init__(self, *, rollback: bool) -> None:
        super().__init__()
        self.rollback = rollback


class Runner:
    """Runs one plan under one run id."""

    def __init__(
        self,
        log: EventLog,
        systems: Systems,
        catalogue: Catalogue,
        run: str,
        *,
        on_change: Callable[[RunState], None] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
        term: int | None = None,
    ) -> None:
        self._systems = systems
        self._catalogue = catalogue
        self._journal = Journal(log, run, on_change, term)
        self._on_progress = on_progress or (lambda _step, _text: None)
        self._waits_for: dict[str, str] = {}
        """What each step waited for last: said when its deadline passes."""

    async def start(self, plan: Plan, by: str, context: Mapping[str, Any]) -> RunState:
        """Begin a new run of `plan` and execute it to its end.

        Raises:
            StoreError: the journal cannot be written; nothing was done that it does not say.
        """
        await self._journal.begin()
        await self._journal.write(
            "run.started", actor=by, plan=plan.model_dump(mode="json"), plan_hash=plan.digest(), **context
        )
        return await self._execute()

    async def resume(self) -> RunState:
        """Go on with a run whose runner died.

        Raises:
            RefusedError: there is no such run.
        """
        await self._journal.begin()
        try:
            state = self._journal.state
        except LookupError:
            raise RefusedError(
                f"resuming run {self._journal.run}",
                "the log knows no such run",
                "`hmsdr run list` shows the runs",
            ) from None
        if state.status is not RunStatus.RUNNING:
            return state
        await self._journal.write("run.resumed")
        return await self._execute()

    async def _execute(self) -> RunState:
        plan = self._journal.state.plan
        try:
            async with asyncio.TaskGroup() as group:
                done = {stage.name: asyncio.Event() for stage in plan.stages}
                for stage in plan.stages:
                    group.create_task(self._stage(stage, done), name=stage.name)
        except BaseExceptionGroup as group:
            await self._end_after_failure(rollback=_only_stops(group))
        else:
            await self._journal.write("run.succeeded")
        return self._journal.state

    async def _end_after_failure(self, *, rollback: bool) -> None:
        if not rollback or self._journal.state.irreversible:
            await self._journal.write("run.failed", rolled_back=False)
            return
        undone = await self._roll_back()
        await self._journal.write("run.rolled_back" if undone else "run.rollback_failed")

    async def _stage(self, stage: PlannedStage, done: Mapping[str, asyncio.Event]) -> None:
        for name in stage.after:
            await done[name].wait()
        record = self._journal.state.stages.get(stage.name)
        if record is None or record.outcome != "succeeded":
            await self._journal.write("stage.started", stage=stage.name)
            try:
                for steps in stage.groups:
                    async with asyncio.TaskGroup() as group:
                        for step in steps:
                            group.create_task(self._step(step), name=step.key)
            except BaseExceptionGroup as group:
                rollback = _only_stops(group)
                await self._journal.write("stage.ended", stage=stage.name, outcome="failed")
                raise _StopRun(rollback=rollback) from None
            await self._journal.write("stage.ended", stage=stage.name, outcome="succeeded")
        done[stage.name].set()

    async def _step(self, step: PlannedStep) -> None:
        record = self._journal.state.record(step.key)
        if record.state is StepState.SUCCEEDED:
            return
        if record.state is StepState.FAILED and record.attempt >= step.attempts:
            # The run was interrupted after the last attempt failed: its policy still stands.
            self._after_failure(step, go_back=bool((record.error or {}).get(_GO_BACK)))
            return
        action = self._catalogue.get(step.action)
        if step.approval is not None and record.approved is not True and not await self._approved(step):
            self._after_failure(step)
            return
        for attempt in range(record.attempt + 1, max(step.attempts, record.attempt + 1) + 1):
            await self._heed(step)
            if await self._attempt(step, action, attempt):
                return
            if attempt < step.attempts:
                await asyncio.sleep(step.backoff.total_seconds() * 2 ** (attempt - 1))
        self._after_failure(step)

    def _after_failure(self, step: PlannedStep, *, go_back: bool = False) -> None:
        if go_back:
            raise _StopRun(rollback=True)
        if step.on_failure != "continue":
            raise _StopRun(rollback=step.on_failure == "rollback")

    async def _heed(self, step: PlannedStep) -> None:
        """Wait while somebody asks the run to pause, and stop it when somebody asks for that."""
        ends = asyncio.get_running_loop().time() + PAUSED_AT_MOST_SECONDS
        while not self._journal.state.irreversible:
            # Behind the point of no return going on is the shortest way to a hospital that can write: nobody is asked.
            state = await self._journal.follow()
            if state.irreversible:
                return
            if state.abort_requested is not None:
                raise _StopRun(rollback=True)
            if state.paused is None:
                return
            if asyncio.get_running_loop().time() > ends:
                raise _StopRun(rollback=False)
            self._waiting(
                step.key, f"somebody to let it go on (`hmsdr run resume`); paused by {state.paused}"
            )
            await asyncio.sleep(_FOLLOW_PAUSE)

    async def _asked(self) -> Asked:
        state = await self._journal.follow()
        return Asked(state.abort_requested, state.paused)

    def _earlier(self, action: str) -> Mapping[str, Any]:
        state = self._journal.state
        done = [
            state.record(step.key)
            for step in state.plan.steps()
            if step.action == action and state.record(step.key).state is StepState.SUCCEEDED
        ]
        return done[-1].output if done else {}

    async def _approved(self, step: PlannedStep) -> bool:
        """Wait for the approval, however often this process is replaced meanwhile."""
        approval = step.approval
        if approval is None:
            return True
        if self._journal.state.record(step.key).state is not StepState.WAITING:
            await self._journal.write("approval.requested", step=step.key, role=approval.role)
        ends = asyncio.get_running_loop().time() + approval.deadline.total_seconds()
        while True:
            record = (await self._journal.follow()).record(step.key)
            approved = record.approved
            if approved is not None:
                break
            if asyncio.get_running_loop().time() > ends:
                break
            await asyncio.sleep(_FOLLOW_PAUSE)
        if not approved:
            found = "nobody answered before the deadline"
            if approved is False:
                found = f"it was denied by {record.answered}"
            await self._fail(
                step, FailedError(f"waiting for the {approval.role} to approve {step.key}", found, "")
            )
        return approved is True

    async def _attempt(self, step: PlannedStep, action: Action[Any], attempt: int) -> bool:
        """One attempt; True when the step's goal holds. A failure is journaled, not raised."""
        await self._journal.write("step.started", step=step.key, attempt=attempt)
        args = action.Args.model_validate(step.arguments)
        context = self._context(step)
        try:
            async with asyncio.timeout_at(context.ends_at):
                check = Check(False) if action.asks_itself else await action.check(context, args)
                self._waits_for[step.key] = check.waiting_for or ""
                output: Mapping[str, Any] = {}
                already = check.holds
                if not already:
                    if isinstance(action, UndoableAction):
                        await self._remember(step, action, context, args)
                    output = await action.act(context, args)
                    check = await self._verified(action, context, args)
                    already = action.asks_itself and bool(output.get("already"))
        except TimeoutError:
            waits_for = self._waits_for.get(step.key)
            found = f"not done within {step.deadline.total_seconds():g} s"
            found += f"; it waited for {waits_for}" if waits_for else ""
            await self._fail(
                step, FailedError(step.title, found, "See `hmsdr runbook show` for the way by hand")
            )
            return False
        except StoreError:
            raise
        except HmsdrError as error:
            await self._fail(step, error)
            if isinstance(error, PermanentError | RefusedError):
                self._after_failure(step, go_back=isinstance(error, GoBackError))
                # A permanent refusal with `continue`: the step is over, further attempts cannot help.
                return True
            return False
        await self._journal.write(
            "step.succeeded",
            step=step.key,
            already=already,
            output=dict(output),
            observed=dict(check.observed),
        )
        return True

    async def _remember(
        self, step: PlannedStep, action: UndoableAction[Any], context: StepContext, args: Any
    ) -> None:
        """Journal what a rollback will need, before the first attempt changes it."""
        if self._journal.state.record(step.key).before is None:
            before = dict(await action.remember(context, args))
            await self._journal.write("step.acting", step=step.key, before=before)

    async def _verified(self, action: Action[Any], context: StepContext, args: Any) -> Check:
        pause = _VERIFY_FIRST_PAUSE
        while True:
            check = await action.verify(context, args)
            if check.holds:
                return check
            if check.waiting_for:
                context.progress(check.waiting_for)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _VERIFY_LONGEST_PAUSE)

    async def _fail(self, step: PlannedStep, error: HmsdrError) -> None:
        await self._journal.write(
            "step.failed",
            step=step.key,
            error={
                "doing": error.doing,
                "found": error.found,
                "remedy": error.remedy,
                **({_GO_BACK: "yes"} if isinstance(error, GoBackError) else {}),
            },
        )

    async def _roll_back(self) -> bool:
        """Undo what was done, last first. True when all of it was."""
        steps = [
            step
            for step in reversed(self._journal.state.since_settled())
            if self._journal.state.record(step.key).state
            in (StepState.SUCCEEDED, StepState.STARTED, StepState.FAILED, StepState.UNDO_STARTED)
            # That its goal was found to hold says nothing: an attempt that was killed may have reached it.
            and self._journal.state.record(step.key).before is not None
        ]
        complete = True
        for step in steps:
            action = self._catalogue.get(step.action)
            if not isinstance(action, UndoableAction):
                continue
            await self._journal.write("step.undo_started", step=step.key)
            context = self._context(step)
            try:
                async with asyncio.timeout_at(context.ends_at):
                    args = action.Args.model_validate(step.arguments)
                    await action.undo(context, args, self._journal.state.record(step.key).before or {})
            except (TimeoutError, HmsdrError) as error:
                if isinstance(error, StoreError):
                    raise
                complete = False
                found = str(error) or "not undone within its deadline"
                await self._journal.write(
                    "step.undo_failed",
                    step=step.key,
                    error={"doing": f"undoing {step.key}", "found": found, "remedy": "Undo it by hand"},
                )
            else:
                await self._journal.write("step.undone", step=step.key)
        return complete

    def _context(self, step: PlannedStep) -> StepContext:
        ends_at = asyncio.get_running_loop().time() + step.deadline.total_seconds()
        return StepContext(
            systems=self._systems,
            run=self._journal.run,
            ends_at=ends_at,
            progress=lambda text: self._waiting(step.key, text),
            asked=self._asked,
            earlier=self._earlier,
        )

    def _waiting(self, step: str, text: str) -> None:
        self._waits_for[step] = text
        self._on_progress(step, text)


def _only_stops(group: BaseExceptionGroup[BaseException]) -> bool:
    """Whether a step that ended the run asks for a rollback; anything but such an end is raised again.

    Written out, because what ``except*`` makes of an exception raised inside it differs between 3.11 releases.
    """
    stops, others = group.split(_StopRun)
    if others is not None:
        first = _first(others)
        raise first if isinstance(first, StoreError) else group  # what callers are told to expect
    if stops is None:
        raise group
    return any(_wants_rollback(stop) for stop in stops.exceptions)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _wants_rollback(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_wants_rollback(inner) for inner in error.exceptions)
    return isinstance(error, _StopRun) and error.rollback
