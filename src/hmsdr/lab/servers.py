"""Which processes a lab consists of, and starting one: its command, its directory, its mark, its log.

Every process is its own session and carries the lab's mark, so that it is found and killed whoever started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmsdr.lab import binaries
from hmsdr.lab.layout import LAB_ENV, REGION_ENV, Layout


@dataclass(frozen=True, slots=True)
class Server:
    """One process of the lab, as it is started."""

    name: str
    region: str | None
    command: tuple[str, ...]
    directory: Path


def shared(layout: Layout) -> list[Server]:
    """What belongs to neither region."""
    lab = ("--lab", str(layout.directory))
    return [
        Server("aws", None, (sys.executable, "-m", "hmsdr.lab.aws", *lab), layout.directory),
        Server("dns", None, (sys.executable, "-m", "hmsdr.lab.dns", *lab), layout.directory),
    ]


def of_region(layout: Layout, name: str) -> list[Server]:
    """What dies with the region `name`."""
    region = layout.regions[name]
    agent = (
        sys.executable, "-m", "hmsdr", "agent", "--playbook", str(layout.playbook), "--region", name,
        "--data-directory", str(region.postgres_data), "--state-directory", str(region.directory / "agent"),
        "--postgres-bin", str(binaries.postgres_bin()),
    )  # fmt: skip
    redis: tuple[str, ...] = (
        str(binaries.find("redis-server")), "--bind", region.redis.host, "--port", str(region.redis.port),
        "--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", str(region.redis_data),
    )  # fmt: skip
    if region.ordinal_name == "secondary":
        primary = next(item for item in layout.regions.values() if item.ordinal_name == "primary").redis
        redis = (*redis, "--replicaof", primary.host, str(primary.port))
    return [
        Server("agent", name, agent, region.directory),
        Server("redis", name, redis, region.redis_data),
    ]


def start(layout: Layout, server: Server) -> subprocess.Popen[bytes]:
    """Start a process in the background, with its output in the lab's logs."""
    logs = layout.directory / "logs" if server.region is None else layout.regions[server.region].logs
    for directory in (logs, server.directory):
        directory.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        LAB_ENV: layout.lab_id,
        "PATH": binaries.search_path(),
        # A primary that was killed on purpose stays down, so that there is something to fail over from.
        "HMSDR_AGENT_ON_CRASH": "hold",
        **({REGION_ENV: server.region} if server.region else {}),
    }
    with (logs / f"{server.name}.log").open("ab") as log:
        return subprocess.Popen(
            server.command,
            cwd=server.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def tail(layout: Layout, server: Server, lines: int = 5) -> str:
    """The end of a process's log, for errors."""
    logs = layout.directory / "logs" if server.region is None else layout.regions[server.region].logs
    try:
        found: Sequence[str] = (logs / f"{server.name}.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join(found[-lines:])
