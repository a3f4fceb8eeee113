"""``hmsdr incident evidence``: what the log has and every system shows, as a folder with hashes. A face only."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hmsdr.cli.common import by_option, playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.incident.evidence import Gathered, gather


@click.command()
@click.argument("name", metavar="INCIDENT")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the folder is made. Default: `evidence` beside the store.",
)
@by_option
@json_option
@playbook_option
def evidence(name: str, out: Path | None, by: str, as_json: bool, playbook_path: Path | None) -> None:
    """Gather evidence of INCIDENT into a new folder, and note it: that ticks the checklist's item.

    What does not answer is in the manifest, with what was found.
    """

    async def done() -> Gathered:
        async with desk_of(playbook_path) as (playbook, store, desk):
            below = Path(playbook.store.path).parent / "evidence" if out is None else out
            found = await gather(desk, store, playbook, name, below)
            await desk.note(name, by, found.words, "evidence")
            return found

    found = run_async(done())
    if as_json:
        told = {
            "directory": str(found.directory),
            "sha256": dict(found.files),
            "missing": dict(found.missing),
        }
        click.echo(json.dumps(told))
        return
    click.echo(f"{found.directory}: {len(found.files)} files, the hashes are in manifest.json")
    for file, trouble in found.missing.items():
        click.echo(f"  ! {file}: {trouble}")
