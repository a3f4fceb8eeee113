"""``hmsdr store init``: create the event log and a vacant write authority. A face only."""

from __future__ import annotations

from pathlib import Path

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async, store_path
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load


@click.group()
def store() -> None:
    """Create the event log and the write authority."""


@store.command()
@playbook_option
def init(playbook_path: Path | None) -> None:
    """Create the store that the playbook names; one that exists is left as it is."""
    run_async(_init(playbook_path))


async def _init(playbook_path: Path | None) -> None:
    found = find_playbook(playbook_path)
    playbook = load(found)
    path = store_path(playbook, found)
    existed = path.exists()
    opened = await SqliteStore.open(path, create=True, lease_seconds=playbook.database.lease.total_seconds())
    authority = await opened.read_authority()
    await opened.close()
    click.echo(
        f"{path}: {'was there already' if existed else 'created'}; epoch {authority.epoch}, {authority.phase}"
    )
