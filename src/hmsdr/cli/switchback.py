"""``hmsdr plan switchback`` and ``hmsdr switchback``: the hospital goes home (SW-1..4). A face over runbook/ and control/health."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from hmsdr.cli.common import find_playbook, opened, playbook_option, run_async
from hmsdr.cli.health_check import lines_of
from hmsdr.cli.launching import carry_out, dry_run_option, gate_lines, json_option, override_options
from hmsdr.cli.runbook import render
from hmsdr.control.health import examine
from hmsdr.decide.gates import refusing
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.announcing import SWITCHBACK, announce, duration_of, shares_of
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.homecoming import Across, across
from hmsdr.runbook.launch import Overrides, Prepared, prepare, refuse_gates
from hmsdr.runbook.systems import Systems
from hmsdr.runbook.team import Posted


@dataclass(frozen=True, slots=True)
class _Planned:
    prepared: Prepared
    across: Across
    told: Posted | None


@click.command("switchback")
@click.argument("region", metavar="REGION")
@click.option("--announce", is_flag=True, help="Tell the response team what is planned; it opens a gate.")
@click.option("--by", help="Who announces it, for the record.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def plan_switchback(
    region: str, announce: bool, by: str | None, as_json: bool, playbook_path: Path | None
) -> None:
    """Gates, steps with their times, and what writing across will cost, of switching back to REGION.

    Exit status 2 when a gate is closed: switching back would be refused.
    """
    if announce and not (by and by.strip()):
        raise RefusedError("announcing the switchback", "no --by", "Whoever announces it is named in the log")
    path = find_playbook(playbook_path)
    playbook = load(path)
    found = run_async(_plan(path, _regions(playbook, region), by if announce else None))
    if as_json:
        shown = {
            "plan": found.prepared.plan.model_dump(mode="json"),
            "gates": [asdict(gate) for gate in found.prepared.gates],
            "across": asdict(found.across),
            "seconds": duration_of(playbook, found.prepared).total_seconds(),
            "allowed": not refusing(found.prepared.gates),
        }
        click.echo(json.dumps(shown))
    else:
        click.echo("\n".join(_lines(playbook, found)))
    refuse_gates(found.prepared.gates)


@click.command()
@click.argument("region", metavar="REGION")
@override_options
@dry_run_option
@json_option
@playbook_option
def switchback(
    region: str, overrides: Overrides, dry_run: bool, as_json: bool, playbook_path: Path | None
) -> None:
    """Switch back to REGION: the database first, then users, share by share; a bad step goes back by itself.

    While it goes on: `hmsdr run pause RUN --reason TEXT --by NAME`, `hmsdr run resume RUN`, and
    `hmsdr run abort RUN --reason TEXT --by NAME` to go back.
    """
    path = find_playbook(playbook_path)
    carry_out(
        path, _regions(load(path), region), overrides, runbook=SWITCHBACK, dry_run=dry_run, as_json=as_json
    )
    if not dry_run:
        _verify(playbook_path, as_json=as_json)


def _verify(path: Path | None, *, as_json: bool) -> None:
    """The final verification: the whole hospital, from outside (SW-4).

    Raises:
        FailedError: something is not well.
    """

    async def look() -> tuple[list[str], list[str]]:
        async with opened(path, reading=True) as (playbook, store):
            systems = Systems(playbook, store)
            try:
                findings = await examine(systems)
            finally:
                await systems.close()
            return lines_of(findings), [each.name for each in findings if not each.well]

    lines, ill = run_async(look())
    if not as_json:
        click.echo("\n".join(lines))
    if ill:
        raise FailedError(
            "verifying the hospital after switching back",
            f"not well: {', '.join(ill)}",
            "`hmsdr health-check` tells more",
        )


def _regions(playbook: Playbook, home: str) -> dict[str, str]:
    if home not in playbook.regions:
        raise RefusedError(
            f"switching back to {home}",
            "it is no region of the playbook",
            f"Known: {', '.join(playbook.regions)}",
        )
    return {"from": playbook.other_region(home), "to": home}


async def _plan(path: Path, parameters: Mapping[str, str], by: str | None) -> _Planned:
    async with opened(path, reading=by is None) as (playbook, store):
        systems = Systems(playbook, store)
        try:
            home, other = parameters["to"], parameters["from"]
            prepared = await prepare(
                playbook, systems, parameters, runbook=SWITCHBACK, events=await store.read()
            )
            cost = await across(systems, home, other)
            if by is None:
                return _Planned(prepared, cost, None)
            posted = await announce(systems, store, prepared, by=by)
            prepared = await prepare(
                playbook, systems, parameters, runbook=SWITCHBACK, events=await store.read()
            )
            return _Planned(prepared, cost, posted)
        finally:
            await systems.close()


def _lines(playbook: Playbook, found: _Planned) -> list[str]:
    plan = found.prepared.plan
    home, other = plan.parameters["to"], plan.parameters["from"]
    limits, ttl = playbook.procedures.switchback, playbook.traffic.ttl
    lines = [*gate_lines(found.prepared.gates), "", "Steps"]
    lines += [
        f"  {100 - share:3} % {other} / {share:3} % {home}   TTL {ttl} s, then {format_duration(limits.hold)} watched"
        for share in shares_of(found.prepared)
    ]
    lines.append(
        f"  about {format_duration(duration_of(playbook, found.prepared))} in all, if nothing has to be waited for"
    )
    lines += ["", f"While users are split, {other} writes across, into {home}", *_across_lines(found.across)]
    lines.append("\n" + render(plan, playbook, installed()))
    if found.told is not None:
        lines.append(f"\nAnnounced in {found.told.channel}.")
    return [*lines, "Nothing was changed." if found.told else "\nNothing was changed."]


def _across_lines(cost: Across) -> list[str]:
    if cost.seconds is None:
        lines = [f"  one way there and back cannot be told: {cost.found}"]
    else:
        lines = [
            f"  one way there and back is {1000 * cost.seconds:.1f} ms now; each statement of a request takes one more"
        ]
    known = [
        f"{name} {1000 * value:.0f} ms"
        for name, value in cost.latency.items()
        if value is not None and math.isfinite(value)
    ]
    if known:
        lines.append(f"  users are answered within {', '.join(known)} now")
    return lines
