"""Real servers for the hospital's tests: PostgreSQL, Redis, a name server with records to change, and pods."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import aiohttp
import dns.message
import psycopg

from hmsdr.control import bootstrap
from hmsdr.control.proctable import kill_database
from hmsdr.control.programs import postgres_bin
from hmsdr.control.unprivileged import choose
from hmsdr.lab.binaries import find
from hmsdr.lab.dns.answers import Answers, Record
from hmsdr.lab.hms import schema

_T = TypeVar("_T")
DATABASE_NAME = "postgres-primary.hms.system.svc.cluster.local"
REDIS_NAME = "redis-primary.hms.system.svc.cluster.local"


async def until(what: str, ask: Callable[[], Awaitable[_T | None]], seconds: float = 30.0) -> _T:
    """Ask until the answer is true; a connection that fails counts as not yet."""
    ends = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < ends:
        try:
            if found := await ask():
                return found
        except (OSError, psycopg.Error, aiohttp.ClientError, TimeoutError) as error:
            last = error
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what} (last: {last})")


def free_network() -> str:
    """The first three octets of a loopback network where nobody listens."""
    for _ in range(200):
        net = f"127.{random.randrange(150, 200)}.{random.randrange(1, 255)}"
        with socket.socket() as probe:
            try:
                probe.bind((f"{net}.253", 9))
            except OSError:
                continue
            return net
    raise AssertionError("no free network")


def make_template(directory: Path) -> Path:
    """A hospital's database, to copy from."""
    data = directory / "template"
    bootstrap.initialise(data, postgres_bin(), choose(), schema=schema.create, sync=False)
    return data


@dataclass
class Database:
    """One PostgreSQL server, made as a standby of nobody; `promote` makes it a primary."""

    template: Path
    directory: Path
    host: str
    instance: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def start(self, *, follow: Database | None = None) -> None:
        """Start it: on an empty directory as a copy of the template, or of `follow` while that is stopped."""
        if not self.data.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            bootstrap.clone(self.template, self.data, choose())
        options = {
            "listen_addresses": self.host, "port": "5432", "unix_socket_directories": "", "fsync": "off",
            "cluster_name": self.instance, "hot_standby": "on", "wal_level": "logical", "max_connections": "100",
            "track_commit_timestamp": "on", "shared_buffers": "16MB",
            "primary_conninfo": f"host={follow.host} user=postgres connect_timeout=2" if follow else "",
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = choose().command(postgres_bin() / "postgres", "-D", self.data, *arguments)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    async def answers(self) -> None:
        async def ask() -> bool:
            return await self.ask("SELECT true") is True

        await until(f"{self.instance} answers", ask)

    async def ask(self, query: str) -> object:
        async with await psycopg.AsyncConnection.connect(
            host=self.host, dbname="hms", user="postgres", autocommit=True, connect_timeout=2
        ) as connection:
            cursor = await connection.execute(query.encode())
            row = await cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    async def promote(self, epoch: int) -> float:
        """Promote it and record the epoch; gives the moment (monotonic) from which it took writes."""
        async with await psycopg.AsyncConnection.connect(
            host=self.host, dbname="hms", user="postgres", autocommit=True, connect_timeout=2
        ) as connection:
            await connection.execute("SELECT pg_promote(false)")
            while True:
                try:
                    await connection.execute(
                        "INSERT INTO hmsdr_epoch VALUES (%s, %s, clock_timestamp())", (epoch, self.instance)
                    )
                except psycopg.errors.ReadOnlySqlTransaction:
                    await asyncio.sleep(0.001)
                else:
                    return time.monotonic()

    def kill(self) -> None:
        """SIGKILL to all of it, backends too."""
        kill_database(str(self.data), 10)
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@dataclass
class RedisServer:
    host: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [find("redis-server"), "--bind", self.host, "--port", "6379", "--save", "", "--dir", self.directory,
             "--protected-mode", "no", *more],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def tell(self, *words: str) -> str:
        done = subprocess.run(
            [find("redis-cli"), "-h", self.host, *words],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        return done.stdout.strip()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


class NameServer(asyncio.DatagramProtocol):
    """The lab's answers over UDP, with records to be changed at will."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.records: dict[str, tuple[str, int]] = {}
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:5353"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, 5353))
        self._transport = cast("asyncio.DatagramTransport", transport)

    def point(self, name: str, address: str, ttl: int = 5) -> None:
        self.records[name] = (address, ttl)

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        records = [Record(f"{name}.", "A", ttl, (address,)) for name, (address, ttl) in self.records.items()]
        answers = Answers(records, ("hms.enterprise.com", "hms.system.svc.cluster.local"))
        assert self._transport is not None
        self._transport.sendto(answers.answer(dns.message.from_wire(data), 0.5).to_wire(), addr)


@dataclass
class Pod:
    """One service as a process, as the kubelet would start it."""

    service: str
    host: str
    directory: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{self.service}-{self.host}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hmsdr.lab.hms.service"],
                stdout=log, stderr=log, env={**os.environ, **self.environment},
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.directory / f"{self.service}-{self.host}.log").read_text()

    @property
    def url(self) -> str:
        return f"http://{self.host}:8080/{self.service}-service"

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(5)


@dataclass
class Hospital:
    """One region's servers on a loopback network of their own."""

    template: Path
    directory: Path
    net: str
    names: NameServer
    session: aiohttp.ClientSession
    databases: list[Database] = field(default_factory=list)
    caches: list[RedisServer] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)

    def database(self, number: int, instance: str) -> Database:
        made = Database(self.template, self.directory / f"pg{number}", f"{self.net}.{20 + number}", instance)
        self.databases.append(made)
        return made

    def cache(self, number: int) -> RedisServer:
        self.caches.append(RedisServer(f"{self.net}.{30 + number}", self.directory / f"redis{number}"))
        return self.caches[-1]

    async def primary(self) -> Database:
        """A primary under epoch 1, with its name."""
        made = self.database(0, "postgres-primary-0@us-east-1")
        made.start()
        await made.answers()
        await made.promote(1)
        self.names.point(DATABASE_NAME, made.host)
        return made

    async def redis(self) -> RedisServer:
        made = self.cache(0)
        made.start()
        self.names.point(REDIS_NAME, made.host)

        async def ponged() -> bool:
            return made.tell("PING") == "PONG"

        await until("redis answers", ponged)
        return made

    def pod(self, service: str, number: int = 0, **more: str) -> Pod:
        host = f"{self.net}.{100 + number}"
        environment = {
            "HMS_SERVICE": service, "HMS_REGION": "us-east-1", "POD_IP": host,
            "POD_NAME": f"{service}-service-{number}", "DATABASE_HOST": DATABASE_NAME, "DATABASE_PORT": "5432",
            "DATABASE_NAME": "hms", "DATABASE_USER": schema.ROLE, "REDIS_HOST": REDIS_NAME,
            "REDIS_PORT": "6379", "HMSDR_LAB_DNS": self.names.address, **more,
        }  # fmt: skip
        self.pods.append(Pod(service, host, self.directory / "pods", environment))
        self.pods[-1].start()
        return self.pods[-1]

    async def get(self, url: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(url) as answer:
            return answer.status, await answer.json()

    async def post(self, url: str, body: object) -> tuple[int, dict[str, Any]]:
        async with self.session.post(url, json=body) as answer:
            return answer.status, await answer.json()

    async def ready(self, pod: Pod) -> None:
        async def ask() -> bool:
            return (await self.get(f"http://{pod.host}:8080/ready"))[0] == 200

        try:
            await until(f"{pod.service} is ready", ask)
        except AssertionError:
            print(pod.log)  # noqa: T201
            raise

    async def close(self) -> None:
        for pod in self.pods:
            if pod.process is not None:
                pod.process.kill()
                pod.process.wait(10)
        for database in self.databases:
            database.kill()
        for cache in self.caches:
            cache.kill()
        self.names.stop()
        await self.session.close()
