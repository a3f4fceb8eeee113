"""``hmsdr plan failover`` and ``hmsdr failover``: gates, the frozen plan, and the run as it happens (FM-1..3, FM-5).

A face: gates are judged in decide/, the plan is frozen and run in runbook/. Planning changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async
from hmsdr.cli.corruption import plan_corruption
from hmsdr.cli.launching import carry_out, dry_run_option, gate_lines, json_option, override_options
from hmsdr.cli.recover import plan_recover
from hmsdr.cli.runbook import render
from hmsdr.cli.switchback import plan_switchback
from hmsdr.decide.gates import refusing
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.launch import REGIONAL, Overrides, prepare, refuse_gates
from hmsdr.runbook.preparation import Seen, look
from hmsdr.runbook.systems import Systems


@click.group()
def plan() -> None:
    """Show what a failover, a recovery, or switching back would do right now, and change nothing."""


plan.add_command(plan_corruption)
plan.add_command(plan_recover)
plan.add_command(plan_switchback)


@plan.command("failover")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan_failover(source: str, target: str, playbook_path: Path | None, as_json: bool) -> None:
    """Gates with what was observed, and every command of a failover FROM one region TO the other.

    Exit status 2 when a gate is closed: the failover would be refused.
    """
    run_async(_plan(find_playbook(playbook_path), source, target, as_json))


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@override_options
@dry_run_option
@json_option
@playbook_option
def failover(
    source: str, target: str, overrides: Overrides, dry_run: bool, as_json: bool, playbook_path: Path | None
) -> None:
    """Fail over FROM one region TO the other, now."""
    path = find_playbook(playbook_path)
    carry_out(
        path,
        {"from": source, "to": target},
        overrides,
        runbook=REGIONAL,
        dry_run=dry_run,
        as_json=as_json,
    )


async def _plan(path: Path, source: str, target: str, as_json: bool) -> None:
    playbook = load(path)
    store = await open_store(playbook, reading=True)
    systems = Systems(playbook, store)
    try:
        prepared = await prepare(playbook, systems, {"from": source, "to": target})
        seen = await look(systems, source, target)
    finally:
        await systems.close()
        await store.close()
    if as_json:
        shown = {
            "plan": prepared.plan.model_dump(mode="json"),
            "gates": [asdict(gate) for gate in prepared.gates],
            "preparation": [asdict(each) for each in seen],
            "allowed": not refusing(prepared.gates),
        }
        click.echo(json.dumps(shown))
        refuse_gates(prepared.gates)
        return
    click.echo("\n".join([*gate_lines(prepared.gates), "", *_preparation_lines(seen)]))
    click.echo("\n" + render(prepared.plan, playbook, installed()))
    click.echo("\nNothing was changed.")
    refuse_gates(prepared.gates)


def _preparation_lines(seen: Sequence[Seen]) -> list[str]:
    """What a person would look at first."""
    lines = ["Preparation"]
    for each in seen:
        lines.append(f"  {'✓' if each.well else '✗'} {each.name:<18} {each.words}")
        lines += [f"      {detail}" for detail in each.details]
    return lines
