"""A run as it happens, line by line: stage, elapsed time, step, result, and the RTO clock. Renders the fold; knows nothing else."""

from __future__ import annotations

import atexit
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from hmsdr.playbook.base import format_duration
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.launch import GRANT
from hmsdr.runbook.outage_clock import outage, steps_done
from hmsdr.runbook.plan import Plan, PlannedStep
from hmsdr.runbook.state import RunState, RunStatus, StepRecord, StepState

if TYPE_CHECKING:  # only a terminal needs it
    from rich.live import Live
    from rich.text import Text

_WORDS = {
    StepState.SUCCEEDED: click.style("✓", fg="green"),
    StepState.FAILED: click.style("✗", fg="red"),
    StepState.WAITING: click.style("?", fg="yellow"),
    StepState.UNDONE: click.style("↶", fg="yellow"),
    StepState.UNDO_FAILED: click.style("!", fg="red"),
}
_ANNOUNCE_EVERY_SECONDS = 1.0


class Progress:
    """Prints what changed since the last event; on a terminal, a last line that ticks says how long users have waited.

    Args:
        plan: what is run.
        run: its name.
        as_json: one object for each change instead.
        target: the playbook's RTO, when it is known.
    """

    def __init__(self, plan: Plan, run: str, *, as_json: bool, target: timedelta | None = None) -> None:
        self._plan = plan
        self._run = run
        self._json = as_json
        self._target = target
        self._state: RunState | None = None
        self._since = time.monotonic()
        self._live: Live | None = None
        if not as_json and sys.stdout.isatty():
            from rich.live import Live  # noqa: PLC0415 - a command that shows nothing live starts without it

            self._live = Live(get_renderable=self._ticking, refresh_per_second=4, transient=True)
            atexit.register(self._live.stop)  # the cursor comes back however it ends
            self._live.start()
        self._seen: dict[str, StepRecord] = {}
        self._stages: set[str] = set()
        self._announced: dict[str, float] = {}
        self._greeted = as_json

    def on_change(self, state: RunState) -> None:
        """Print the steps whose state changed; with the first event, which is in the log by then, what has begun."""
        self._state = state
        if not self._greeted:
            self._greeted = True
            self._greet()
        for stage in self._plan.stages:
            if stage.name in state.stages and stage.name not in self._stages:
                self._stages.add(stage.name)
                self._say("stage", stage.name, "started", stage.title)
            for step in stage.steps():
                record = state.record(step.key)
                if self._seen.get(step.key) is not None and self._seen[step.key].state == record.state:
                    continue
                self._seen[step.key] = record
                if record.state in _WORDS:
                    self._step(step, record)
        if state.ended_at is not None:
            self._say("run", state.run, str(state.status), f"{state.plan.title}: {state.status}")
            self._passed_over(state)
            if self._live is not None:
                self._live.stop()

    def _greet(self) -> None:
        plan = self._plan
        grants = any(step.action == GRANT for step in plan.steps())
        told = f"{plan.mode}, epoch {plan.epoch} → {plan.epoch + 1}" if grants else f"epoch {plan.epoch}"
        if plan.granted:
            told = f"{plan.mode}, the rest: epoch {plan.epoch + 1} was granted already"
        self._out(f"\n{self._run}: {plan.title} ({told})")

    def _passed_over(self, state: RunState) -> None:
        """A run can succeed although a step of it did not, where its runbook says to go on: that is not to be missed."""
        if state.status is RunStatus.SUCCEEDED and not self._json:
            for line in left_undone(state):
                self._out(f"               {line}")

    def on_progress(self, step: str, text: str) -> None:
        """Say what a step waits for, not more than once a second."""
        now = time.monotonic()
        if not self._json and now - self._announced.get(step, 0.0) >= _ANNOUNCE_EVERY_SECONDS:
            self._announced[step] = now
            self._out(f"  {self._elapsed()}     … waiting for {text}")

    def _step(self, step: PlannedStep, record: StepRecord) -> None:
        took = ""
        if record.started_at and record.ended_at:
            took = f"{(record.ended_at - record.started_at).total_seconds():.3f} s"
        if self._json:
            self._say("step", step.key, str(record.state), step.title)
            return
        note = " (held already)" if record.already else ""
        self._out(f"  {self._elapsed()}   {_WORDS[record.state]} {step.title:<58} {took}{note}")
        if step.approval is not None and record.state is StepState.WAITING:
            seconds = step.approval.deadline.total_seconds()
            self._out(f"               waits for the {step.approval.role}, at most {seconds:g} s:")
            self._out(
                f"               hmsdr run approve {self._run} {step.key} --by NAME   (or deny, with --reason)"
            )
        if record.error is not None and record.state in (StepState.FAILED, StepState.UNDO_FAILED):
            self._out(
                f"               {record.error['found'].rstrip('.')}. {record.error['remedy']}".rstrip()
            )

    def _say(self, kind: str, name: str, state: str, title: str) -> None:
        if self._json:
            elapsed = round(time.monotonic() - self._since, 3)
            told = {"elapsed": elapsed, "kind": kind, "name": name, "state": state, "title": title}
            click.echo(json.dumps({**told, **self._figures()}))
            return
        clock = "" if kind == "step" else self._clock()
        self._out(
            f"  {self._elapsed()} {click.style(f'{title:<60}', bold=True)} {click.style(clock, dim=True)}".rstrip()
        )

    def _figures(self) -> dict[str, float | int | None]:
        """For machines: seconds that users have waited so far, and how much is done."""
        if self._state is None:
            return {}
        seen, (done, steps) = outage(self._state), steps_done(self._state)
        seconds = None if seen is None else round(seen.lasted(datetime.now(UTC)).total_seconds(), 3)
        return {"rto_seconds": seconds, "steps_done": done, "steps": steps}

    def _clock(self) -> str:
        """How long users have waited, against the target, and how much is done."""
        if self._state is None:
            return ""
        seen, (done, steps) = outage(self._state), steps_done(self._state)
        if seen is None:
            return f"{done} of {steps} steps"
        against = "" if self._target is None else f" of {format_duration(self._target)}"
        served = "" if seen.until is None else ", users are served"
        return f"RTO clock {seen.lasted(datetime.now(UTC)).total_seconds():.1f} s{against}{served} · {done} of {steps} steps"

    def _ticking(self) -> Text:
        from rich.text import Text  # noqa: PLC0415

        under_way = (
            []
            if self._state is None
            else [name for name, stage in self._state.stages.items() if stage.ended_at is None]
        )
        return Text(f"  {self._elapsed()} {self._clock()} · {', '.join(under_way)}", style="bold")

    def _out(self, line: str) -> None:
        if self._live is not None and self._live.is_started:
            from rich.text import Text  # noqa: PLC0415

            self._live.console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            click.echo(line)

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._since:7.2f} s"


def left_undone(state: RunState) -> list[str]:
    """The steps that an ended run passed over, and the commands that make up for them."""
    steps = [step for step in state.plan.steps() if state.record(step.key).state is StepState.FAILED]
    if not steps:
        return []
    catalogue, lines = installed(), [f"but not done: {'; '.join(step.title for step in steps)}"]
    for step in steps:
        action = catalogue.get(step.action)
        command = action.later(action.Args.model_validate(step.arguments))
        if command is not None:
            lines.append(f"to make up for it, once both sides answer: `{command}`")
    return lines
