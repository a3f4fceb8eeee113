"""``hmsdr plan corruption``: the map of damaged data, and the way out of it. A face: judging is done in decide/. It changes nothing."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.backup_shared import the_target
from hmsdr.cli.common import find_playbook, playbook_option, run_async
from hmsdr.decide.corruption import Answer, Before, Condition, damaged_indexes, stamp
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.recovery.corruption import Cost, Mapped, Way, look, words
from hmsdr.runbook.actions.database import psql
from hmsdr.runbook.systems import Systems

_MARKS = {
    Condition.SOUND: "✓",
    Condition.DAMAGED: "✗",
    Condition.DOUBTED: "↯",
    Condition.UNKNOWN: "?",
}


@click.command("corruption")
@click.argument("region")
@click.option(
    "--before", metavar="TIME|LSN",
    help="The data are wrong from here on: 2026-11-25T02:15:00Z, or 0/3000148. For wrong rows, which show no sign of damage.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def plan_corruption(region: str, before: str | None, as_json: bool, playbook_path: Path | None) -> None:
    """Which copies of REGION's data are damaged, since when, and what the safe answer is; where it is a restore, to which point.

    Exit status 2 when there is no answer: something has to be known first, or no backup leads to before the damage.
    """
    run_async(_plan(load(find_playbook(playbook_path)), region, before_of(before), as_json=as_json))


def before_of(text: str | None) -> Before | None:
    """A person's word, a time or an LSN.

    Raises:
        RefusedError: it is neither.
    """
    if text is None:
        return None
    is_lsn = "/" in text
    target = the_target(None if is_lsn else text, text if is_lsn else None)
    return Before(time=target.time, lsn=target.lsn)


async def _plan(playbook: Playbook, region: str, before: Before | None, *, as_json: bool) -> None:
    store = await open_store(playbook, reading=True)
    systems = Systems(playbook, store)
    try:
        mapped = await look(systems, region, before)
    finally:
        await systems.close()
        await store.close()
    if as_json:
        click.echo(json.dumps(as_map(mapped, playbook)))
    else:
        click.echo("\n".join([*map_lines(mapped, playbook), "", "Nothing was changed."]))
    refuse(mapped)


def refuse(mapped: Mapped) -> None:
    """Say why there is no answer.

    Raises:
        RefusedError: there is none.
    """
    doing, found = f"planning the way out of the damage of {mapped.region}", mapped.diagnosis
    if found.answer is Answer.UNDECIDED:
        raise RefusedError(doing, found.why, found.remedy)
    if found.answer is Answer.RESTORE and mapped.way is None:
        raise RefusedError(doing, mapped.obstacle, mapped.remedy)


def commands(mapped: Mapped, playbook: Playbook) -> list[str]:
    """What to run next, complete."""
    answer, way = mapped.diagnosis.answer, mapped.way
    if answer is Answer.REINDEX:
        line = psql(playbook.regions[mapped.region].postgres)
        names = damaged_indexes(each.copy for each in mapped.diagnosis.copies)
        built = [f"{line} -c {shlex.quote(_reindex(name))}" for name in names]
        marked = [each.copy.region for each in mapped.diagnosis.copies if each.copy.signs]
        reason = shlex.quote(f"indexes built anew: {', '.join(names)}")
        return [*built, *(f'hmsdr damage clear {region} --reason {reason} --by "$USER"' for region in marked)]
    if answer is Answer.FAILOVER:
        return [f"hmsdr plan failover {mapped.region} {mapped.other}"]
    if answer is Answer.STANDBY:
        return [f"hmsdr plan recover {mapped.other}", f"hmsdr recover {mapped.other}"]
    if way is None:
        return []
    backup = way.choice.record.id
    at = f"--target-{'lsn' if way.point.lsn is not None else 'time'} {words(way.point)}"
    into = f"{playbook.regions[mapped.region].postgres.data_directory}.point"
    return [
        f"hmsdr backup verify --backup {backup} {at} --region {mapped.region}",
        f"hmsdr backup restore-database {backup} {at} --region {mapped.region} --into {into}",
    ]


def _reindex(name: str) -> str:
    """Writers go on meanwhile, but for the server's own catalogue, where PostgreSQL cannot."""
    schema, _, index = name.partition(".") if "." in name else ("", "", name)
    parts = [part for part in (schema, index) if part]
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
    return f"REINDEX INDEX {'' if schema == 'pg_catalog' else 'CONCURRENTLY '}{quoted}"


def as_map(mapped: Mapped, playbook: Playbook) -> dict[str, Any]:
    """All of it, as JSON."""
    found, way = mapped.diagnosis, mapped.way
    return {
        "region": mapped.region,
        "epoch": mapped.epoch,
        "answer": found.answer,
        "why": found.why,
        "first_seen": None if found.first_sign is None else stamp(found.first_sign),
        "copies": [
            {
                "region": each.copy.region,
                "role": "primary" if each.copy.primary else "standby",
                "condition": each.condition,
                "why": each.why,
                "checked_at": None if each.copy.checked_at is None else stamp(each.copy.checked_at),
                "signs": [asdict(sign) for sign in each.copy.signs],
            }
            for each in found.copies
        ],
        "backups": [
            {"backup": record.id, "ended": stamp(record.ended), "condition": condition, "why": why}
            for record, condition, why in mapped.backups
        ],
        "clean": [{"at": stamp(each.at), "by": each.by} for each in mapped.cleans],
        "problems": mapped.problems,
        "point": None if way is None else _way(way),
        "obstacle": mapped.obstacle,
        "remedy": mapped.remedy or found.remedy,
        "commands": commands(mapped, playbook),
    }


def _way(way: Way) -> dict[str, Any]:
    return {
        "time": None if way.point.time is None else stamp(way.point.time),
        "lsn": None if way.point.lsn is None else format_lsn(way.point.lsn),
        "proven": way.point.proven,
        "reason": way.point.reason,
        "backup": way.choice.record.id,
        "bucket": way.choice.bucket,
        "wal_files": len(way.choice.chain.files),
        "room": way.choice.room,
        "free": way.free,
        "cost": asdict(way.cost),
    }


def map_lines(mapped: Mapped, playbook: Playbook) -> list[str]:
    """The same for people."""
    found = mapped.diagnosis
    lines = ["Copies"]
    for each in found.copies:
        role = "primary" if each.copy.primary else "standby"
        lines.append(
            f"  {_MARKS[each.condition]} {each.copy.region:<12} {role:<8} {each.condition:<8} {each.why}"
        )
        lines += [
            f"{'':6}{sign.kind:<9} {sign.where}, since {sign.since}: {sign.evidence}"
            for sign in each.copy.signs
        ]
    lines += ["", "Backups"]
    lines += [
        f"  {_MARKS[condition]} {record.id} ended {stamp(record.ended)}, {condition}: {why}"
        for record, condition, why in mapped.backups
    ] or ["  none is whole"]
    lines += [f"  ! {where}: {what}" for where, what in mapped.problems.items()]
    lines += ["", f"Answer: {found.answer}", f"  {found.why}"]
    if mapped.way is not None:
        lines += ["", *_way_lines(mapped.way)]
    if found.remedy and found.answer is not Answer.UNDECIDED:
        lines.append(f"  {found.remedy}")
    if next_steps := commands(mapped, playbook):
        lines += ["", "Next", *(f"  {line}" for line in next_steps)]
    return lines


def _way_lines(way: Way) -> list[str]:
    free = "nobody could say how much is free" if way.free is None else f"{way.free >> 20} MiB are free"
    return [
        f"Back to {words(way.point)}{'' if way.point.proven else ' (not proven clean: try it out first)'}",
        f"  {way.point.reason}",
        f"  from backup {way.choice.record.id} of {way.choice.bucket}, and {len(way.choice.chain.files)} files of WAL",
        f"  room: {way.choice.room >> 20} MiB are needed, {free}",
        f"  cost: {_cost_words(way.cost)}",
    ]


def _cost_words(cost: Cost) -> str:
    told = []
    if cost.seconds is not None:
        told.append(f"what was written in the {cost.seconds:.0f} s since")
    if cost.commits is not None:
        told.append(
            f"{'at least ' if cost.more else ''}{cost.commits} transactions (heartbeats of the agent, one a second, among them)"
        )
    if cost.wal is not None:
        told.append(f"{cost.wal} bytes of WAL")
    if cost.found:
        told.append(f"the rest is not known: {cost.found}")
    return "; ".join(told) or "not known"
