"""Bringing a lab up and taking it down: directories, databases, processes, in the order that each needs.

It uses the production agents and drivers; only endpoints differ. Whatever goes wrong on the way up, nothing is
left running, and a directory that it made is removed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import psycopg

from hmsdr.control import bootstrap
from hmsdr.control.unprivileged import choose
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab import binaries, servers
from hmsdr.lab.aws.seed import seed
from hmsdr.lab.layout import PUBLIC_NAME, ZONE, Layout
from hmsdr.lab.overlay import write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.lab.processes import Killed, lab_processes, sweep
from hmsdr.lab.tls import write_certificates
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load

Say = Callable[[str], None]
READY_SECONDS = 60.0
DOWN_SECONDS = 10.0
_PAUSE = 0.05
SCHEMA = """
CREATE TABLE IF NOT EXISTS patients (id uuid PRIMARY KEY, name text NOT NULL, created_at timestamptz DEFAULT now());
CREATE TABLE IF NOT EXISTS appointments (
    id uuid PRIMARY KEY, patient uuid REFERENCES patients, at timestamptz NOT NULL, created_at timestamptz DEFAULT now());
"""


def existing(directory: Path) -> Layout:
    """The lab in `directory`.

    Raises:
        RefusedError: there is none.
    """
    try:
        return Layout.load(directory.resolve())
    except FileNotFoundError:
        raise RefusedError(
            f"looking for a lab in {directory}", "there is none", "Start one with `hmsdr lab up`"
        ) from None


async def up(
    directory: Path, say: Say, *, address: str | None = None, ports: Mapping[str, int] | None = None
) -> Layout:
    """Bring a lab up in `directory` and return when both regions are ready.

    Raises:
        RefusedError: a lab is up there already, a port is taken, a server's program is missing.
        FailedError: a part did not come up; nothing is left behind.
    """
    directory = directory.resolve()
    binaries.require()
    if (directory / "lab.json").exists():
        found = Layout.load(directory)
        if lab_processes(found.lab_id, directory):
            raise RefusedError(
                f"bringing a lab up in {directory}",
                "one is up there already",
                "`hmsdr lab down` first, or use --dir",
            )
        shutil.rmtree(directory)
    elif directory.exists() and any(directory.iterdir()):
        raise RefusedError(
            f"bringing a lab up in {directory}",
            "the directory is not empty, and no lab",
            "Name another with --dir",
        )
    networks = claim_networks(directory, address)
    try:
        chosen = choose_ports(networks, ports or {})
        layout = lay_out(directory, secrets.token_hex(6), None, networks, chosen)
        directory.mkdir(parents=True, exist_ok=True)
        layout.save()
        try:
            await _build(layout, say)
        except BaseException:
            # What a thread was doing when we were interrupted ends by itself once its processes are dead; only
            # then can nothing be made behind our back.
            remove(layout)
            await asyncio.get_running_loop().shutdown_default_executor()
            remove(layout)
            raise
        return layout
    finally:
        networks.close()


def remove(layout: Layout) -> Killed:
    """Kill every process of the lab and remove its directory."""
    killed = sweep(layout.lab_id, layout.directory, seconds=DOWN_SECONDS)
    if not killed.survivors:
        shutil.rmtree(layout.directory, ignore_errors=True)
    return killed


async def _build(layout: Layout, say: Say) -> None:
    say("writing certificates, secrets and the playbook")
    (layout.directory / "tls").mkdir()
    hosts = [region.ingress_https.host for region in layout.regions.values()]
    await asyncio.to_thread(
        write_certificates, layout.directory / "tls", [ZONE, f"*.{ZONE}", PUBLIC_NAME], hosts
    )
    write_playbook(layout)
    playbook = load(layout.playbook)
    for server in servers.shared(layout):
        servers.start(layout, server)
    say("making the databases")
    await asyncio.to_thread(_make_databases, layout)
    store = await SqliteStore.open(
        layout.store, create=True, lease_seconds=playbook.database.lease.total_seconds()
    )
    home = playbook.regions[playbook.home_region].postgres.instance
    vacant = await store.read_authority()
    await store.swap_authority(vacant, bootstrap.first_grant(vacant, home))
    await store.close()
    say("starting both regions")
    for region in layout.regions:
        start_region(layout, region)
    await wait_until(lambda: _aws_answers(layout), "the lab's AWS", layout, say)
    await seed(layout)
    agent = AgentClient(playbook.regions[playbook.home_region].agent)
    try:
        await wait_until(lambda: _promoted(agent), f"the database of {playbook.home_region}", layout, say)
    finally:
        await agent.close()
    standby = AgentClient(playbook.regions[playbook.other_region(playbook.home_region)].agent)
    try:
        await wait_until(lambda: _streams(standby), "replication", layout, say)
    finally:
        await standby.close()
    say("making the first backup")
    await asyncio.to_thread(_first_backup, layout)


def start_region(layout: Layout, region: str) -> None:
    """Start every process of a region that does not run."""
    running = {process.command for process in lab_processes(layout.lab_id, layout.directory)}
    for server in servers.of_region(layout, region):
        if not any(_is(server, command) for command in running):
            servers.start(layout, server)


def _is(server: servers.Server, command: str) -> bool:
    if server.name == "redis":
        host, port = server.command[2], server.command[4]
        return command.startswith(f"{server.command[0]} {host}:{port}")
    return command == " ".join(server.command)


def _make_databases(layout: Layout) -> None:
    home, other = layout.regions.values()
    unprivileged = choose()

    def schema(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute(SCHEMA)
        connection.execute("CREATE ROLE hms_app LOGIN")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO hms_app")

    bootstrap.initialise(home.postgres_data, binaries.postgres_bin(), unprivileged, schema=schema, sync=False)
    bootstrap.clone(home.postgres_data, other.postgres_data, unprivileged)


def _first_backup(layout: Layout) -> None:
    """A base backup of the primary in the home region's bucket, and its copy in the other's."""
    from datetime import UTC, datetime  # noqa: PLC0415 - used here only

    from hmsdr.lab.aws.seed import client  # noqa: PLC0415

    home = next(iter(layout.regions.values()))
    target = layout.directory / "backup"
    done = subprocess.run(
        [
            binaries.postgres_bin() / "pg_basebackup", "-D", target, "-h", home.postgres.host,
            "-p", str(home.postgres.port), "-U", "postgres", "-Ft", "-z", "-X", "fetch", "--checkpoint=fast",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise FailedError(
            "making the first backup", done.stderr.strip(), "See the database's log in the lab's directory"
        )
    s3 = client(layout, "s3")
    key = f"databases/base_{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    for region in layout.regions:
        s3.upload_file(str(target / "base.tar.gz"), f"hms-backups-{region}", key)
    shutil.rmtree(target)


async def wait_until(holds: Callable[[], Awaitable[bool]], what: str, layout: Layout, say: Say) -> None:
    """Wait until `holds`, at most `READY_SECONDS`.

    Raises:
        FailedError: it does not; the ends of the logs are in the message.
    """
    say(f"waiting for {what}")
    loop = asyncio.get_running_loop()
    ends = loop.time() + READY_SECONDS
    while not await holds():
        if loop.time() > ends:
            ends_of_logs = "; ".join(
                f"{server.name} {server.region or ''}: {servers.tail(layout, server)}"
                for server in (
                    *servers.shared(layout),
                    *(s for r in layout.regions for s in servers.of_region(layout, r)),
                )
            )
            raise FailedError(f"bringing up {what}", f"not ready after {READY_SECONDS:g} s", ends_of_logs)
        await asyncio.sleep(_PAUSE)


async def _aws_answers(layout: Layout) -> bool:
    def ask() -> bool:
        try:
            for url in (f"http://{layout.aws}/__lab/healthz", f"http://{layout.moto}/moto-api/"):
                with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own loopback URLs
                    answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    return await asyncio.to_thread(ask)


async def _promoted(agent: AgentClient) -> bool:
    try:
        status = await agent.status(deadline=1)
        if status.database.state == "primary":
            return True
        if status.lease.held:
            await agent.promote(epoch=status.lease.epoch or 1, min_lsn=None, deadline=10)
    except DriverError:
        pass
    return False


async def _streams(agent: AgentClient) -> bool:
    try:
        status = await agent.status(deadline=1)
    except DriverError:
        return False
    return (
        status.database.state == "standby"
        and status.replication.streaming
        and bool(status.replication.measured_at)
    )


def working_directory() -> Path:
    """The default lab's directory."""
    return Path(os.environ.get("HMSDR_LAB", ".hmsdr/lab"))
