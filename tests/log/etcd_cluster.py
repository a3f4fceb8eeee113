"""Real etcd members for tests: started, killed, paused, with or without TLS. Each has ports and a directory of its own."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from hmsdr.log.etcd_api import Etcd


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Cluster:
    """`count` members of one cluster under `directory`."""

    def __init__(
        self, directory: Path, count: int, *options: str, tls: tuple[Path, Path] | None = None
    ) -> None:
        ports = free_ports(2 * count)
        self.directory = directory
        self.scheme = "https" if tls else "http"
        self.clients = [f"{self.scheme}://127.0.0.1:{port}" for port in ports[:count]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[count:]]
        self.options = [*options, *(["--cert-file", str(tls[0]), "--key-file", str(tls[1])] if tls else [])]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        for number in range(count):
            self.start(number)

    def start(self, number: int) -> None:
        name = f"m{number}"
        peers = ",".join(f"m{each}={url}" for each, url in enumerate(self.peers))
        with (self.directory / f"{name}.log").open("ab") as said:
            self.processes[number] = subprocess.Popen(
                [
                    str(shutil.which("etcd")), "--name", name, "--data-dir", str(self.directory / name),
                    "--listen-client-urls", self.clients[number], "--advertise-client-urls", self.clients[number],
                    "--listen-peer-urls", self.peers[number], "--initial-advertise-peer-urls", self.peers[number],
                    "--initial-cluster", peers, "--initial-cluster-token", str(self.directory),
                    "--heartbeat-interval", "50", "--election-timeout", "300", *self.options,
                ],
                stdout=said,
                stderr=said,
            )  # fmt: skip

    def until_ready(self, seconds: float = 40) -> None:
        ends = time.monotonic() + seconds
        while not (self.scheme == "https" or self._healthy()):
            assert time.monotonic() < ends, (self.directory / "m0.log").read_text()[-2000:]
            time.sleep(0.1)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.clients[0]}/health", timeout=2) as answer:
                return json.loads(answer.read())["health"] == "true"
        except (OSError, ValueError, KeyError):
            return False

    def signal(self, number: int, what: signal.Signals) -> None:
        process = self.processes[number]
        assert process is not None
        process.send_signal(what)

    def kill(self, number: int) -> None:
        process = self.processes[number]
        if process is not None:
            process.kill()
            process.wait(10)
            self.processes[number] = None

    def end(self) -> None:
        for number in range(len(self.processes)):
            self.kill(number)

    def etcd(self, *, deadline: float = 3.0, **other: object) -> Etcd:
        return Etcd(tuple(self.clients), deadline, **other)  # type: ignore[arg-type]
