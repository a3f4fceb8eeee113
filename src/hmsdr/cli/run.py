"""``hmsdr run``: what ran and what is running; resume, approve, deny, abort. A face over the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from hmsdr.cli.common import by_option, opened, playbook_option, run_async
from hmsdr.errors import FailedError, RefusedError
from hmsdr.log.events import Event, NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import HeadMovedError
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus, StepState, fold
from hmsdr.runbook.systems import Systems

_MARKS = {
    StepState.SUCCEEDED: "✓",
    StepState.FAILED: "✗",
    StepState.STARTED: "…",
    StepState.WAITING: "?",
    StepState.UNDONE: "↶",
    StepState.UNDO_FAILED: "!",
    StepState.UNDO_STARTED: "↶",
    StepState.PLANNED: "·",
}


@click.group()
def run() -> None:
    """List, show, resume, approve and abort runs."""


@run.command("list")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_command(playbook_path: Path | None, as_json: bool) -> None:
    """All runs in the log, newest last."""
    states = run_async(_states(playbook_path))
    if as_json:
        click.echo(json.dumps([_summary(state) for state in states]))
        return
    if not states:
        click.echo("No run yet. `hmsdr plan failover FROM TO` shows what one would do.")
    for state in states:
        click.echo(
            f"{state.run}  {state.status:<15} {state.started_at:%Y-%m-%d %H:%M:%S} UTC  {state.plan.title}"
        )


@run.command()
@click.argument("name", metavar="RUN")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(name: str, playbook_path: Path | None, as_json: bool) -> None:
    """Stages and steps of RUN, with how long each took."""
    state = run_async(_state(playbook_path, name))
    click.echo(json.dumps(_summary(state)) if as_json else "\n".join(_lines(state)))


@run.command()
@click.argument("name", metavar="RUN")
@playbook_option
def resume(name: str, playbook_path: Path | None) -> None:
    """Go on with RUN, whose runner died."""
    state = run_async(_resume(playbook_path, name))
    click.echo("\n".join(_lines(state)))
    if state.status is not RunStatus.SUCCEEDED:
        raise FailedError(f"run {name}", f"it ended {state.status}", "See the failed steps above")


@run.command()
@click.argument("name", metavar="RUN")
@click.argument("step")
@by_option
@playbook_option
def approve(name: str, step: str, by: str, playbook_path: Path | None) -> None:
    """Let STEP of RUN go ahead."""
    run_async(_answer(playbook_path, name, "approval.given", by, {"step": step}))
    click.echo(f"{step} approved by {by}")


@run.command()
@click.argument("name", metavar="RUN")
@click.argument("step")
@click.option("--reason", required=True)
@by_option
@playbook_option
def deny(name: str, step: str, reason: str, by: str, playbook_path: Path | None) -> None:
    """Refuse STEP of RUN."""
    run_async(_answer(playbook_path, name, "approval.denied", by, {"step": step, "reason": reason}))
    click.echo(f"{step} denied by {by}")


@run.command()
@click.argument("name", metavar="RUN")
@click.option("--reason", required=True)
@by_option
@playbook_option
def abort(name: str, reason: str, by: str, playbook_path: Path | None) -> None:
    """Stop RUN before its next step; before the grant, what was done is undone."""
    run_async(_answer(playbook_path, name, "run.abort_requested", by, {"reason": reason}))
    click.echo(f"{name} is asked to stop; `hmsdr run show {name}` tells when it has")


async def _states(playbook_path: Path | None) -> list[RunState]:
    async with opened(playbook_path) as (_, store):
        return runs(await store.read())


def runs(events: Sequence[Event]) -> list[RunState]:
    """Every run in `events`, in the order in which they were started."""
    started = [event.subject for event in events if event.kind == "run.started"]
    found = [fold(event for event in events if event.subject == name) for name in started]
    return [state for state in found if state is not None]


async def _state(playbook_path: Path | None, name: str) -> RunState:
    async with opened(playbook_path) as (_, store):
        return await _read(store, name)


async def _read(store: SqliteStore, name: str) -> RunState:
    state = fold(await store.read(subject=name))
    if state is None:
        known = ", ".join(item.run for item in runs(await store.read())[-5:]) or "none"
        raise RefusedError(f"looking for run {name!r}", "the log knows no such run", f"Newest runs: {known}")
    return state


async def _resume(playbook_path: Path | None, name: str) -> RunState:
    async with opened(playbook_path) as (playbook, store):
        await _read(store, name)
        systems = Systems(playbook, store)
        try:
            return await Runner(store, systems, installed(), name).resume()
        finally:
            await systems.close()


async def _answer(playbook_path: Path | None, name: str, kind: str, by: str, data: dict[str, str]) -> None:
    async with opened(playbook_path) as (_, store):
        for _ in range(20):
            # The head first: what is appended later than it makes the append fail, not slip through.
            head = await store.head()
            state = await _read(store, name)
            _allowed(state, kind, data.get("step"))
            try:
                await store.append([NewEvent(kind, name, by, data)], expected=head)
            except HeadMovedError:
                continue
            return
        raise FailedError(f"answering run {name}", "it writes too fast to get a word in", "Try again")


def _allowed(state: RunState, kind: str, step: str | None) -> None:
    doing = f"{kind.partition('.')[2].replace('_', ' ')} of run {state.run}"
    if state.status is not RunStatus.RUNNING:
        raise RefusedError(doing, f"it has ended: {state.status}", "`hmsdr run list` shows what is running")
    if step is not None:
        record = state.record(step)
        if record.state is not StepState.WAITING:
            raise RefusedError(
                doing, f"step {step!r} waits for nobody (it is {record.state})", "`hmsdr run show`"
            )
        if record.approved is not None:
            raise RefusedError(doing, f"step {step!r} was answered already", "`hmsdr run show` tells by whom")


def _summary(state: RunState) -> dict[str, object]:
    return {
        "run": state.run,
        "runbook": state.plan.runbook,
        "parameters": state.plan.parameters,
        "mode": state.plan.mode,
        "status": state.status,
        "by": state.by,
        "started_at": state.started_at.isoformat(),
        "ended_at": state.ended_at and state.ended_at.isoformat(),
        "stages": [
            {
                "name": name,
                "started_at": record.started_at and record.started_at.isoformat(),
                "seconds": (record.ended_at - record.started_at).total_seconds()
                if record.started_at and record.ended_at
                else None,
                "outcome": record.outcome,
            }
            for name, record in state.stages.items()
        ],
        "steps": {
            step.key: {"state": record.state, "already": record.already, "observed": record.observed}
            for step in state.plan.steps()
            for record in [state.record(step.key)]
        },
    }


def _lines(state: RunState) -> list[str]:
    """The run for people."""
    lines = [f"{state.run}  {state.plan.title}  ({state.plan.mode}, by {state.by}): {state.status}"]
    for stage in state.plan.stages:
        lines.append(f"  {stage.name}")
        for step in stage.steps():
            record = state.record(step.key)
            took = ""
            if record.started_at and record.ended_at:
                took = f"{(record.ended_at - record.started_at).total_seconds():8.3f} s"
            note = "  (held already)" if record.already else ""
            lines.append(f"    {_MARKS[record.state]} {step.title:<60} {took}{note}")
            if record.error is not None and record.state in (StepState.FAILED, StepState.UNDO_FAILED):
                lines.append(f"        {record.error['found']}. {record.error['remedy']}")
    return lines
