"""``hmsdr controller``: run the controller of a site until SIGTERM. A face only."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from hmsdr.cli.common import find_playbook, playbook_option
from hmsdr.cli.serving import address, serving, stop_on_signals
from hmsdr.control.controller import Controller
from hmsdr.control.locks import lock_directory
from hmsdr.control.logs import take_over_libraries
from hmsdr.control.site_api import site_application
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook


@click.command()
@playbook_option
@click.option("--site", required=True, help="A region's name, or the witness's.")
@click.option(
    "--state-directory",
    type=click.Path(path_type=Path),
    help="Where the local copy of the log is; default: the directory of the playbook's store.path.",
)
@click.option(
    "--listen", "where", default="", help="HOST:PORT to serve on; default: those of the controller's URL."
)
def controller(playbook_path: Path | None, site: str, state_directory: Path | None, where: str) -> None:
    """Watch both regions from SITE, vote, and fail over when this controller leads."""
    playbook = load(find_playbook(playbook_path))
    _check(playbook, site)
    endpoint = playbook.controller(site)
    host, port = address(
        where or ("" if endpoint is None else urlsplit(endpoint.url).netloc), "the controller"
    )
    copy = Path(playbook.store.path)
    if state_directory is not None:
        copy = state_directory.resolve() / copy.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_directory(copy.parent, "controller")
    try:
        asyncio.run(_serve(playbook, site, copy, host, port))
    finally:
        os.close(lock)


def _check(playbook: Playbook, site: str) -> None:
    if site not in playbook.sites():
        raise RefusedError(
            f"starting the controller of {site!r}",
            "the playbook has no such site",
            nearest(site, playbook.sites()) or f"Known: {', '.join(playbook.sites())}",
        )
    if playbook.store.kind != "etcd":
        raise RefusedError(
            f"starting the controller of {site}",
            f"the store is {playbook.store.kind}, on one machine",
            "Controllers stand on three sites and need a store that does: `store.kind: etcd`, see docs/etcd.md",
        )


async def _serve(playbook: Playbook, site: str, copy: Path, host: str, port: int) -> None:
    take_over_libraries()
    stop = stop_on_signals()
    store = await open_store(playbook, site=site, patient=True)
    try:
        lease = playbook.database.lease.total_seconds()
        local = await SqliteStore.open(copy, create=True, lease_seconds=lease)
        own = await SqliteStore.open(copy.with_name("alerts.db"), create=True, lease_seconds=lease)
        try:
            keeper = Controller(playbook, site, store, local, own)
            async with serving(site_application(keeper), host, port, None, "the controller"):
                await keeper.run(stop)
        finally:
            await own.close()
            await local.close()
    finally:
        await store.close()
