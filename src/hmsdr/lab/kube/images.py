"""How a container image becomes a local process: its argument vector, and nothing else. It starts nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from hmsdr.control import programs
from hmsdr.lab import binaries
from hmsdr.lab.layout import SERVICES, Layout, RegionLayout

_SERVICE = re.compile(r"^hms/(?P<service>[a-z]+)-service:1\.0$")
POSTGRES = "hms/postgres:18"
REDIS = "redis:7"


class UnknownImageError(Exception):
    """The lab has no such image."""


def service_image(service: str) -> str:
    """The image of a service of the hospital."""
    return f"hms/{service}-service:1.0"


def host_network(image: str) -> bool:
    """Does this image listen on addresses of its region's layout, not on an address of its own?"""
    return image in {POSTGRES, REDIS}


def is_service(image: str) -> bool:
    """Is it one of the hospital's services, which run as forks of one process that has their code loaded?"""
    found = _SERVICE.match(image)
    return found is not None and found["service"] in SERVICES


def command(image: str, env: Mapping[str, str], layout: Layout, region: RegionLayout) -> list[str]:
    """What the image runs when its container names no command.

    Raises:
        UnknownImageError: the lab has no such image.
    """
    if is_service(image):
        return [sys.executable, "-m", "hmsdr.lab.hms.service"]
    if image == POSTGRES:
        agent = [sys.executable, "-m", "hmsdr", "agent", "--playbook", str(layout.playbook)]
        agent += ["--region", region.name, "--data-directory", str(region.postgres_data)]
        agent += ["--state-directory", str(region.directory / "agent")]
        agent += ["--postgres-bin", str(programs.postgres_bin()), "--on-crash", "hold"]
        return [*agent, *(["--run-as", layout.user] if layout.user else [])]
    if image == REDIS:
        redis = [
            str(binaries.find("redis-server")),
            "--bind",
            region.redis.host,
            "--port",
            str(region.redis.port),
        ]
        redis += [
            "--dir",
            str(region.redis_data),
            "--protected-mode",
            "no",
            "--save",
            "",
            "--daemonize",
            "no",
        ]
        if env.get("REPLICAOF_HOST"):
            redis += ["--replicaof", env["REPLICAOF_HOST"], env.get("REPLICAOF_PORT", "6379")]
        return redis
    raise UnknownImageError(f'Failed to pull image "{image}": the lab has no such image')
