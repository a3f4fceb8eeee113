"""``hmsdr store init``: create the event log and a vacant write authority. A face only."""

from __future__ import annotations

from pathlib import Path

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook


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
    existed = await _exists(playbook)
    opened = await open_store(playbook, create=True)
    authority = await opened.read_authority()
    await opened.close()
    etcd = playbook.store.etcd
    where = playbook.store.path if etcd is None else f"{etcd.prefix} in etcd"
    click.echo(
        f"{where}: {'was there already' if existed else 'created'}; epoch {authority.epoch}, {authority.phase}"
    )


async def _exists(playbook: Playbook) -> bool:
    if playbook.store.kind == "sqlite":
        return Path(playbook.store.path).exists()
    try:
        await (await open_store(playbook)).close()
    except RefusedError:
        return False
    return True
