"""``hmsdr incident publish``: the status page now, to its buckets or into a directory. A face only."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hmsdr.cli.common import playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.errors import FailedError, RefusedError
from hmsdr.incident.publisher import Publisher

_DOING = "publishing the status page"


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only write the files into this directory.",
)
@json_option
@playbook_option
def publish(out: Path | None, as_json: bool, playbook_path: Path | None) -> None:
    """Write the status page, its feeds and the banner as they are now; `keep` does it by itself.

    Exit status 1: some bucket did not take it, and it says which.
    """
    found = run_async(_published(playbook_path, out))
    failed = {where: trouble for where, trouble in found.items() if trouble}
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(f"{where}: {trouble or 'written'}" for where, trouble in found.items()))
    if failed:
        told = f"{len(failed)} of {len(found)} buckets did not take it"
        raise FailedError(_DOING, told, "`hmsdr incident keep` goes on trying; the public reads the others")


async def _published(path: Path | None, out: Path | None) -> dict[str, str]:
    async with desk_of(path) as (playbook, _, desk):
        page = playbook.status_page
        if page is None:
            raise RefusedError(_DOING, "the playbook has no status_page", "Name its url and buckets there")
        publisher = Publisher(playbook, page, desk)
        try:
            if out is None:
                return await publisher.publish()
            made = await publisher.files()
        finally:
            await publisher.close()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for each in made:
            (out / each.name).write_bytes(each.content)
    except OSError as error:
        raise RefusedError(
            _DOING, f"{out}: {error.strerror or error}", "Name a directory to write to"
        ) from error
    return {str(out / each.name): "" for each in made}
