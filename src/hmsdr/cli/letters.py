"""``hmsdr incident messages``: every message of an incident, and what became of it. A face only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.cli.incident_view import plain
from hmsdr.incident.post import Post
from hmsdr.incident.view import messages as messages_of

_MARKS = {"arrived": "✓", "sent": "✓", "sending": "…", "waiting": "!", "not arrived": "✗"}
_WELL = frozenset({"arrived", "sent"})
_MOST = 200


@click.command()
@click.argument("name", metavar="INCIDENT")
@click.option("--open", "only_open", is_flag=True, help="Only those that nobody is known to have.")
@json_option
@playbook_option
def messages(name: str, only_open: bool, as_json: bool, playbook_path: Path | None) -> None:
    """What was sent of INCIDENT, to whom, on which channel, and what became of it."""

    async def done() -> list[dict[str, Any]]:
        async with desk_of(playbook_path) as (playbook, store, desk):
            await desk.incident(name, f"listing the messages of {name}")
            return messages_of(await Post(playbook, store, "reader").outbox(), name)

    found = run_async(done())
    counts = Counter(each["state"] for each in found)
    if only_open:
        found = [each for each in found if each["state"] not in _WELL]
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found, counts)))


def _lines(found: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [
            "No message yet. `hmsdr incident keep` pages who is on call; `hmsdr incident send` tells people."
        ]
    lines = [", ".join(f"{number} {state}" for state, number in counts.items())]
    lines += [_line(each) for each in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"and {len(found) - _MOST} more: --json has them all")
    return lines


def _line(each: Mapping[str, Any]) -> str:
    at = datetime.fromisoformat(each["sent_at"] or each["queued_at"])
    became = each["receipt"] or (
        each["state"] if each["tried"] is None else f"{each['state']}, tried {each['tried']} times"
    )
    twice = ", maybe twice" if each["maybe_twice"] else ""
    before = f"; before that {plain(each['found'], 120)}" if each["found"] else ""
    return (
        f"{_MARKS[each['state']]} {at:%Y-%m-%d %H:%M:%S} UTC  {each['word']:<10} {plain(each['audience'], 24):<24} "
        f"{plain(each['channel'], 60)}: {became}{twice}{before}"
    )
