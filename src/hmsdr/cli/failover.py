"""``hmsdr plan failover`` and ``hmsdr failover``: gates, the frozen plan, and the run as it happens (FM-1..3, FM-5).

A face: gates are judged in decide/, the plan is frozen and run in runbook/. Planning changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async, store_path
from hmsdr.cli.progress import Progress
from hmsdr.cli.run import runs
from hmsdr.cli.runbook import render
from hmsdr.decide.gates import Gate, GateName, GateState, evaluate, refusing
from hmsdr.errors import FailedError, RefusedError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.observe import mode_of, observations
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

RUNBOOK = "regional-failover"
_MARK = {GateState.PASSED: "✓", GateState.FAILED: "✗", GateState.UNKNOWN: "?"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan and what was observed when it was made."""

    plan: Plan
    gates: tuple[Gate, ...]


@click.group()
def plan() -> None:
    """Show what a failover would do right now, and change nothing."""


@plan.command("failover")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan_failover(source: str, target: str, playbook_path: Path | None, as_json: bool) -> None:
    """Gates with what was observed, and every command of a failover FROM one region TO the other."""
    run_async(_plan(find_playbook(playbook_path), source, target, as_json))


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@playbook_option
@click.option("--override", "overrides", multiple=True, help="Overrule this gate; may be repeated.")
@click.option("--reason", help="Why a gate is overruled; kept for good.")
@click.option("--by", help="Who overrules it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each change, for machines.")
def failover(
    source: str,
    target: str,
    playbook_path: Path | None,
    overrides: tuple[str, ...],
    reason: str | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Fail over FROM one region TO the other, now."""
    unknown = sorted(set(overrides) - {gate.value for gate in GateName})
    if unknown:
        raise RefusedError(
            "overruling gates",
            f"there is no gate {unknown[0]!r}",
            f"Gates: {', '.join(gate.value for gate in GateName)}",
        )
    if overrides and not (reason and by):
        raise RefusedError(
            "overruling gates", "no --reason or no --by", "Overruling takes a named person and a reason"
        )
    state = run_async(_failover(find_playbook(playbook_path), source, target, overrides, reason, by, as_json))
    if state.status is not RunStatus.SUCCEEDED:
        raise FailedError(
            f"run {state.run}",
            f"it ended {state.status}",
            f"`hmsdr run show {state.run}` tells where and what to do",
        )


async def _plan(path: Path, source: str, target: str, as_json: bool) -> None:
    playbook = load(path)
    store = await SqliteStore.open(store_path(playbook, path))
    systems = Systems(playbook, store)
    try:
        prepared = await prepare(playbook, systems, source, target)
    finally:
        await systems.close()
        await store.close()
    if as_json:
        shown = {
            "plan": prepared.plan.model_dump(mode="json"),
            "gates": [asdict(gate) for gate in prepared.gates],
            "allowed": not refusing(prepared.gates),
        }
        click.echo(json.dumps(shown))
        return
    click.echo("\n".join(gate_lines(prepared.gates)))
    found = definition.load(definition.find(RUNBOOK))
    click.echo("\n" + render(found, prepared.plan, playbook, installed()))
    click.echo("\nNothing was changed.")


async def prepare(playbook: Playbook, systems: Systems, source: str, target: str) -> Prepared:
    """Observe, judge the gates, freeze the plan.

    Raises:
        RefusedError: a region that is not in the playbook, or failing over to itself, or the wrong way round.
    """
    found = definition.load(definition.find(RUNBOOK))
    record = await systems.authority.read_authority()
    catalogue = installed()
    # Frozen once before anything is asked, so that wrong names are refused at once.
    freeze(found, playbook, catalogue, {"from": source, "to": target}, mode="planned", epoch=record.epoch)
    if record.holder is not None and record.holder.instance == playbook.regions[target].postgres.instance:
        raise RefusedError(
            f"planning a failover from {source} to {target}",
            f"{target} holds the right to write already (epoch {record.epoch})",
            "Look at `hmsdr authority show`; did you mean the other direction?",
        )
    mode = await mode_of(systems, source)
    plan = freeze(found, playbook, catalogue, {"from": source, "to": target}, mode=mode, epoch=record.epoch)
    rollback = None
    if plan.rollback is not None:
        back = plan.rollback.parameters
        rollback = f"{plan.rollback.runbook} from {back['from']} to {back['to']}; before the grant, undo of each step"
    seen = await observations(systems, source, target, rollback)
    return Prepared(plan, evaluate(seen, playbook.thresholds.gates))


def gate_lines(gates: Sequence[Gate]) -> list[str]:
    """The gates for people."""
    lines = ["Gates"]
    for gate in gates:
        lines.append(f"  {_MARK[gate.state]} {gate.name:<18} {gate.observed}  (allowed: {gate.limit})")
        if gate.remedy:
            lines.append(f"      {gate.remedy}")
    return lines


async def _failover(
    path: Path,
    source: str,
    target: str,
    overrides: tuple[str, ...],
    reason: str | None,
    by: str | None,
    as_json: bool,
) -> RunState:
    playbook = load(path)
    file = store_path(playbook, path)
    store = await SqliteStore.open(file)
    systems = Systems(playbook, store)
    try:
        with only_runner(file):
            await _refuse_unfinished(store)
            prepared = await prepare(playbook, systems, source, target)
            if not as_json:
                click.echo("\n".join(gate_lines(prepared.gates)))
            _refuse_gates(prepared.gates, overrides)
            name = f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
            progress = Progress(prepared.plan, name, as_json=as_json)
            runner = Runner(
                store,
                systems,
                installed(),
                name,
                on_change=progress.on_change,
                on_progress=progress.on_progress,
            )
            context = {
                "gates": [asdict(gate) for gate in prepared.gates],
                "overrides": [{"gate": gate, "reason": reason, "by": by} for gate in overrides],
            }
            return await runner.start(prepared.plan, by or "operator", context)
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await systems.close()
        await store.close()


def _refuse_gates(gates: Sequence[Gate], overrides: Sequence[str]) -> None:
    closed = refusing(gates, overrides)
    if closed:
        raise RefusedError(
            "failing over",
            "; ".join(f"gate {gate.name} {gate.state}: {gate.observed}" for gate in closed),
            f"{closed[0].remedy}. To overrule: --override {closed[0].name} --reason TEXT --by NAME",
        )


async def _refuse_unfinished(store: SqliteStore) -> None:
    for state in runs(await store.read()):
        if state.status is RunStatus.RUNNING:
            raise RefusedError(
                "starting a failover",
                f"run {state.run} ({state.plan.title}) is not finished, and its runner is gone",
                f"`hmsdr run resume {state.run}`, or `hmsdr run abort {state.run}` and then resume",
            )


@contextlib.contextmanager
def only_runner(store: Path) -> Iterator[None]:
    """Hold the one runner's place of this store; the kernel gives it up with the process.

    Raises:
        RefusedError: another runner is at work.
    """
    lock: IO[str] = store.with_suffix(".runner.lock").open("a")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                "starting a run", "another run is under way on this store", "`hmsdr run list` shows it"
            ) from None
        yield
    finally:
        lock.close()
