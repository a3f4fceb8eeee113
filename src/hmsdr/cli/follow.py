"""``hmsdr follow``: an old primary becomes the standby of the database that writes, by the runbook database-follow. A face only."""

from __future__ import annotations

from pathlib import Path

import click

from hmsdr.cli.common import find_playbook, playbook_option
from hmsdr.cli.launching import carry_out, dry_run_option, json_option
from hmsdr.errors import RefusedError
from hmsdr.runbook.launch import Overrides

_RUNBOOK = "database-follow"


@click.command()
@click.argument("region")
@click.option(
    "--without-lost-rows",
    "without",
    is_flag=True,
    help="Also when not every row that it loses is known; takes --reason and --by.",
)
@click.option("--reason", help="Why that may be; kept for good.")
@click.option("--by", help="Your name, for the record.")
@dry_run_option
@json_option
@playbook_option
def follow(
    region: str,
    without: bool,
    reason: str | None,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Make the database of REGION a standby of the one that has the right to write.

    What it committed alone is put into a file first (`hmsdr reconcile` shows it by counts), then it is rewound. Where rows cannot be
    told it stays as it is, and the run says why.
    """
    word = {}
    if without:
        if not (reason and reason.strip() and by and by.strip()):
            raise RefusedError(
                f"making {region} follow without its lost rows",
                "no --reason or no --by",
                "It takes a named person and a reason",
            )
        word = {"accepted-by": by, "accepted-because": reason}
    carry_out(
        find_playbook(playbook_path),
        {"region": region, **word},
        Overrides((), reason, by),
        runbook=_RUNBOOK,
        dry_run=dry_run,
        as_json=as_json,
    )
