"""``hmsdr runbook``: the runbooks as a person would do them by hand, generated from the same code. A face only."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import find_playbook, json_option, playbook_option, run_async
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.log.store import StoreError
from hmsdr.playbook.load import load as load_playbook
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import reference
from hmsdr.runbook.action import Manual
from hmsdr.runbook.catalogue import Catalogue, installed
from hmsdr.runbook.definition import Runbook, RunbookDefinition, find, load, shipped_directory
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.launch import GRANT
from hmsdr.runbook.plan import Mode, Plan

_MODES: tuple[Mode, ...] = ("planned", "unplanned")


@click.group()
def runbook() -> None:
    """Show runbooks as a person would do them by hand; check your own."""


@runbook.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The shipped runbooks."""
    definitions = [load(path).definition for path in sorted(shipped_directory().glob("*.yaml"))]
    if as_json:
        click.echo(json.dumps([_listed(each) for each in definitions], indent=2, ensure_ascii=False))
        return
    for definition in definitions:
        parameters = " ".join(f"{name}=<{kind}>" for name, kind in definition.parameters.items())
        click.echo(f"{definition.runbook:<20} {parameters}\n    {definition.purpose}")


def _listed(definition: RunbookDefinition) -> dict[str, Any]:
    return {
        "runbook": definition.runbook,
        "title": definition.title,
        "purpose": definition.purpose,
        "parameters": dict(definition.parameters),
        "stages": [stage.stage for stage in definition.stages],
        "rollback": definition.rollback.runbook if definition.rollback else None,
    }


@runbook.command()
@click.argument("name")
@click.option("--from", "from_region", help="Region to leave; default: the home region.")
@click.option("--to", "to_region", help="Region to go to; default: the other one.")
@click.option("--users", "users_region", help="Region that users are sent to; default: the home region.")
@click.option("--service", help="Service, for runbooks about one.")
@click.option("--epoch", type=int, help="The current epoch; default: the store's, or 1 where there is none.")
@click.option("--planned", is_flag=True, help="Both regions are up: hand over instead of taking away.")
@json_option
@playbook_option
def show(
    name: str,
    from_region: str | None,
    to_region: str | None,
    users_region: str | None,
    service: str | None,
    epoch: int | None,
    planned: bool,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Print what a person would do by hand for runbook NAME: every command with real values."""
    path = find_playbook(playbook_path)
    playbook = load_playbook(path, secrets=False)
    if epoch is None:
        epoch = run_async(_current_epoch(playbook))
    catalogue = installed()
    found = load(find(name))
    start, users = from_region or playbook.home_region, users_region or playbook.home_region
    for region in (start, users):
        if region not in playbook.regions:
            raise RefusedError(
                f"showing {name}",
                f"{region!r} is no region of the playbook",
                f"Known: {', '.join(playbook.regions)}",
            )
    offered = {
        "from": start,
        "to": to_region or playbook.other_region(start),
        "region": start,
        "service": service or next(iter(playbook.services)),
    }
    parameters = {key: offered[key] for key in found.definition.parameters if key in offered}
    mode: Mode = "planned" if planned else "unplanned"
    plan = freeze(found, playbook, catalogue, parameters, mode=mode, epoch=epoch, users=users)
    if as_json:
        click.echo(json.dumps(as_data(plan, playbook, catalogue), indent=2, ensure_ascii=False))
    else:
        click.echo(render(plan, playbook, catalogue))


@runbook.command()
@click.argument("name", metavar="FILE")
@playbook_option
def check(name: str, playbook_path: Path | None) -> None:
    """Check a runbook of your own against the playbook: form, actions, arguments, references.

    Every plan that could be made of it is made, for each region and service and in both modes; nothing is run.
    """
    playbook = load_playbook(find_playbook(playbook_path), secrets=False)
    found, catalogue = load(find(name)), installed()
    counts: dict[Mode, int] = {}
    for mode in _MODES:
        for parameters in _choices(found, playbook):
            plan = freeze(found, playbook, catalogue, parameters, mode=mode, epoch=1)
            counts[mode] = len(list(plan.steps()))
    if not any(counts.values()):
        raise RefusedError(f"checking {name}", "it has no step in any mode", "Give it one")
    told = ", ".join(f"{count} steps {mode}" for mode, count in counts.items())
    click.echo(f"{name}: valid ({found.definition.runbook}: {len(found.definition.stages)} stages, {told})")


def _choices(found: Runbook, playbook: Playbook) -> Iterator[dict[str, str]]:
    """Every set of parameters that makes sense."""
    kinds = {name: kind for name, kind in found.definition.parameters.items() if kind != "words"}
    known = {"region": list(playbook.regions), "service": list(playbook.services)}
    for values in itertools.product(*(known[kind] for kind in kinds.values())):
        parameters = dict(zip(kinds, values, strict=True))
        if "from" not in parameters or parameters["from"] != parameters.get("to"):
            yield parameters


@runbook.command()
def actions() -> None:
    """What a step can do: every action, with its arguments; those of installed packages too."""
    for name, summary, undone, arguments in reference.actions(installed()):
        click.echo(f"{name:<30} {summary}{' (undone by a rollback)' if undone else ''}")
        for argument, kind in arguments.items():
            click.echo(f"    {argument:<26} {kind}")


async def _current_epoch(playbook: Playbook) -> int:
    """What the authority record says: commands made for another epoch are all refused. 1 when nobody can be asked yet."""
    if playbook.store.kind == "sqlite" and not Path(playbook.store.path).exists():
        return 1
    try:
        store = await open_store(playbook)
    except StoreError:
        return 1
    try:
        return max(1, (await store.read_authority()).epoch)
    finally:
        await store.close()


def as_data(plan: Plan, playbook: Playbook, catalogue: Catalogue) -> dict[str, Any]:
    """The plan and what a person would do for each step, for machines."""
    data: dict[str, Any] = plan.model_dump(mode="json")
    for stage in data["stages"]:
        for step in (step for group in stage["groups"] for step in group):
            manual = _manual(catalogue, playbook, step["action"], step["arguments"])
            step["by_hand"] = {
                "commands": list(manual.commands),
                "expected": manual.expected,
                "if_not": list(manual.troubleshooting),
            }
    return {**data, "way_back": _way_back(plan)}


def _manual(catalogue: Catalogue, playbook: Playbook, action: str, arguments: dict[str, Any]) -> Manual:
    known = catalogue.get(action)
    return known.manual(playbook, known.Args.model_validate(arguments))


def render(plan: Plan, playbook: Playbook, catalogue: Catalogue) -> str:
    """The plan as a runbook for people."""
    lines = [
        f"# {plan.title}",
        "",
        plan.purpose,
        "",
        f"Mode: {plan.mode}. Playbook: {plan.playbook}. Made for epoch {plan.epoch}."
        + (
            f" Epoch {plan.epoch + 1} is granted already: what leads there holds, the rest remains."
            if plan.granted
            else ""
        ),
    ]
    number = 0
    for stage in plan.stages:
        lines += ["", f"## {stage.name}: {stage.title}"]
        if stage.after:
            lines.append(
                f"Begins when {' and '.join(stage.after)} {'is' if len(stage.after) == 1 else 'are'} done."
            )
        for group in stage.groups:
            if len(group) > 1:
                lines += ["", f"The next {len(group)} steps may be done at the same time."]
            for step in group:
                number += 1
                manual = _manual(catalogue, playbook, step.action, step.arguments)
                lines += ["", f"{number}. {step.title}  (at most {step.deadline.total_seconds():g} s)", ""]
                if step.point_of_no_return:
                    lines += ["   POINT OF NO RETURN: going back afterwards is a failover of its own.", ""]
                lines += [f"       {command}" for command in manual.commands]
                lines += ["", f"   Expected: {manual.expected}"]
                lines += [f"   If not: {text}" for text in manual.troubleshooting]
    return "\n".join([*lines, "", "## The way back", "", *_way_back(plan)])


def _way_back(plan: Plan) -> list[str]:
    """What is undone on the way, how to go back afterwards, and what must be there first."""
    grants = any(step.action == GRANT for step in plan.steps())
    until = "Before the right to write is taken away" if grants else "While it runs"
    lines = [f"{until}: undo what was scaled and pointed over (`hmsdr run abort` does it)."]
    if plan.rollback is None:
        return lines
    back = plan.rollback.parameters
    values = " ".join(f"--{key} {value}" for key, value in back.items())
    lines.append(
        f"Afterwards: `hmsdr run rollback RUN`; on paper `hmsdr runbook show {plan.rollback.runbook} {values} --planned`."
    )
    if grants and plan.mode == "unplanned" and "to" in back:
        lines.append(f"The database of {back['to']} must follow again by then: `hmsdr follow {back['to']}`.")
    return lines
