"""``hmsdr agent``: run the agent beside a region's database until SIGTERM. A face only."""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import click

from hmsdr.backup.staging import Staging
from hmsdr.cli.common import find_playbook
from hmsdr.cli.serving import address, serving, stop_on_signals
from hmsdr.control import programs
from hmsdr.control.agent import Agent
from hmsdr.control.api import application
from hmsdr.control.config import AgentConfig, OnCrash, from_playbook
from hmsdr.control.locks import lock_directories
from hmsdr.control.logs import take_over_libraries
from hmsdr.control.server import PostgresServer
from hmsdr.control.surroundings import Surroundings
from hmsdr.control.unprivileged import choose
from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook


@click.command()
@click.option("--playbook", "playbook_path", type=click.Path(path_type=Path), help="Playbook file.")
@click.option("--region", required=True, help="Region whose database it keeps.")
@click.option("--data-directory", type=click.Path(path_type=Path), help="PostgreSQL's data directory.")
@click.option(
    "--state-directory", type=click.Path(path_type=Path), required=True, help="What it must not forget."
)
@click.option("--run-as", help="User for PostgreSQL when started as root where user namespaces do not work.")
@click.option("--postgres-bin", type=click.Path(path_type=Path), help="Directory with PostgreSQL's programs.")
@click.option("--guard-command", default="", help="How to start the guard instead of the built-in one.")
@click.option(
    "--listen",
    "where",
    default="",
    help="HOST:PORT to serve on; default: the host and port of the agent's URL.",
)
@click.option(
    "--certificate", type=click.Path(path_type=Path), help="TLS certificate, with --certificate-key."
)
@click.option("--certificate-key", type=click.Path(path_type=Path), help="Key of --certificate.")
@click.option(
    "--on-crash",
    type=click.Choice([str(choice) for choice in OnCrash]),
    default=str(OnCrash.RESTART),
    envvar="HMSDR_AGENT_ON_CRASH",
    show_envvar=True,
    show_default=True,
    help="When the primary dies by itself: start it again at once, or hold it stopped for a failover.",
)
def agent(
    playbook_path: Path | None,
    region: str,
    data_directory: Path | None,
    state_directory: Path,
    run_as: str | None,
    postgres_bin: Path | None,
    guard_command: str,
    where: str,
    certificate: Path | None,
    certificate_key: Path | None,
    on_crash: str,
) -> None:
    """Keep a region's database: start it, renew its right to write, promote it, fence it."""
    found = find_playbook(playbook_path)
    playbook = load(found)
    if data_directory is None and region in playbook.regions:
        data_directory = Path(playbook.regions[region].postgres.data_directory)
    config = from_playbook(
        playbook,
        region,
        data_directory=data_directory or Path(),
        state_directory=state_directory,
        on_crash=OnCrash(on_crash),
        guard_command=tuple(shlex.split(guard_command)),
    )
    host, port = address(where or urlsplit(playbook.regions[region].agent.url).netloc, "the agent")
    tls = _tls(certificate, certificate_key)
    locks = lock_directories(config.data_directory, config.state_directory)
    try:
        asyncio.run(
            _serve(playbook, config, postgres_bin or programs.postgres_bin(), run_as, host, port, tls)
        )
    finally:
        for descriptor in locks:
            os.close(descriptor)


async def _serve(
    playbook: Playbook,
    config: AgentConfig,
    programs: Path,
    run_as: str | None,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
) -> None:
    take_over_libraries()
    stop = stop_on_signals()
    unprivileged = choose(run_as)
    unprivileged.own(config.state_directory)
    store = await open_store(playbook, site=config.region, patient=True)
    try:
        server = PostgresServer(
            config.data_directory, programs, unprivileged, config.state_directory / "postgres.log"
        )
        around = Surroundings(config, Staging(playbook, config.region))
        keeper = Agent(config, store, server, store, around)
        async with serving(application(keeper), host, port, tls, "the agent"):
            await keeper.run(stop)
    finally:
        await store.close()


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise RefusedError(
            "starting the agent", f"{certificate}: {error}", "Give a certificate and its key"
        ) from error
    return context
