"""``hmsdr plan recover`` and ``hmsdr recover``: what is left of a lost region, how it comes back, and bringing it back (RC-1, RC-2, RC-4).

A face: what was seen is judged in decide/, the plan is frozen and run in runbook/. Planning changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async
from hmsdr.cli.launching import carry_out, dry_run_option, gate_lines, json_option, overriding
from hmsdr.cli.runbook import render
from hmsdr.decide.gates import RecoveryGate, refusing
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.recovery import Condition, DatabasePlan
from hmsdr.decide.recovery import Path as Way
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.recovery.look import Looked, look
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.launch import Overrides, prepare, refuse_gates
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.systems import Systems

RUNBOOK = "region-recovery"
_MARKS = {
    Condition.INTACT: "✓",
    Condition.DIVERGED: "↯",
    Condition.CORRUPT: "✗",
    Condition.GONE: "✗",
    Condition.UNKNOWN: "?",
}

path_option = click.option(
    "--path",
    "way",
    type=click.Choice([str(way) for way in Way]),
    help="Take this path instead of the fastest one; it has to be safe and possible.",
)


@click.command("recover")
@click.argument("region")
@path_option
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan_recover(region: str, way: str | None, playbook_path: Path | None, as_json: bool) -> None:
    """What is left of REGION, each path back for its database with its time, and every command of its recovery.

    Exit status 2 when a check does not pass: the recovery would be refused.
    """
    run_async(_plan(find_playbook(playbook_path), region, way, as_json=as_json))


@click.command()
@click.argument("region")
@path_option
@click.option(
    "--without-lost-rows",
    "without",
    is_flag=True,
    help="Also when not every row that its database loses is known; takes --reason and --by.",
)
@overriding([gate.value for gate in RecoveryGate])
@dry_run_option
@json_option
@playbook_option
def recover(
    region: str,
    way: str | None,
    without: bool,
    overrides: Overrides,
    dry_run: bool,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Bring REGION back as the standby of the region that serves: its database, its cache, its services.

    What it committed alone is saved first. What is replaced is kept under another name. It never comes up writable.
    """
    if without and not (
        overrides.reason and overrides.reason.strip() and overrides.by and overrides.by.strip()
    ):
        raise RefusedError(
            f"recovering {region} without its lost rows",
            "no --reason or no --by",
            "It takes a named person and a reason",
        )
    path = find_playbook(playbook_path)
    looked, parameters = run_async(_looked(path, region, way))
    if not as_json:
        click.echo("\n".join([*gate_lines(looked.gates), "", *assessment_lines(looked), ""]))
    refuse_gates(looked.gates, overrides.gates)
    word = {"accepted-by": overrides.by or "", "accepted-because": overrides.reason or ""} if without else {}
    carry_out(
        path,
        {**parameters, **word},
        overrides,
        runbook=RUNBOOK,
        dry_run=dry_run,
        as_json=as_json,
        context=context_of(looked),
    )


def context_of(looked: Looked) -> dict[str, Any]:
    """What made the plan what it is, for the record."""
    return {"gates": [asdict(gate) for gate in looked.gates], "assessment": assessment(looked)}


def parameters_of(looked: Looked, way: str | None) -> dict[str, str]:
    """Of the runbook; with a `way` that a person chose.

    Raises:
        RefusedError: that one is not safe, or not possible.
    """
    found = looked.parameters
    if way is not None:
        option = looked.database.option(Way(way))
        if option.obstacle:
            raise RefusedError(
                f"recovering {looked.seen.region} by {way}", option.obstacle, "Leave --path out: see the plan"
            )
        backup = looked.seen.database.backup.id if way == Way.RESTORE else ""
        found = {**found, "path": way, "backup": backup}
    return {name: value for name, value in found.items() if value}


async def _looked(path: Path, region: str, way: str | None) -> tuple[Looked, dict[str, str]]:
    playbook = load(path)
    store = await open_store(playbook, reading=True)
    systems = Systems(playbook, store)
    try:
        looked = await look(systems, region)
        return looked, parameters_of(looked, way)
    finally:
        await systems.close()
        await store.close()


async def _plan(path: Path, region: str, way: str | None, *, as_json: bool) -> None:
    playbook = load(path)
    store = await open_store(playbook, reading=True)
    systems = Systems(playbook, store)
    frozen: Plan | None = None
    try:
        looked = await look(systems, region)
        parameters = parameters_of(looked, way)
        if "path" in parameters:
            frozen = (await prepare(playbook, systems, parameters, runbook=RUNBOOK)).plan
    finally:
        await systems.close()
        await store.close()
    if as_json:
        shown = {
            **assessment(looked),
            "gates": [asdict(gate) for gate in looked.gates],
            "allowed": not refusing(looked.gates),
            "parameters": parameters,
            "plan": None if frozen is None else frozen.model_dump(mode="json"),
        }
        click.echo(json.dumps(shown))
    else:
        click.echo("\n".join([*gate_lines(looked.gates), "", *assessment_lines(looked)]))
        if frozen is not None:
            click.echo("\n" + render(frozen, playbook, installed()))
        click.echo("\nNothing was changed.")
    refuse_gates(looked.gates)


def assessment(looked: Looked) -> dict[str, Any]:
    """The state of every component, and the paths of the database, as JSON."""
    database = looked.database
    return {
        "region": looked.seen.region,
        "primary": looked.seen.other,
        "components": [asdict(each) for each in looked.components],
        "parted_at": None if database.parted_at is None else format_lsn(database.parted_at),
        "paths": [_path(database, way) for way in Way],
        "picked": database.picked,
    }


def _path(database: DatabasePlan, way: Way) -> Mapping[str, Any]:
    option = database.option(way)
    return {
        "path": way,
        "possible": not option.obstacle,
        "seconds": None if option.time is None else round(option.time.seconds, 1),
        "estimated_by": "" if option.time is None else option.time.how,
        "why_not": option.why_not,
    }


def assessment_lines(looked: Looked) -> list[str]:
    """The same for people."""
    lines = [f"What is left of {looked.seen.region}"]
    for each in looked.components:
        lines.append(f"  {_MARKS[each.condition]} {each.name:<11} {each.condition:<9} {each.evidence[0]}")
        lines += [f"{'':26}{more}" for more in each.evidence[1:]]
    lines += ["", "Paths back for its database"]
    for option in looked.database.options:
        mark = "→" if option.path is looked.database.picked else " "
        time = "" if option.time is None else f"about {_seconds(option.time.seconds)}"
        lines.append(f"  {mark} {option.path:<11} {time:<16} {option.why_not or 'the fastest that is safe'}")
        if option.time is not None and not option.obstacle:
            lines.append(f"{'':32}{option.time.how}")
    return lines


def _seconds(value: float) -> str:
    if value < 100:  # noqa: PLR2004 - in seconds as long as that can be read
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 2 * 3600 else f"{value / 3600:.1f} h"
