"""``hmsdr incident suggest``: ways out of an incident, with the gates of the runbook that fits. A face only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from hmsdr.cli.common import playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.cli.incident_view import plain
from hmsdr.control.weighing import region_of
from hmsdr.decide.gates import GateState
from hmsdr.incident.suggesting import Judged, judged
from hmsdr.incident.suggesting import as_json as judged_json

_MARKS = {GateState.PASSED: "✓", GateState.FAILED: "✗", GateState.UNKNOWN: "?"}
_MOST = 400


@click.command()
@click.argument("name", metavar="INCIDENT")
@json_option
@playbook_option
def suggest(name: str, as_json: bool, playbook_path: Path | None) -> None:
    """Ways out of INCIDENT by what is seen of it, and the runbook that fits, with its gates judged now. Begins nothing."""

    async def done() -> list[Judged]:
        async with desk_of(playbook_path) as (playbook, store, desk):
            incident = await desk.incident(name, f"looking for a way out of {name}")
            active = region_of(playbook, await store.read_authority())
            return await judged(incident, playbook, store, active)

    found = run_async(done())
    click.echo(json.dumps(_json(found)) if as_json else "\n".join(_lines(name, found)))


def _json(found: Sequence[Judged]) -> list[dict[str, object]]:
    return [judged_json(each) for each in found]


def _lines(name: str, found: Sequence[Judged]) -> list[str]:
    if not found:
        return [
            f"Nothing that is seen of {name} has a runbook that fits. "
            f"`hmsdr incident show {name}` has its alerts, `hmsdr runbook list` all runbooks."
        ]
    lines = []
    for number, each in enumerate(found, 1):
        way = each.suggestion
        lines += [f"{number}. {way.what}", f"     because {way.why}", f"     {way.command}"]
        if way.runbook and each.found:
            lines.append(f"   ? {way.runbook}: {plain(each.found, _MOST)}")
        elif way.runbook:
            verdict = "may start" if each.allowed else "would be refused"
            gates = f"{len(each.gates)} gates" if each.gates else "no gates"
            lines.append(f"     {way.runbook}: {each.steps} steps, {gates}: it {verdict}")
        for gate in each.gates:
            remedy = "" if gate.state is GateState.PASSED else f". {gate.remedy}"
            lines.append(
                f"   {_MARKS[gate.state]} {gate.name:<20} {plain(gate.observed + remedy, _MOST)} (limit: {plain(gate.limit)})"
            )
    return lines
