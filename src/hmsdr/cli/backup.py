"""``hmsdr backup``: make and list backups; trying out and bringing back stand beside. A face only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.backup_kubernetes import keep, restore_kubernetes
from hmsdr.cli.backup_shared import (
    programs_options,
    region_option,
    saying,
    standby_of,
    the_objects,
    the_playbook,
    the_region,
    the_server,
)
from hmsdr.cli.backup_try import restore_database, verify
from hmsdr.cli.common import playbook_option, run_async
from hmsdr.control.server import PostgresServer
from hmsdr.decide.backups import missing, trial_problem, trial_text
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import ExitStatus, HmsdrError
from hmsdr.playbook.model import Playbook


@click.group()
def backup() -> None:
    """Make backups, list them, try them out, bring them back."""


@backup.command("run")
@region_option
@programs_options
@click.option(
    "--only",
    type=click.Choice(["database", "kubernetes"]),
    help="One of the two; the database's part runs beside the database only.",
)
@click.option(
    "--if-primary", is_flag=True, help="Do nothing where the region's database is a standby: for timers."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def run_(
    playbook_path: Path | None,
    region: str | None,
    postgres_bin: Path | None,
    run_as: str | None,
    only: str | None,
    if_primary: bool,
    as_json: bool,
) -> None:
    """Back up the database and the cluster's objects, read both back, and keep a copy in the other region.

    Run it beside the database. Exit status 1: something was not kept, or lies only in the region that it protects.
    """
    playbook = the_playbook(playbook_path)
    if if_primary and run_async(standby_of(playbook, region)):
        click.echo(f"The database of {region} is a standby: backups are made where the primary is.", err=True)
        return
    server = the_server(Path(), postgres_bin, run_as)
    told, errors = run_async(_run(playbook, region, server, only, quiet=as_json))
    if as_json:
        click.echo(json.dumps(told))
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("backup run", errors)
    problems = [words for part in told.values() for words in part["problems"]]
    click.get_current_context().exit(ExitStatus.FAILED if problems else ExitStatus.DONE)


async def _run(
    playbook: Playbook, region: str | None, server: PostgresServer, only: str | None, *, quiet: bool
) -> tuple[dict[str, Any], list[HmsdrError]]:
    """Both parts; one that fails does not keep the other from being done."""
    told: dict[str, Any] = {}
    errors: list[HmsdrError] = []
    where = await the_region(playbook, region)
    for part, work in (("database", _database), ("kubernetes", _cluster)):
        if only in (None, part):
            try:
                told[part] = await work(playbook, where, server, quiet=quiet)
            except HmsdrError as error:
                errors.append(error)
                continue
            if not quiet:
                click.echo(told[part].pop("words"))
                for problem in told[part]["problems"]:
                    click.echo(f"  ✗ {problem}")
    return told, errors


async def _database(
    playbook: Playbook, region: str, server: PostgresServer, *, quiet: bool
) -> dict[str, Any]:
    from hmsdr.backup.make import Maker  # noqa: PLC0415 - imported when it is used

    async with the_objects(playbook) as objects:
        made = await Maker(playbook, region, objects, server, saying(quiet=quiet)).run()
    record, took = made.record, sum(made.seconds.values())
    return {
        "id": record.id,
        "region": region,
        "size": record.size,
        "seconds": made.seconds,
        "copied": made.copied,
        "problems": made.problems,
        "words": f"backup {record.id} of {region}: {record.size} bytes, consistent from "
        f"{format_lsn(record.end_lsn)} on, in {took:.1f} s",
    }


async def _cluster(playbook: Playbook, region: str, _: PostgresServer, *, quiet: bool) -> dict[str, Any]:
    kept = await keep(playbook, region, saying(quiet=quiet))
    return {
        "name": kept.name,
        "region": region,
        "size": kept.size,
        "objects": kept.objects,
        "buckets": kept.buckets,
        "problems": kept.problems,
        "words": f"{kept.name} of {region}: {kept.objects} objects, {kept.size} bytes",
    }


@backup.command("list")
@region_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def list_(playbook_path: Path | None, region: str | None, as_json: bool) -> None:
    """List the backups in both buckets, and up to where each can be replayed."""
    status = run_async(_list(the_playbook(playbook_path), region, as_json=as_json))
    click.get_current_context().exit(status)


async def _list(playbook: Playbook, region: str | None, *, as_json: bool) -> int:
    from hmsdr.backup.fetch import Target, chain_of  # noqa: PLC0415
    from hmsdr.backup.vault import Vault  # noqa: PLC0415

    async with the_objects(playbook) as objects:
        vault = Vault(objects, playbook, region or playbook.home_region)
        shelves, problems = await vault.shelves()
        histories = await vault.histories(shelves)
        trial = await vault.last_trial(shelves)
    entries = []
    for shelf in shelves:
        for record in shelf.records:
            chain = chain_of(record, [shelf], histories, Target())
            entries.append(
                {
                    "id": record.id,
                    "bucket": shelf.bucket,
                    "ended": record.ended.isoformat(),
                    "size": record.size,
                    "timeline": record.timeline,
                    "from_lsn": format_lsn(record.end_lsn),
                    "to_lsn": format_lsn(chain.reaches),
                    "wrong": [*missing(record, shelf.sizes), *(each.words for each in chain.problems)],
                }
            )
        entries += [{"id": None, "bucket": shelf.bucket, "record": name, "wrong": [why]}
                    for name, why in shelf.broken.items()]  # fmt: skip
    silent = {bucket: str(error) for bucket, error in problems.items()}
    records = [record for shelf in shelves for record in shelf.records]
    untried = trial_problem(trial, records, datetime.now(UTC), playbook.backups.verify_every)
    if as_json:
        tried = None if trial is None else json.loads(trial_text(trial))
        click.echo(json.dumps({"backups": entries, "silent": silent, "tried": tried, "untried": untried}))
    else:
        _show(entries, silent)
        if untried:
            click.echo(f"✗ {untried}")
        elif trial is not None:
            click.echo(f"✓ {trial.backup} was tried out at {trial.at:%Y-%m-%d %H:%M} UTC and restores")
    bad = untried or silent or any(entry["wrong"] for entry in entries) or not entries
    return ExitStatus.FAILED if bad else ExitStatus.DONE


def _show(entries: list[dict[str, Any]], silent: dict[str, str]) -> None:
    if not entries:
        click.echo("There is no backup. Make one: `hmsdr backup run`, beside the database.")
    for entry in entries:
        if entry["id"] is None:
            click.echo(f"✗ {entry['record']}  {entry['bucket']}")
        else:
            mark = "✗" if entry["wrong"] else "✓"
            click.echo(
                f"{mark} {entry['id']}  {entry['bucket']}  {entry['ended'][:19]}Z  {entry['size']} bytes  "
                f"timeline {entry['timeline']}  {entry['from_lsn']} to {entry['to_lsn']}"
            )
        for words in entry["wrong"]:
            click.echo(f"    {words}")
    for words in silent.values():
        click.echo(f"✗ {words}")


backup.add_command(verify)
backup.add_command(restore_database)
backup.add_command(restore_kubernetes)
