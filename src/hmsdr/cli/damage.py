"""``hmsdr damage``: the signs of damage that a region's agent keeps, and clearing them after its checks. A face only."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from hmsdr.cli.common import by_option, find_playbook, playbook_option, run_async
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import ClearingAnswer, DamageAnswer
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

_ASK_SECONDS = 10.0
_PAUSE = 0.5
_SILENT_SECONDS = 60.0
"""An agent that is silent for so long is given up; what it had begun goes on there, or has to be ordered again."""
_NEXT = "`hmsdr damage show {region}` tells how it stands; docs/agent.md, 'Damage', says what can be done"


@click.group()
def damage() -> None:
    """Signs of damage at a region's database."""


@damage.command()
@click.argument("region")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def show(region: str, as_json: bool, playbook_path: Path | None) -> None:
    """What REGION's agent has seen, what became of its last check, and of the last order to clear."""
    found = run_async(_show(load(find_playbook(playbook_path)), region))
    click.echo(json.dumps({"region": region, **asdict(found)}) if as_json else in_words(region, found))


@damage.command()
@click.argument("region")
@click.option("--reason", required=True, help="Why it is trusted again, for the record.")
@by_option
@playbook_option
def clear(region: str, reason: str, by: str, playbook_path: Path | None) -> None:
    """Have REGION's agent check every page, table and index, and forget the signs if it finds nothing.

    Until then, and when anything is found, the copy stays marked and is not promoted. It is on the record in the log.
    """
    if not reason.strip() or not by.strip():
        raise RefusedError(
            f"clearing the damage of {region}",
            "no --reason or no --by",
            "It takes a named person and a reason",
        )
    done = run_async(_clear(load(find_playbook(playbook_path)), region, by, reason))
    doing, remedy = f"clearing the damage of {region}", _NEXT.format(region=region)
    if done.state == "refused":
        raise RefusedError(doing, f"the copy still fails the checks: {done.found}", remedy)
    if done.state != "cleared":
        raise FailedError(doing, done.found or "the agent knows nothing of the order any more", remedy)
    click.echo(f"cleared: {done.found}")


def _client(playbook: Playbook, region: str, doing: str) -> AgentClient:
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(doing, "no such region", nearest(region, playbook.regions) or known)
    return AgentClient(playbook.regions[region].agent)


async def _show(playbook: Playbook, region: str) -> DamageAnswer:
    agent = _client(playbook, region, f"asking {region!r} for damage")
    try:
        return await agent.damage(deadline=_ASK_SECONDS)
    finally:
        await agent.close()


async def _clear(playbook: Playbook, region: str, by: str, reason: str) -> ClearingAnswer:
    agent = _client(playbook, region, f"clearing the damage of {region!r}")
    try:
        try:
            told = (await agent.clear_damage(by=by, reason=reason, deadline=_ASK_SECONDS)).clearing
        except PermanentError as error:
            raise RefusedError(error.doing, error.found, error.remedy) from error
        except OutcomeUnknownError:
            told = (await agent.damage(deadline=_ASK_SECONDS)).clearing
        shown, heard = "", time.monotonic()
        while told.state == "running":
            if (words := _stage(told)) != shown:
                shown = words
                click.echo(words, err=True)
            await asyncio.sleep(_PAUSE)
            try:
                told = (await agent.damage(deadline=_ASK_SECONDS)).clearing
                heard = time.monotonic()
            except DriverError:
                if time.monotonic() - heard > _SILENT_SECONDS:
                    raise
        return told
    finally:
        await agent.close()


def _stage(told: ClearingAnswer) -> str:
    return told.stage if told.part is None else f"{told.stage}: {100 * told.part:.0f} %"


def in_words(region: str, found: DamageAnswer) -> str:
    """Sign by sign, then the checks."""
    lines = [f"{region}: {len(found.signs) or 'no'} sign{'s' if len(found.signs) > 1 else ''} of damage"]
    lines += [f"  {sign.kind:<9} {sign.where}, since {sign.since}: {sign.evidence}" for sign in found.signs]
    checked = "" if found.checked_at is None else f", the last clean one began at {found.checked_at}"
    lines.append(f"  last check: {found.check}{checked}{'; one runs' if found.checking else ''}")
    told = found.clearing
    if told.state != "none":
        what = _stage(told) if told.state == "running" else told.found
        lines.append(f"  order to clear by {told.by} ({told.reason}), {told.began_at}: {told.state}; {what}")
    return "\n".join(lines)
