"""``hmsdr backup verify`` and ``hmsdr backup restore-database``: a backup is tried out, or brought back. A face only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hmsdr.cli.backup_shared import (
    here_option,
    programs_options,
    refuse_region,
    region_option,
    saying,
    target_options,
    the_objects,
    the_playbook,
    the_region,
    the_server,
    the_target,
)
from hmsdr.cli.common import playbook_option, run_async
from hmsdr.decide.backups import backup_id
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import ExitStatus
from hmsdr.playbook.model import Playbook

if TYPE_CHECKING:
    from hmsdr.backup.fetch import Target
    from hmsdr.backup.verify import Verdict
    from hmsdr.control.server import PostgresServer

_SCRATCH = Path("/var/tmp/hmsdr-verify")  # noqa: S108 - a directory of our own, entered by us alone


@click.command()
@click.option("--backup", "wanted", help="Its id; default: the newest that leads to the target.")
@target_options
@region_option
@programs_options
@click.option(
    "--scratch", type=click.Path(path_type=Path), default=_SCRATCH, show_default=True,
    help="Directory for the scratch server, emptied before and after.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def verify(
    playbook_path: Path | None,
    wanted: str | None,
    target_time: str | None,
    target_lsn: str | None,
    region: str | None,
    postgres_bin: Path | None,
    run_as: str | None,
    scratch: Path,
    as_json: bool,
) -> None:
    """Restore a backup into a scratch server, check it, compare it with the running database at one LSN.

    Exit status 0: it restores. 1: something is wrong. 2: it could not be tried as asked.
    """
    target = the_target(target_time, target_lsn)
    status = run_async(
        _verify(the_playbook(playbook_path), target, wanted, region, the_server(Path(), postgres_bin, run_as), scratch,
                as_json=as_json)
    )  # fmt: skip
    click.get_current_context().exit(status)


async def _verify(
    playbook: Playbook,
    target: Target,
    wanted: str | None,
    region: str | None,
    server: PostgresServer,
    scratch: Path,
    *,
    as_json: bool,
) -> int:
    from hmsdr.backup.place import owned_place  # noqa: PLC0415
    from hmsdr.backup.verify import Verifier  # noqa: PLC0415

    where = await the_region(playbook, region, known=target.lsn is not None or target.time is not None)
    with owned_place(scratch, playbook.backups.server) as place:
        async with the_objects(playbook) as objects:
            verifier = Verifier(playbook, where, objects, server, place, saying(quiet=as_json))
            verdict = await verifier.run(target, wanted=None if wanted is None else backup_id(wanted))
    if as_json:
        click.echo(json.dumps(_as_json(verdict)))
    else:
        _tell(verdict)
    return ExitStatus.FAILED if verdict.findings else ExitStatus.DONE


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "region": verdict.region,
        "backup": verdict.backup,
        "bucket": verdict.bucket,
        "lsn": None if verdict.lsn is None else format_lsn(verdict.lsn),
        "wal_files": verdict.wal_files,
        "compared": verdict.compared,
        "not_compared": verdict.not_compared,
        "tables": verdict.tables,
        "seconds": verdict.seconds,
        "restore_seconds": None if verdict.tonight is None else verdict.tonight.total_seconds(),
        "restore_seconds_at_worst": None if verdict.at_worst is None else verdict.at_worst.total_seconds(),
        "archive_seconds": verdict.archive_seconds,
        "findings": [
            {"kind": each.kind, "words": each.words, "remedy": each.remedy} for each in verdict.findings
        ],
    }


def _tell(verdict: Verdict) -> None:
    if verdict.lsn is not None:
        click.echo(
            f"backup {verdict.backup} from {verdict.bucket}, replayed over {verdict.wal_files} files of WAL to "
            f"{format_lsn(verdict.lsn)}"
        )
    if verdict.compared:
        rows = sum(verdict.tables.values())
        click.echo(f"equal to the running database there: {len(verdict.tables)} tables, {rows} rows")
    elif verdict.not_compared:
        click.echo(f"not compared with the running database: {verdict.not_compared}")
    if verdict.archive_seconds is not None:
        click.echo(f"what is written now is in the archive after {verdict.archive_seconds:.1f} s")
    if verdict.tonight is not None and verdict.at_worst is not None:
        now, worst = verdict.tonight.total_seconds(), verdict.at_worst.total_seconds()
        click.echo(
            f"a restore tonight would take {now:.0f} s; just before the next base backup {worst:.0f} s"
        )
    for each in verdict.findings:
        click.echo(f"✗ {each.kind}: {each.words}. {each.remedy}")
    if not verdict.findings:
        click.echo("✓ it restores")


@click.command("restore-database")
@click.argument("wanted", metavar="[BACKUP]", required=False)
@here_option
@click.option("--data-directory", type=click.Path(path_type=Path), help="Default: the playbook's.")
@click.option("--into", type=click.Path(path_type=Path), help="Leave what is there alone; restore to here.")
@target_options
@programs_options
@playbook_option
def restore_database(
    playbook_path: Path | None,
    wanted: str | None,
    region: str | None,
    data_directory: Path | None,
    into: Path | None,
    target_time: str | None,
    target_lsn: str | None,
    postgres_bin: Path | None,
    run_as: str | None,
) -> None:
    """Restore BACKUP (default: the newest) into the place of the region's database, as a standby.

    It is restored beside it, replayed and checked; only then do they change places, and the old one is kept. The agent must be
    stopped. With a target, or to look first: --into DIRECTORY.
    """
    target = the_target(target_time, target_lsn)
    playbook = the_playbook(playbook_path)
    region = region or playbook.home_region
    refuse_region(playbook, region)
    data = data_directory or Path(playbook.regions[region].postgres.data_directory)
    run_async(_restore(playbook, region, wanted, target, the_server(data, postgres_bin, run_as), into))


async def _restore(
    playbook: Playbook,
    region: str,
    wanted: str | None,
    target: Target,
    server: PostgresServer,
    into: Path | None,
) -> None:
    from hmsdr.backup.restore import Restorer  # noqa: PLC0415

    async with the_objects(playbook) as objects:
        restorer = Restorer(playbook, region, objects, server, saying(quiet=False))
        done = await restorer.run(target, wanted=None if wanted is None else backup_id(wanted), into=into)
    click.echo(
        f"backup {done.backup} from {done.bucket} is in {done.directory}, at {format_lsn(done.lsn)}, in {done.seconds:.1f} s"
    )
    if done.replaced is not None:
        click.echo(f"what was there is in {done.replaced}; remove it when nobody needs it")
    click.echo("Start the agent: it makes a standby of it.")
