"""A Patroni cluster of two on one etcd member, as its documentation sets it up: what the planned switchover is measured beside.

Real Patroni (dependency group ``bench``), the lab's own PostgreSQL, loopback, settings of the server as ours. Its own timings are
its defaults (ttl 30, loop_wait 10).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hmsdr.control import programs
from hmsdr.control.unprivileged import Unprivileged, choose
from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab import binaries
from hmsdr.lab.layout import LAB_ENV, Endpoint
from hmsdr.lab.processes import DIE_WITH_PARENT, sweep

NODES = ("a", "b")
_HOST = "127.0.0.1"
_UP_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_ASK_SECONDS = 1.0
PARAMETERS = {
    "wal_level": "logical",
    "wal_log_hints": "on",
    "track_commit_timestamp": "on",
    "synchronous_commit": "on",
    "checkpoint_timeout": "1min",
    "wal_receiver_status_interval": "1s",
    "max_connections": "200",
}
"""What an agent of ours gives its server, as far as Patroni lets it be chosen."""


class PatroniCluster:
    """Two nodes and an etcd member below `place`. ``a`` leads first."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._name = f"hmsdr-bench-{place.name}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._unprivileged: Unprivileged = choose("nobody" if os.geteuid() == 0 else None)
        ports = free_ports(2 + 2 * len(NODES))
        self._etcd, self._etcd_peer = ports[:2]
        self._rest = dict(zip(NODES, ports[2:4], strict=True))
        self.postgres = {name: Endpoint(_HOST, port) for name, port in zip(NODES, ports[4:], strict=True)}

    async def up(self) -> None:
        """Start it; returns when ``a`` leads and ``b`` streams.

        Raises:
            RefusedError: a program is missing.
            FailedError: it does not come up.
        """
        etcd = binaries.find("etcd")
        program = _program("patroni")
        self._place.mkdir(parents=True)
        here, peer = f"http://{_HOST}:{self._etcd}", f"http://{_HOST}:{self._etcd_peer}"
        self._start(
            "etcd", [
                str(etcd), "--name", "bench", "--data-dir", str(self._place / "etcd"),
                "--listen-client-urls", here, "--advertise-client-urls", here,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"bench={peer}", "--log-level", "warn", "--logger", "zap",
            ],
        )  # fmt: skip
        ends = time.monotonic() + _UP_SECONDS
        await self._until(lambda: _get(f"{here}/health") is not None, ends, "etcd answers")
        for name in NODES:
            directory = self._place / name
            directory.mkdir(mode=0o700)
            self._config(name).write_text(yaml.safe_dump(self._settings(name)))
            self._unprivileged.own(directory)
            run = self._unprivileged.command(program, self._config(name))
            self._start(name, [sys.executable, "-m", "bench.reaping", *run])
            await self._until(lambda name=name: self.leads(name) or self.streams(name), ends, f"{name} is up")

    async def switch(self, source: str, target: str) -> None:
        """`patronictl switchover`; returns when it does.

        Raises:
            FailedError: it did not succeed.
        """
        command = [
            _program("patronictl"), "-c", self._config(source), "switchover", "bench",
            "--leader", source, "--candidate", target, "--force",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(_UP_SECONDS):
            output, _ = await process.communicate()
        if process.returncode or b"Successfully" not in output:
            raise FailedError(
                "patronictl switchover", output.decode(errors="replace").strip()[-300:], "See its logs"
            )

    async def settled(self, leader: str) -> None:
        """Until `leader` leads and the other one streams from it again.

        Raises:
            FailedError: not within the deadline.
        """
        (other,) = (name for name in NODES if name != leader)
        ends = time.monotonic() + _UP_SECONDS
        await self._until(lambda: self.leads(leader) and self.streams(other), ends, f"{other} streams")

    def leads(self, name: str) -> bool:
        """Whether the node says that it leads."""
        status = self._status(name)
        return (
            status is not None
            and status.get("role") in ("primary", "master")
            and bool(status.get("state") == "running")
        )

    def streams(self, name: str) -> bool:
        """Whether the node says that it streams from the leader."""
        status = self._status(name)
        return status is not None and status.get("replication_state") == "streaming"

    async def down(self) -> None:
        """Stop all of it, and remove its directory."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                await asyncio.to_thread(process.wait, _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        await asyncio.to_thread(sweep, self._name, self._place, seconds=_STOP_SECONDS)
        shutil.rmtree(self._place, ignore_errors=True)

    def _status(self, name: str) -> Mapping[str, Any] | None:
        return _get(f"http://{_HOST}:{self._rest[name]}/patroni")

    def _config(self, name: str) -> Path:
        return self._place / name / "patroni.yml"

    def _start(self, name: str, command: list[str]) -> None:
        with (self._place / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [*DIE_WITH_PARENT, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, LAB_ENV: self._name},
                )
            )

    async def _until(self, holds: Any, ends: float, what: str) -> None:
        while not await asyncio.to_thread(holds):
            ended = [each for each in self._processes if each.poll() is not None]
            if ended or time.monotonic() > ends:
                found = "a process of it has ended" if ended else f"not after {_UP_SECONDS:g} s"
                raise FailedError(f"waiting until {what} (Patroni)", found, f"Its logs: {self._place}")
            await asyncio.sleep(_LOOK_SECONDS)

    def _settings(self, name: str) -> dict[str, Any]:
        directory, postgres = self._place / name, self.postgres[name]
        rest = f"{_HOST}:{self._rest[name]}"
        users = {
            "superuser": {"username": "postgres", "password": "bench"},
            "replication": {"username": "replicator", "password": "bench"},
            "rewind": {"username": "rewinder", "password": "bench"},
        }
        return {
            "scope": "bench",
            "name": name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": f"{_HOST}:{self._etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": 30,
                    "loop_wait": 10,
                    "retry_timeout": 10,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": str(postgres),
                "connect_address": str(postgres),
                "data_dir": str(directory / "data"),
                "bin_dir": str(programs.postgres_bin()),
                "authentication": users,
                "pg_hba": [
                    "local all all trust",
                    f"host all all {_HOST}/32 trust",
                    f"host replication all {_HOST}/32 trust",
                ],
                "parameters": {"unix_socket_directories": str(directory)},
            },
        }


def _program(name: str) -> Path:
    found = Path(sys.executable).parent / name
    if not found.exists():
        raise RefusedError(
            f"looking for {name}", "it is not installed", "`make bench` installs it: uv sync --all-groups"
        )
    return found


def _get(url: str) -> Mapping[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=_ASK_SECONDS) as answer:  # noqa: S310 - a URL of ours
            found: Mapping[str, Any] = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read() or b"{}") or None
    except (OSError, ValueError):
        return None
    return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
