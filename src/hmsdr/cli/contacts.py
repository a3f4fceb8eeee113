"""``hmsdr contacts``: who is still reached, asking, confirming, printing. A face only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from hmsdr.cli.common import by_option, find_playbook, json_option, opened, playbook_option, run_async
from hmsdr.decide.contacts import Known, Standing
from hmsdr.errors import FailedError, RefusedError
from hmsdr.incident.contacts import Contacts
from hmsdr.incident.paper import printed
from hmsdr.playbook.load import load


@click.group()
def contacts() -> None:
    """Are the team's numbers and addresses still right?"""


@contacts.command("list")
@json_option
@playbook_option
def list_command(as_json: bool, playbook_path: Path | None) -> None:
    """Everybody, when they confirmed, and who is a single point of failure. Exit status 1: somebody is not confirmed."""

    async def done() -> tuple[Known, ...]:
        async with opened(playbook_path) as (playbook, store):
            return await Contacts(playbook, store).known()

    found = run_async(done())
    click.echo(json.dumps([_as_json(each) for each in found]) if as_json else "\n".join(map(_line, found)))
    doubtful = [each.person.name for each in found if each.standing is not Standing.CONFIRMED]
    if doubtful:
        raise FailedError(
            "looking whether everybody is reached",
            f"not confirmed: {', '.join(doubtful)}",
            "`hmsdr contacts ask` asks them; `hmsdr contacts confirm NAME --by NAME` when you know",
        )


@contacts.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@by_option
@playbook_option
def ask(names: tuple[str, ...], by: str, playbook_path: Path | None) -> None:
    """Ask each NAME whether number and address are right; `hmsdr incident keep` sends it."""

    async def done() -> int:
        async with opened(playbook_path) as (playbook, store):
            return await Contacts(playbook, store).ask(names, by)

    click.echo(f"{run_async(done())} asked; `hmsdr incident keep` sends it")


@contacts.command()
@click.argument("name")
@by_option
@playbook_option
def confirm(name: str, by: str, playbook_path: Path | None) -> None:
    """Number and address of NAME are right, as they are in the playbook now."""

    async def done() -> None:
        async with opened(playbook_path) as (playbook, store):
            await Contacts(playbook, store).confirm(name, by)

    run_async(done())
    click.echo(f"{name}: confirmed")


@contacts.command("print")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("contacts.html"),
    show_default=True,
    help="Where to.",
)
@playbook_option
def print_command(out: Path, playbook_path: Path | None) -> None:
    """A wallet card and a wall sheet, as a page that a browser prints."""
    playbook = load(find_playbook(playbook_path), secrets=False)
    try:
        out.write_text(
            printed(playbook, datetime.now(ZoneInfo(playbook.on_call.time_zone))), encoding="utf-8"
        )
    except OSError as error:
        found = f"{out}: {error.strerror or error}"
        raise RefusedError("printing the contacts", found, "Name a file that can be written") from error
    click.echo(f"{out}: open it in a browser, and print")


def _line(each: Known) -> str:
    said = [str(each.standing)]
    if each.confirmed_at is not None:
        said.append(f"last on {each.confirmed_at.astimezone(UTC):%Y-%m-%d}")
    if each.alone:
        said.append(f"alone as {', '.join(each.alone)}")
    if each.several:
        said.append(f"single point of failure: {', '.join(each.roles)}")
    sign = "✓" if each.standing is Standing.CONFIRMED else "!"
    return f"{sign} {each.person.name}  {each.person.phone}  {each.person.email}  {'; '.join(said)}"


def _as_json(each: Known) -> dict[str, Any]:
    return {
        "name": each.person.name,
        "phone": each.person.phone,
        "email": each.person.email,
        "standing": str(each.standing),
        "confirmed_at": each.confirmed_at and each.confirmed_at.isoformat(),
        "due_at": each.due_at and each.due_at.isoformat(),
        "asked_at": each.asked_at and each.asked_at.isoformat(),
        "roles": list(each.roles),
        "alone_as": list(each.alone),
    }
