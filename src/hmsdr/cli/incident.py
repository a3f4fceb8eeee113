"""``hmsdr incident``: declare, see, answer, assign, note, tick, move on, reopen. A face over the log; it decides nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import by_option, find_playbook, playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.cli.evidence import evidence
from hmsdr.cli.incident_view import list_lines, on_call_lines, shown_lines, timeline_lines
from hmsdr.cli.incident_words import keep, preview, send
from hmsdr.cli.letters import messages
from hmsdr.cli.status_page import publish
from hmsdr.cli.suggest import suggest
from hmsdr.control.weighing import region_of
from hmsdr.decide.incident import Incident
from hmsdr.decide.oncall import assigned
from hmsdr.decide.severity import Situation
from hmsdr.errors import RefusedError
from hmsdr.incident.desk import FIELDS, Declaration, Desk
from hmsdr.incident.view import as_json as incident_json
from hmsdr.incident.view import book_as_json, timeline
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import SeverityName

_PER_CENT = 100.0


@click.group()
def incident() -> None:
    """Declare incidents, and see them through."""


for _each in (preview, send, keep, publish, evidence, suggest, messages):
    incident.add_command(_each)


@incident.command()
@click.argument("title")
@click.option("--lost", multiple=True, metavar="REGION", help="A region that cannot be reached.")
@click.option("--damaged", multiple=True, metavar="REGION", help="A region whose database is damaged.")
@click.option("--down", multiple=True, metavar="SERVICE", help="A service that nobody reaches.")
@click.option("--slow", multiple=True, metavar="TEXT", help="What is slow, or not as it should be.")
@click.option("--reached", type=click.FloatRange(0, 100), help="Per cent of the patients still reached.")
@click.option(
    "--severity",
    type=click.Choice(["SEV-0", "SEV-1", "SEV-2", "SEV-3"]),
    help="Your own word for it, instead of what is proposed.",
)
@click.option("--reason", default="", help="Why that severity.")
@click.option("--apart", is_flag=True, help="A second incident beside one that goes on.")
@by_option
@json_option
@playbook_option
def declare(
    title: str,
    lost: tuple[str, ...],
    damaged: tuple[str, ...],
    down: tuple[str, ...],
    slow: tuple[str, ...],
    reached: float | None,
    severity: SeverityName | None,
    reason: str,
    apart: bool,
    by: str,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Declare an incident: TITLE in a few words. While one goes on, this is part of it, unless --apart.

    The severity is proposed from what is seen, or is yours: --severity.
    """

    async def done() -> tuple[Playbook, Incident, bool]:
        async with desk_of(playbook_path) as (playbook, store, desk):
            doing = "declaring an incident"
            for name in (*lost, *damaged):
                _known(name, playbook.regions, "region", doing)
            for name in down:
                _known(name, playbook.services, "service", doing)
            active = region_of(playbook, await store.read_authority())
            seen = Situation(
                regions=len(playbook.regions),
                lost=lost,
                active=active or playbook.home_region,
                services=len(playbook.services),
                down=tuple(dict.fromkeys(down)),
                damaged=damaged,
                degraded=slow,
                reached=None if reached is None else reached / _PER_CENT,
            )
            said = Declaration(title, by, seen, severity, reason, apart)
            found, fresh = await desk.declare(said, active)
            return playbook, found, fresh

    playbook, found, fresh = run_async(done())
    if as_json:
        shown = incident_json(found, playbook, datetime.now(UTC))
        click.echo(json.dumps({**shown, "new": fresh}))
        return
    if not fresh:
        click.echo(f"{found.name} goes on: this is noted there. A second one beside it: --apart")
    _echo(found, playbook, as_json=False)


@incident.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are reviewed.")
@json_option
@playbook_option
def list_command(everything: bool, as_json: bool, playbook_path: Path | None) -> None:
    """All incidents, newest last, and alerts that no incident has yet."""

    async def done() -> tuple[Playbook, dict[str, Any]]:
        async with desk_of(playbook_path) as (playbook, _, desk):
            return playbook, book_as_json(await desk.book(), playbook, datetime.now(UTC))

    _, found = run_async(done())
    if not everything:
        found["incidents"] = [each for each in found["incidents"] if each["status"] != "reviewed"]
    click.echo(json.dumps(found) if as_json else "\n".join(list_lines(found)))


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.option("--timeline", "with_timeline", is_flag=True, help="What happened, event by event.")
@json_option
@playbook_option
def show(name: str, with_timeline: bool, as_json: bool, playbook_path: Path | None) -> None:
    """INCIDENT: severity and why, roles, targets, checklist, what is due, what is known."""

    async def done() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async with desk_of(playbook_path) as (playbook, store, desk):
            found = await desk.incident(name, f"showing {name}")
            events = timeline(await store.read(subject=name)) if with_timeline else []
            return incident_json(found, playbook, datetime.now(UTC)), events

    found, events = run_async(done())
    if as_json:
        click.echo(json.dumps({**found, "timeline": events} if with_timeline else found))
        return
    click.echo("\n".join(shown_lines(found)))
    if with_timeline:
        click.echo("\n".join(["", "Timeline", *timeline_lines(events)]))


def _acting(path: Path | None, act: Callable[[Desk], Awaitable[Incident]], *, as_json: bool) -> None:
    """Do it, and show the incident as it is then."""

    async def done() -> tuple[Playbook, Incident]:
        async with desk_of(path) as (playbook, _, desk):
            return playbook, await act(desk)

    playbook, found = run_async(done())
    _echo(found, playbook, as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@by_option
@json_option
@playbook_option
def acknowledge(name: str, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """You have INCIDENT in hand; said again, it is a sign that you still have."""
    _acting(playbook_path, lambda desk: desk.acknowledge(name, by), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("severity", metavar="SEVERITY")
@click.option("--reason", required=True, help="Why, for the record.")
@by_option
@json_option
@playbook_option
def severity(
    name: str, severity: str, reason: str, by: str, as_json: bool, playbook_path: Path | None
) -> None:
    """Overrule the severity of INCIDENT: everything is timed anew."""
    _acting(playbook_path, lambda desk: desk.severity(name, by, severity, reason), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("role")
@click.argument("person")
@by_option
@json_option
@playbook_option
def assign(name: str, role: str, person: str, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """Give ROLE of INCIDENT to PERSON; whoever had it is called after them."""
    _acting(playbook_path, lambda desk: desk.assign(name, by, role, person), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("text")
@click.option("--field", help=f"What it fills in, in messages and checklist: {', '.join(FIELDS)}.")
@by_option
@json_option
@playbook_option
def note(name: str, text: str, field: str | None, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """Put TEXT on the record of INCIDENT. No patient's data."""
    _acting(playbook_path, lambda desk: desk.note(name, by, text, field), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("item")
@click.option("--evidence", default="", help="What shows it.")
@click.option("--undo", is_flag=True, help="Open it again.")
@by_option
@json_option
@playbook_option
def tick(
    name: str, item: str, evidence: str, undo: bool, by: str, as_json: bool, playbook_path: Path | None
) -> None:
    """Tick ITEM of INCIDENT's checklist."""
    _acting(playbook_path, lambda desk: desk.tick(name, by, item, evidence, done=not undo), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("status")
@click.argument("text", required=False, default="")
@by_option
@json_option
@playbook_option
def status(name: str, status: str, text: str, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """INCIDENT is mitigating, monitoring, resolved or reviewed now; TEXT says how."""
    _acting(playbook_path, lambda desk: desk.status(name, by, status, text), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("text", required=False, default="")
@by_option
@json_option
@playbook_option
def resolve(name: str, text: str, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """INCIDENT is over; TEXT says what resolved it."""
    _acting(playbook_path, lambda desk: desk.status(name, by, "resolved", text), as_json=as_json)


@incident.command()
@click.argument("name", metavar="INCIDENT")
@click.option("--reason", required=True, help="What came back.")
@by_option
@json_option
@playbook_option
def reopen(name: str, reason: str, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """INCIDENT came back: whoever is on call now is called, and every clock begins again."""
    _acting(playbook_path, lambda desk: desk.reopen(name, by, reason), as_json=as_json)


@incident.command("on-call")
@click.option("--at", "moment", help="When, as 2026-03-08T02:30+00:00; now without it.")
@json_option
@playbook_option
def on_call(moment: str | None, as_json: bool, playbook_path: Path | None) -> None:
    """Who is on call for each role, and who is called after them."""
    playbook = load(find_playbook(playbook_path), secrets=False)
    at = datetime.now(UTC) if moment is None else _instant(moment)
    found = {role: list(chain) for role, chain in assigned(playbook, at).items()}
    if as_json:
        click.echo(json.dumps({"at": at.isoformat(), "roles": found}))
        return
    click.echo("\n".join(on_call_lines(playbook, found, at)))


def _instant(text: str) -> datetime:
    doing = "reading --at"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedError(
            doing, f"{text!r} is no date and time", "Write it as 2026-03-08T02:30+00:00"
        ) from None
    if at.tzinfo is None:
        raise RefusedError(doing, f"{text!r} has no offset from UTC", "Add one: 2026-03-08T02:30+00:00")
    return at.astimezone(UTC)


def _known(name: str, names: Any, what: str, doing: str) -> None:
    if name not in names:
        hint = nearest(name, names) or f"Known: {', '.join(names)}"
        raise RefusedError(doing, f"the playbook has no {what} {name!r}", hint)


def _echo(found: Incident, playbook: Playbook, *, as_json: bool) -> None:
    shown = incident_json(found, playbook, datetime.now(UTC))
    click.echo(json.dumps(shown) if as_json else "\n".join(shown_lines(shown)))
