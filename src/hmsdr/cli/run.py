"""``hmsdr run``: what ran and what is running; start, resume, roll back, approve, deny, abort. A face over the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from hmsdr.cli.common import by_option, find_playbook, opened, playbook_option, run_async
from hmsdr.cli.launching import (
    Shown,
    carry_out,
    dry_run_option,
    json_option,
    override_options,
    refuse_failure,
)
from hmsdr.cli.progress import left_undone
from hmsdr.control.chronicle import DECIDED, VETOED, Chronicle
from hmsdr.decide.leading import Cause
from hmsdr.errors import RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import Event, NewEvent
from hmsdr.log.store import Store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import launch
from hmsdr.runbook.launch import Overrides, runs
from hmsdr.runbook.place import is_run
from hmsdr.runbook.state import RunState, RunStatus, StepState, fold

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

ABORT, PAUSE, GO_ON = "run.abort_requested", "run.pause_requested", "run.pause_ended"
_DOING = {
    "approval.given": "approving a step of",
    "approval.denied": "denying a step of",
    ABORT: "aborting",
    PAUSE: "pausing",
    GO_ON: "going on with",
}


@click.group()
def run() -> None:
    """List, show, resume, approve and abort runs."""


@run.command("list")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_command(playbook_path: Path | None, as_json: bool) -> None:
    """All runs in the log, newest last."""
    states, proposed = run_async(_states(playbook_path))
    at_work = any(state.status is RunStatus.RUNNING for state in states) and _at_work(playbook_path)
    if as_json:
        click.echo(json.dumps([_summary(state) for state in states]))
        return
    for line in proposed:
        click.echo(line)
    if not states:
        click.echo("No run yet. `hmsdr plan failover FROM TO` shows what one would do.")
    for state in states:
        lost = state.status is RunStatus.RUNNING and not at_work
        status = "interrupted" if lost else str(state.status)
        click.echo(f"{state.run}  {status:<15} {state.started_at:%Y-%m-%d %H:%M:%S} UTC  {state.plan.title}")
        if lost:
            click.echo(f"    its runner is gone: `hmsdr run resume {state.run}` goes on with it")


@run.command()
@click.argument("name", metavar="RUN")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(name: str, playbook_path: Path | None, as_json: bool) -> None:
    """Stages and steps of RUN, with how long each took."""
    state = run_async(_state(playbook_path, name))
    click.echo(json.dumps(_summary(state)) if as_json else "\n".join(_lines(state)))
    if not as_json and state.status is RunStatus.RUNNING and not _at_work(playbook_path):
        click.echo(f"Its runner is gone: `hmsdr run resume {name}` goes on with it.")


@run.command()
@click.argument("runbook")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@override_options
@dry_run_option
@json_option
@playbook_option
def start(
    runbook: str,
    parameters: tuple[str, ...],
    overrides: Overrides,
    dry_run: bool,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Run RUNBOOK, a shipped one or a file, with its parameters: from=us-east-1 to=us-west-2."""
    given: dict[str, str] = {}
    for text in parameters:
        key, value = _pair(text)
        if key in given:
            raise RefusedError("reading the parameters", f"{key!r} is given twice", "Give each once")
        given[key] = value
    carry_out(
        find_playbook(playbook_path), given, overrides, runbook=runbook, dry_run=dry_run, as_json=as_json
    )


@run.command()
@click.argument("name", metavar="RUN")
@override_options
@dry_run_option
@json_option
@playbook_option
def rollback(
    name: str, overrides: Overrides, dry_run: bool, as_json: bool, playbook_path: Path | None
) -> None:
    """Go back from where RUN, which has ended, went: its rollback plan as a run of its own (FM-5)."""
    state = run_async(_state(playbook_path, name))
    if state.status is RunStatus.RUNNING:
        raise RefusedError(
            f"rolling back run {name}",
            "it has not ended",
            f"`hmsdr run abort {name} --reason TEXT --by NAME` stops and undoes it",
        )
    back = state.plan.rollback
    if state.status is RunStatus.ROLLED_BACK or back is None:
        raise RefusedError(
            f"rolling back run {name}",
            "it was rolled back already" if back else "its runbook has no way back",
            f"`hmsdr run show {name}` tells what was done",
        )
    if launch.GRANT in {step.action for step in state.plan.steps()} and not state.irreversible:
        raise RefusedError(
            f"rolling back run {name}",
            f"it ended {state.status}, and granted no right to write: there is nothing to go back from",
            f"`hmsdr run show {name}` tells what was done",
        )
    carry_out(
        find_playbook(playbook_path),
        back.parameters,
        overrides,
        runbook=back.runbook,
        dry_run=dry_run,
        as_json=as_json,
        context={"rollback_of": name},
    )


@run.command()
@click.argument("name", metavar="RUN")
@json_option
@playbook_option
def resume(name: str, as_json: bool, playbook_path: Path | None) -> None:
    """Go on with RUN, which was paused, or whose runner died."""
    path = find_playbook(playbook_path)
    if (state := run_async(_state(path, name))).paused is not None and state.status is RunStatus.RUNNING:
        run_async(_answer(path, name, GO_ON, "operator", {}))
        if _at_work(path):
            click.echo(f"{name} goes on")
            return
    playbook = load(path)
    shown = Shown(as_json=as_json, target=playbook.thresholds.targets.rto)
    state = run_async(launch.resume(playbook, name, shown.watcher()))
    if not shown.begun:
        click.echo("\n".join(_lines(state)))
    refuse_failure(state)


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
    """Stop RUN before its next step and undo what was done; refused once the right to write is being taken away."""
    run_async(_answer(playbook_path, name, ABORT, by, {"reason": reason}))
    if _at_work(playbook_path):
        click.echo(f"{name} is asked to stop; `hmsdr run show {name}` tells when it has")
    else:
        click.echo(
            f"{name} is to stop, but its runner is gone: `hmsdr run resume {name}` undoes what was done"
        )


@run.command()
@click.argument("name", metavar="RUN")
@click.option("--reason", required=True)
@by_option
@playbook_option
def pause(name: str, reason: str, by: str, playbook_path: Path | None) -> None:
    """Let RUN wait before its next step; users who are being moved stay where they are, and are watched."""
    run_async(_answer(playbook_path, name, PAUSE, by, {"reason": reason}))
    click.echo(f"{name} is asked to wait; `hmsdr run resume {name}` lets it go on")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise RefusedError(
            "reading the parameters", f"{text!r} is no NAME=VALUE", "For example from=us-east-1"
        )
    return name, value


def _at_work(playbook_path: Path | None) -> bool:
    return run_async(_is_run(playbook_path))


async def _is_run(playbook_path: Path | None) -> bool:
    async with opened(playbook_path, reading=True) as (playbook, store):
        return await is_run(playbook, store)


async def _states(playbook_path: Path | None) -> tuple[list[RunState], list[str]]:
    """All runs, and what is proposed now."""
    async with opened(playbook_path, reading=True) as (playbook, store):
        events = await store.read()
        return runs(events), _proposed(playbook, events, (await store.read_authority()).epoch)


async def _state(playbook_path: Path | None, name: str) -> RunState:
    async with opened(playbook_path, reading=True) as (_, store):
        return await _read(store, name)


async def _read(store: Store, name: str) -> RunState:
    state = fold(await store.read(subject=name))
    if state is None:
        known = ", ".join(item.run for item in runs(await store.read())[-5:]) or "none"
        raise RefusedError(f"looking for run {name!r}", "the log knows no such run", f"Newest runs: {known}")
    return state


async def _answer(playbook_path: Path | None, name: str, kind: str, by: str, data: dict[str, str]) -> None:
    async with opened(playbook_path) as (_, store):

        async def answer() -> list[NewEvent]:
            _allowed(await _read(store, name), kind, data.get("step"))
            return [NewEvent(kind, name, by, data)]

        await append_after(store, answer, doing=f"answering run {name}")


def _allowed(state: RunState, kind: str, step: str | None) -> None:
    doing = f"{_DOING[kind]} run {state.run}"
    if state.status is not RunStatus.RUNNING:
        raise RefusedError(doing, f"it has ended: {state.status}", "`hmsdr run list` shows what is running")
    if kind in (ABORT, PAUSE) and state.irreversible:
        raise RefusedError(
            doing,
            "it is past its point of no return: stopped there, nobody might write",
            f"Let it end, or `hmsdr run resume {state.run}`; then `hmsdr run rollback {state.run}` goes back",
        )
    if kind == GO_ON and state.paused is None:
        raise RefusedError(doing, "it is not paused any more", "`hmsdr run show` tells what it does")
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
        "context": dict(state.context),
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


def _why(trigger: object) -> list[str]:
    """What made it necessary, and the severity that was proposed with it."""
    if not isinstance(trigger, dict):
        return []
    by = f", declared by {trigger['by']}: {trigger.get('reason', '')}" if trigger.get("by") else ""
    lines = [f"  because: {trigger.get('kind', 'unknown')}{by}"]
    if isinstance(severity := trigger.get("severity"), dict):
        lines.append(f"  severity proposed: {severity['proposed']}: {'; '.join(severity['reasons'])}")
    return lines


def _proposed(playbook: Playbook, events: Sequence[Event], epoch: int) -> list[str]:
    """Failovers that are proposed under the present epoch, and how to stop them."""
    now = datetime.now(UTC)
    chronicle, lines = Chronicle(), []
    chronicle.take(events, 0.0, now)
    for region in playbook.regions:
        if chronicle.noted(VETOED, region, epoch) or chronicle.noted(DECIDED, region, epoch):
            continue
        for cause in Cause:
            if (noted := chronicle.proposed(region, epoch, cause)) is not None:
                event = next(event for event in events if event.seq == noted.seq)
                data, ago = event.data, (now - event.at).total_seconds()
                severity = data.get("severity") or {}
                named = f", {severity['proposed']}" if severity else ""
                lines.append(
                    f"Proposed {ago:.0f} s ago: to leave {region} ({cause}{named}), carried out after "
                    f"{data['veto_seconds']:g} s. To stop it: `hmsdr veto {region} --reason TEXT --by NAME`"
                )
    return lines


def _lines(state: RunState) -> list[str]:
    """The run for people."""
    lines = [f"{state.run}  {state.plan.title}  ({state.plan.mode}, by {state.by}): {state.status}"]
    lines += _why(state.context.get("trigger"))
    lines += [
        f"  overruled: gate {each['gate']} by {each['by']}: {each['reason']}"
        for each in state.context.get("overrides", ())
    ]
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
                lines.append(
                    f"        {record.error['found'].rstrip('.')}. {record.error['remedy']}".rstrip()
                )
    if state.status is RunStatus.SUCCEEDED:
        lines += [f"  {line}" for line in left_undone(state)]
    return lines
