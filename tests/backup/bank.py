"""Two servers that archive into two buckets, without a lab: real PostgreSQL, real Barman, S3 as moto serves it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg
import yaml
from hospital import EAST, WEST, free_network, until

from hmsdr.backup.make import Made, Maker
from hmsdr.backup.vault import Vault
from hmsdr.backup.verify import Verdict, Verifier
from hmsdr.control import archive, bootstrap, pgconf
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.state import Upstream
from hmsdr.control.unprivileged import choose
from hmsdr.decide.backups import BackupRecord, StoredFile, record_text
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

Shelves = dict[tuple[str, str], bytes]
"""Bucket and key to content."""
Opened = Callable[..., Awaitable["Bank"]]
"""Opens a bank; what it is given goes into the playbook's `backups`."""


def client(endpoint: str) -> Any:
    return boto3.session.Session().client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def write_playbook(directory: Path, endpoint: str, net: str, **policy: object) -> Path:
    mark = f"{random.randrange(1 << 40):x}"
    buckets = {EAST: f"hms-east-{mark}", WEST: f"hms-west-{mark}"}
    for bucket in buckets.values():
        client(endpoint).create_bucket(Bucket=bucket)
    (directory / "key").write_text("test")
    overlay = {
        "extends": "hms",
        "store": {"path": "store.db"},
        "aws": {
            "endpoint_url": endpoint,
            "access_key_id": "${file:key}",
            "secret_access_key": "${file:key}",
        },
        "backups": {"wal_late": "90s", "wal_every": "30s", "compression": "none", **policy},
        "regions": {
            name: {
                "postgres": {"host": host, "service_host": host, "password": None},
                "agent": {"url": f"http://{host}:8300", "key": "${file:key}"},
                "backups": {"bucket": buckets[name], "copy_bucket": buckets[EAST if name == WEST else WEST]},
            }
            for name, host in ((EAST, f"{net}.1"), (WEST, f"{net}.2"))
        },
    }
    path = directory / "playbook.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return path


@dataclass
class Bank:
    """The primary in the east, its standby in the west; both archive."""

    directory: Path
    path: Path
    playbook: Playbook
    endpoint: str
    servers: dict[str, PostgresServer]
    objects: ObjectStore
    said: list[str] = field(default_factory=list)

    @property
    def east(self) -> PostgresServer:
        return self.servers[EAST]

    def bucket(self, region: str) -> str:
        return self.playbook.regions[region].backups.bucket

    def vault(self) -> Vault:
        return Vault(self.objects, self.playbook, EAST)

    async def start(self, region: str, *, writable: bool, follow: bool = True) -> None:
        instance, server = self.playbook.regions[region].postgres, self.servers[region]
        other = self.playbook.regions[self.playbook.other_region(region)].postgres
        state = self.directory / region
        command = archive.prepare(archive.of_region(self.playbook, region), state, server.unprivileged)
        upstream = Upstream(other.host, other.port, instance.slot) if follow and not writable else None
        chosen = pgconf.settings(
            instance,
            listen=instance.host,
            sockets=None,
            upstream=upstream,
            archive_command=command,
            archive_every=60,
        )
        await server.start(writable=writable, settings=chosen, deadline=60)

    async def both(self) -> None:
        await self.start(EAST, writable=True)
        await self.sql("SELECT pg_create_physical_replication_slot('us_west_2_slot', true)")
        await self.start(WEST, writable=False)
        await until("the standby streams", self._streams, 60)

    async def _streams(self) -> bool:
        return (await Postgres(self.playbook.regions[WEST].postgres).lag(deadline=5)).streaming

    async def sql(self, query: str, region: str = EAST) -> Any:
        instance = self.playbook.regions[region].postgres
        async with await psycopg.AsyncConnection.connect(
            host=instance.host, dbname="hms", user="postgres", autocommit=True, connect_timeout=5
        ) as connection:
            cursor = await connection.execute(query.encode())
            row = await cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    async def admit(self, count: int = 100, region: str = EAST) -> int:
        """So many patients more; gives the LSN (bytes of WAL) at which they are all there."""
        await self.sql(
            f"INSERT INTO patients (name) SELECT 'p' || n FROM generate_series(1, {count}) n", region
        )
        return int(await self.sql("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint", region))

    async def archived(self) -> None:
        """What was written until now is in both buckets."""
        name = str(await self.sql("SELECT pg_walfile_name(pg_switch_wal())"))

        async def there() -> bool:
            shelves, _ = await self.vault().shelves()
            return all(name in shelf.wal for shelf in shelves)

        await until(f"{name} is archived", there, 120)

    async def back_up(self) -> Made:
        maker = Maker(self.playbook, EAST, self.objects, self.east, self.said.append)
        return await maker.run()

    def verifier(
        self, place: str = "scratch", playbook: Playbook | None = None, region: str = EAST
    ) -> Verifier:
        return Verifier(
            playbook or self.playbook,
            region,
            self.objects,
            self.east.beside(Path("/nowhere")),
            self.directory / place,
            self.said.append,
        )

    def hmsdr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hmsdr", *arguments, "--playbook", str(self.path)],
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    def read(self) -> Shelves:
        """Everything in both buckets."""
        s3, found = client(self.endpoint), {}
        for region in (EAST, WEST):
            bucket = self.bucket(region)
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", []):
                    body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                    found[bucket, item["Key"]] = body
        return found

    def write(self, shelves: Shelves) -> None:
        """Both buckets hold exactly this."""
        s3, now = client(self.endpoint), self.read()
        for place in now.keys() - shelves.keys():
            s3.delete_object(Bucket=place[0], Key=place[1])
        for place, content in shelves.items():
            if now.get(place) != content:
                s3.put_object(Bucket=place[0], Key=place[1], Body=content)

    def age(self, record: BackupRecord, days: int) -> None:
        """Have a backup been made so many days earlier: by its record, and by Barman's own note."""
        back = timedelta(days=days)
        old = replace(record, began=record.began - back, ended=record.ended - back)
        shelves = self.read()
        for bucket, key in list(shelves):
            if key.endswith(f"/{record.name}"):
                shelves[bucket, key] = record_text(old).encode()
            elif key.endswith(f"/{record.id}/backup.info"):
                note = shelves[bucket, key].decode()
                for field_, moment in (("begin_time", old.began), ("end_time", old.ended)):
                    note = re.sub(rf"(?m)^{field_}=.*$", f"{field_}={moment.isoformat(sep=' ')}", note)
                shelves[bucket, key] = note.encode()
                size, digest = len(note.encode()), hashlib.sha256(note.encode()).hexdigest()
                files = [
                    StoredFile(each.key, size, digest) if each.key.endswith("backup.info") else each
                    for each in old.files
                ]
                old = replace(old, files=tuple(files))
        for bucket, key in list(shelves):
            if key.endswith(f"/{record.name}"):
                shelves[bucket, key] = record_text(old).encode()
        self.write(shelves)

    @contextmanager
    def spoilt(self, spoil: Callable[[Shelves], None]) -> Iterator[None]:
        """The buckets after `spoil` had its way with them, and mended afterwards."""
        before = self.read()
        changed = dict(before)
        spoil(changed)
        assert changed != before, "nothing was spoilt"
        self.write(changed)
        try:
            yield
        finally:
            self.write(before)

    async def close(self) -> None:
        for server in self.servers.values():
            await server.kill(10)
        await self.objects.close()


async def open_bank(directory: Path, template: Path, endpoint: str, **policy: object) -> Bank:
    """Nothing runs yet."""
    net = await asyncio.to_thread(free_network)
    path = write_playbook(directory, endpoint, net, **policy)
    playbook, unprivileged = load(path), choose()
    servers = {}
    for name in (EAST, WEST):
        place = directory / name
        place.mkdir()
        bootstrap.clone(template, place / "data", unprivileged)
        servers[name] = PostgresServer(place / "data", postgres_bin(), unprivileged, place / "postgres.log")
    return Bank(directory, path, playbook, endpoint, servers, ObjectStore(playbook.aws))


async def tried(verifier: Verifier, *arguments: Any, **named: Any) -> Verdict:
    """A verdict, with its words at hand when a test fails."""
    verdict = await verifier.run(*arguments, **named)
    print([f"{each.kind}: {each.words}" for each in verdict.findings], verdict)  # noqa: T201
    return verdict
