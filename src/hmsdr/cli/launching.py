"""What the commands that start a run share: overriding gates, dry run, showing the run, the exit status. A face only."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import run_async
from hmsdr.cli.progress import Progress
from hmsdr.decide.gates import Gate, GateName, GateState
from hmsdr.errors import FailedError, RefusedError
from hmsdr.log.opening import open_store
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.dryrun import Foreseen, foresee
from hmsdr.runbook.launch import Overrides, Prepared, Watcher, launch, prepare, refuse_gates
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

_GATE_MARKS = {GateState.PASSED: "✓", GateState.FAILED: "✗", GateState.UNKNOWN: "?"}
_HOLDS = {True: "= ", False: "→ ", None: "? "}

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object for each change, for machines."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Ask every step what it would find; do nothing."
)


def overriding(known: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--override GATE --reason TEXT --by NAME``, checked against the `known` gates, as one argument ``overrides``."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--override", "gates", multiple=True, metavar="GATE", help="Overrule this gate; repeatable."
        )
        @click.option("--reason", help="Why a gate is overruled; kept for good.")
        @click.option("--by", help="Who starts it, and overrules.")
        @functools.wraps(command)
        def wrapped(gates: tuple[str, ...], reason: str | None, by: str | None, **rest: Any) -> Any:
            return command(overrides=_overrides(known, gates, reason, by), **rest)

        return wrapped

    return decorated


override_options = overriding([gate.value for gate in GateName])
"""Those of a failover."""


def _overrides(known: Sequence[str], gates: tuple[str, ...], reason: str | None, by: str | None) -> Overrides:
    for gate in gates:
        if gate not in known:
            raise RefusedError(
                "overruling gates",
                f"there is no gate {gate!r}",
                f"{nearest(gate, known) or ''} Gates: {', '.join(known)}".strip(),
            )
    if gates and not (reason and reason.strip() and by and by.strip()):
        raise RefusedError(
            "overruling gates", "no --reason or no --by", "Overruling takes a named person and a reason"
        )
    return Overrides(gates, reason, by)


def carry_out(
    path: Path,
    parameters: Mapping[str, str],
    overrides: Overrides,
    *,
    runbook: str,
    dry_run: bool,
    as_json: bool,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Run `runbook` of the playbook in `path` and show it.

    Raises:
        RefusedError: it may not begin.
        FailedError: it did not succeed.
    """
    if dry_run:
        prepared, text = run_async(_foresee(path, parameters, runbook, as_json=as_json))
        click.echo(text)
        refuse_gates(prepared.gates, overrides.gates)
        return
    playbook = load(path)
    refuse_failure(
        run_async(
            launch(
                playbook,
                parameters,
                by=overrides.by or "operator",
                runbook=runbook,
                overrides=overrides,
                context=context,
                watcher=Shown(as_json=as_json, target=playbook.thresholds.targets.rto).watcher(),
            )
        )
    )


def refuse_failure(state: RunState) -> None:
    """Raise FailedError when the run did not succeed."""
    if state.status is not RunStatus.SUCCEEDED:
        raise FailedError(
            f"run {state.run}",
            f"it ended {state.status}",
            f"`hmsdr run show {state.run}` tells where and what to do",
        )


async def _foresee(
    path: Path, parameters: Mapping[str, str], runbook: str, *, as_json: bool
) -> tuple[Prepared, str]:
    playbook = load(path)
    store = await open_store(playbook, reading=True)
    systems = Systems(playbook, store)
    try:
        prepared = await prepare(playbook, systems, parameters, runbook=runbook, events=await store.read())
        found = await foresee(prepared.plan, systems, installed())
    finally:
        await systems.close()
        await store.close()
    if as_json:
        gates = [asdict(gate) for gate in prepared.gates]
        return prepared, json.dumps({"gates": gates, "steps": [asdict(each) for each in found]}, default=str)
    return prepared, "\n".join(_foreseen_lines(prepared, found))


def _foreseen_lines(prepared: Prepared, found: Sequence[Foreseen]) -> list[str]:
    lines = gate_lines(prepared.gates) if prepared.gates else []
    lines += ["", f"{prepared.plan.title} ({prepared.plan.mode}), as things are now:"]
    for each in found:
        words = {True: "holds already", False: "would be done", None: f"cannot be asked: {each.found}"}
        detail = each.found if each.holds is False and each.found else ""
        lines.append(f"  {_HOLDS[each.holds]}{each.title:<60} {words[each.holds]} {detail}".rstrip())
    return [*lines, "", "Nothing was changed."]


def gate_lines(gates: Sequence[Gate]) -> list[str]:
    """The gates for people."""
    lines = ["Gates"]
    for gate in gates:
        lines.append(f"  {_GATE_MARKS[gate.state]} {gate.name:<18} {gate.observed}  (allowed: {gate.limit})")
        if gate.remedy:
            lines.append(f"      {gate.remedy}")
    return lines


class Shown:
    """A run on the terminal: its gates, then what happens. ``target`` is the playbook's RTO, when it is known.

    Output that cannot be written any more (its reader is gone, its disk is full) stops no run: it is said once on
    stderr, and the rest is not shown. The log has all of it.
    """

    def __init__(self, *, as_json: bool, target: timedelta | None = None) -> None:
        self._json = as_json
        self._target = target
        self._progress: Progress | None = None

    @property
    def begun(self) -> bool:
        """Whether a run was begun."""
        return self._progress is not None

    def watcher(self) -> Watcher:
        """Who is told."""
        return Watcher(self._gates, self._start, self._change, self._waiting)

    def _gates(self, gates: Sequence[Gate]) -> None:
        if gates and not self._json:
            with _unread_stops_nothing():
                click.echo("\n".join(gate_lines(gates)))

    def _start(self, plan: Plan, run: str) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that is closed stops no run either
        with _unread_stops_nothing():
            self._progress = Progress(plan, run, as_json=self._json, target=self._target)

    def _change(self, state: RunState) -> None:
        if self._progress is not None:
            with _unread_stops_nothing():
                self._progress.on_change(state)

    def _waiting(self, step: str, text: str) -> None:
        if self._progress is not None:
            with _unread_stops_nothing():
                self._progress.on_progress(step, text)


@contextlib.contextmanager
def _unread_stops_nothing() -> Iterator[None]:
    """From the first line that cannot be written, what would be shown goes nowhere."""
    try:
        yield
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        with contextlib.suppress(OSError):
            click.echo(
                f"hmsdr: showing the run: its output cannot be written any more ({error.strerror}). "
                "What was begun goes on unseen: `hmsdr run list` shows it",
                err=True,
            )
