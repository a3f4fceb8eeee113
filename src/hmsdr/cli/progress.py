"""A run as it happens, line by line: stage, elapsed time, step, result. Renders the fold; knows nothing else."""

from __future__ import annotations

import json
import time

import click

from hmsdr.runbook.launch import GRANT
from hmsdr.runbook.plan import Plan, PlannedStep
from hmsdr.runbook.state import RunState, RunStatus, StepRecord, StepState

_WORDS = {
    StepState.SUCCEEDED: click.style("✓", fg="green"),
    StepState.FAILED: click.style("✗", fg="red"),
    StepState.WAITING: click.style("?", fg="yellow"),
    StepState.UNDONE: click.style("↶", fg="yellow"),
    StepState.UNDO_FAILED: click.style("!", fg="red"),
}
_ANNOUNCE_EVERY_SECONDS = 1.0


class Progress:
    """Prints what changed since the last event."""

    def __init__(self, plan: Plan, run: str, *, as_json: bool) -> None:
        self._plan = plan
        self._run = run
        self._json = as_json
        self._since = time.monotonic()
        self._seen: dict[str, StepRecord] = {}
        self._stages: set[str] = set()
        self._announced: dict[str, float] = {}
        self._greeted = as_json

    def on_change(self, state: RunState) -> None:
        """Print the steps whose state changed; with the first event, which is in the log by then, what has begun."""
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

    def _greet(self) -> None:
        plan = self._plan
        grants = any(step.action == GRANT for step in plan.steps())
        told = f"{plan.mode}, epoch {plan.epoch} → {plan.epoch + 1}" if grants else f"epoch {plan.epoch}"
        click.echo(f"\n{self._run}: {plan.title} ({told})")

    def _passed_over(self, state: RunState) -> None:
        """A run can succeed although a step of it did not, where its runbook says to go on: that is not to be missed."""
        failed = [
            step.title for step in self._plan.steps() if state.record(step.key).state is StepState.FAILED
        ]
        if failed and state.status is RunStatus.SUCCEEDED and not self._json:
            click.echo(f"               but not done: {'; '.join(failed)}")

    def on_progress(self, step: str, text: str) -> None:
        """Say what a step waits for, not more than once a second."""
        now = time.monotonic()
        if not self._json and now - self._announced.get(step, 0.0) >= _ANNOUNCE_EVERY_SECONDS:
            self._announced[step] = now
            click.echo(f"  {self._elapsed()}     … waiting for {text}")

    def _step(self, step: PlannedStep, record: StepRecord) -> None:
        took = ""
        if record.started_at and record.ended_at:
            took = f"{(record.ended_at - record.started_at).total_seconds():.3f} s"
        if self._json:
            self._say("step", step.key, str(record.state), step.title)
            return
        note = " (held already)" if record.already else ""
        click.echo(f"  {self._elapsed()}   {_WORDS[record.state]} {step.title:<58} {took}{note}")
        if step.approval is not None and record.state is StepState.WAITING:
            seconds = step.approval.deadline.total_seconds()
            click.echo(f"               waits for the {step.approval.role}, at most {seconds:g} s:")
            click.echo(
                f"               hmsdr run approve {self._run} {step.key} --by NAME   (or deny, with --reason)"
            )
        if record.error is not None and record.state in (StepState.FAILED, StepState.UNDO_FAILED):
            click.echo(
                f"               {record.error['found'].rstrip('.')}. {record.error['remedy']}".rstrip()
            )

    def _say(self, kind: str, name: str, state: str, title: str) -> None:
        if self._json:
            elapsed = round(time.monotonic() - self._since, 3)
            click.echo(
                json.dumps({"elapsed": elapsed, "kind": kind, "name": name, "state": state, "title": title})
            )
        else:
            click.echo(f"  {self._elapsed()} {click.style(title, bold=True)}")

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._since:7.2f} s"
