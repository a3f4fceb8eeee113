"""Two regions' databases with their real agents, for tests: real PostgreSQL, real store, loopback addresses of their own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psycopg
import yaml

from hmsdr.control import bootstrap
from hmsdr.control.guard import GuardFile
from hmsdr.control.proctable import database_processes, kill_database
from hmsdr.control.programs import postgres_bin
from hmsdr.control.unprivileged import choose
from hmsdr.decide.authority import Authority, Holder, LeaseWaited, Receipt, grant, prove_fenced, revoke
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import AgentStatus, FenceAnswer
from hmsdr.drivers.errors import DriverError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

_T = TypeVar("_T")
EAST, WEST = "us-east-1", "us-west-2"
KEY = "a-key-for-tests"
MARK = "HMSDR_TEST_HOSPITAL"
_RUN = "from hmsdr.cli import main; main.COMMANDS.setdefault('agent', ('hmsdr.cli.agent:agent', '')); main.main()"


def make_template(directory: Path) -> Path:
    """A database with the agent's tables and one of the hospital's, to copy from."""
    data = directory / "template"

    def schema(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute("CREATE TABLE patients (id bigserial PRIMARY KEY, name text NOT NULL)")

    bootstrap.initialise(data, postgres_bin(), choose(), schema=schema, sync=False)
    return data


async def until(what: str, ask: Callable[[], Awaitable[_T | None]], seconds: float = 15.0) -> _T:
    """Ask until the answer is true; a driver's error counts as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if found := await ask():
                return found
        except (DriverError, psycopg.Error, OSError) as error:
            last = error
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what} (last: {last})")


@dataclass
class Region:
    name: str
    host: str
    directory: Path
    client: AgentClient
    playbook: Path
    identity: str
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def state(self) -> Path:
        return self.directory / "s"

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        return self.agents[-1]

    def command(self, *more: str) -> list[str]:
        return [
            sys.executable, "-c", _RUN, "agent", "--playbook", str(self.playbook), "--region", self.name,
            "--data-directory", str(self.data), "--state-directory", str(self.state), *more,
        ]  # fmt: skip

    def start(self, *more: str, stderr: int | None = None) -> None:
        """Start its agent; what it says goes to `stderr`, or else to its file."""
        with (self.directory / "agent.log").open("ab") as log:
            said = log.fileno() if stderr is None else stderr
            self.agents.append(
                subprocess.Popen(
                    self.command(*more), stdout=log, stderr=said, env={**os.environ, MARK: self.identity}
                )
            )

    def log(self) -> str:
        return (self.directory / "agent.log").read_text()

    def kill_agent(self) -> None:
        self.agent.kill()
        self.agent.wait()

    def processes(self) -> dict[int, int]:
        return database_processes(str(self.data))

    def postmaster(self) -> int:
        """Of the newest start. The server makes the file first, and writes into it a moment later."""
        ends = time.monotonic() + 5
        while True:
            with suppress(FileNotFoundError, ValueError):
                return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            assert time.monotonic() < ends, "no postmaster"
            time.sleep(0.005)

    def find(self, title: bytes) -> int | None:
        """A process of the database by its title; None while there is none."""
        for pid in self.processes():
            with suppress(FileNotFoundError):  # it ended meanwhile
                if title in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def guard(self) -> GuardFile:
        return GuardFile(str(self.state / "guard.map"))

    async def status(self) -> AgentStatus:
        return await self.client.status(deadline=5)

    async def wait_state(self, *states: str, seconds: float = 15.0) -> AgentStatus:
        async def ask() -> AgentStatus | None:
            status = await self.status()
            return status if status.database.state in states else None

        try:
            return await until(f"{self.name} {states}", ask, seconds)
        except AssertionError:
            print(self.log())  # noqa: T201
            raise

    async def connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(
            host=self.host, dbname="hms", user="postgres", autocommit=True, connect_timeout=3
        )

    async def ask(self, query: str) -> object:
        async with await self.connect() as connection:
            row = await (await connection.execute(query)).fetchone()
            return row[0] if row else None


@dataclass
class Hospital:
    directory: Path
    east: Region
    west: Region
    book: Playbook
    store: SqliteStore
    identity: str

    def holder(self, status: AgentStatus) -> Holder:
        return Holder(status.instance, status.incarnation)

    async def change(self, transition: Callable[[Authority], Authority]) -> Authority:
        for _ in range(50):
            record = await self.store.read_authority()
            new = transition(record)
            if await self.store.swap_authority(record, new):
                return new
        raise AssertionError("the record changed 50 times in a row")

    async def grant(self, region: Region) -> Authority:
        status = await region.status()
        return await self.change(lambda record: grant(record, self.holder(status)))

    async def revoke(self) -> Authority:
        record = await self.store.read_authority()
        return await self.change(lambda now: revoke(now, record.epoch))

    async def prove(self, receipt: FenceAnswer, handover_to: str | None = None) -> Authority:
        proof = Receipt(
            receipt.instance,
            receipt.incarnation,
            receipt.epoch,
            receipt.last_lsn,
            receipt.clean,
            receipt.survivors,
        )
        return await self.change(lambda now: prove_fenced(now, proof, handover_to=handover_to))

    async def prove_waited(self, epoch: int, seconds: float) -> Authority:
        waited = LeaseWaited(epoch, seconds, self.book.database.drift_margin)
        return await self.change(lambda now: prove_fenced(now, waited))

    async def east_is_primary(self, *more: str) -> None:
        """Both agents up, east promoted under epoch 1, west streaming from it."""
        self.east.start(*more)
        self.west.start(*more)
        await asyncio.gather(self.east.wait_state("standby"), self.west.wait_state("standby"))
        await self.grant(self.east)
        await self.east.client.promote(epoch=1, min_lsn=None, deadline=20)

        async def streaming() -> bool:
            return (await self.west.status()).replication.streaming

        try:
            await until("west streams", streaming)
        except AssertionError as error:
            ended = [agent.poll() for agent in self.west.agents]
            raise AssertionError(
                f"{error}; agents ended with {ended}; log: {self.west.log()[-3000:]}"
            ) from None

    async def close(self) -> None:
        for region in (self.east, self.west):
            await region.client.close()
            for agent in region.agents:
                with suppress(ProcessLookupError):
                    agent.kill()
                agent.wait()
            kill_database(str(region.data), 10)
        await self.store.close()
        for entry in Path("/proc").iterdir():  # guards: they leave by themselves, but not at once
            with suppress(OSError, ValueError):
                if f"{MARK}={self.identity}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)


Open = Callable[..., Awaitable[Hospital]]
"""Opens a hospital; `lease` is its playbook's."""


def free_network() -> str:
    """The first three octets of a loopback network where nobody listens."""
    for _ in range(200):
        # Labs have 127.64 to 127.127.
        net = f"127.{random.randrange(140, 150)}.{random.randrange(1, 255)}"
        with socket.socket() as probe:
            try:
                probe.bind((f"{net}.250", 5432))
            except OSError:
                continue
            return net
    raise AssertionError("no free network")


async def open_hospital(
    directory: Path, template: Path, *, lease: str = "30s", check_every: str = "6h"
) -> Hospital:
    """Both databases as copies of `template`, a vacant store, a playbook; nothing is started."""
    net, identity = free_network(), f"{os.getpid()}-{random.randrange(1 << 30)}"
    hosts = {EAST: f"{net}.1", WEST: f"{net}.2"}
    overlay = {
        "extends": "hms",
        "database": {"lease": lease, "integrity": {"every": check_every}},
        "store": {"path": "store.db"},
        "backups": {"archive_wal": False},
        "regions": {
            name: {
                "postgres": {"host": host, "service_host": host, "password": None},
                "agent": {"url": f"http://{host}:8300", "key": "${file:agent.key}"},
            }
            for name, host in hosts.items()
        },
    }
    path = directory / "playbook.yaml"
    (directory / "agent.key").write_text(KEY)
    path.write_text(yaml.safe_dump(overlay))
    book = load(path)
    regions = {}
    for name, host in hosts.items():
        place = directory / name
        place.mkdir()
        bootstrap.clone(template, place / "data", choose())
        client = AgentClient(book.regions[name].agent)
        regions[name] = Region(name, host, place, client, path, identity)
    store = await SqliteStore.open(
        directory / "store.db", create=True, lease_seconds=book.database.lease.total_seconds()
    )
    return Hospital(directory, regions[EAST], regions[WEST], book, store, identity)
