"""What a command means inside a pod: its environment, and stand-ins for the programs of a database's or cache's image.

`psql` and `redis-cli` reach the pod's own server; `pg_ctl stop` and `promote` are orders to its agent. Writes the
stand-ins into the region's directory; starts nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from hmsdr.control import programs
from hmsdr.control.unprivileged import choose
from hmsdr.lab import binaries
from hmsdr.lab.kube import images
from hmsdr.lab.kube.kubelet import Kubelet
from hmsdr.lab.kube.store import Object
from hmsdr.lab.layout import Layout, RegionLayout
from hmsdr.lab.processes import DIE_WITH_PARENT

DATA_DIRECTORY = "/var/lib/postgresql/data"
"""Where the image has its data; the lab has it elsewhere."""


def prepare(kubelet: Kubelet, pod: Object, command: list[str]) -> tuple[list[str], dict[str, str], str]:
    """Argument vector, environment and working directory of `command` in `pod`.

    A program that is not there is left to the shell to complain of, with the words and the status of a shell.
    """
    layout, region = kubelet.layout, kubelet.region
    env = kubelet.environment(pod, kubelet.address_for(pod))
    image = pod["spec"]["containers"][0].get("image", "")
    if image == images.POSTGRES:
        env |= {"PGHOST": region.postgres.host, "PGPORT": str(region.postgres.port)}
        env["PAGER"] = "cat"  # the image has none: psql would wait for a key in a terminal
        env["PATH"] = _path(_database_programs(layout, region), env)
        data = str(region.postgres_data)
        command = [data if word == DATA_DIRECTORY else word for word in command]
    elif image == images.REDIS:
        env["PATH"] = _path(_cache_programs(region), env)
    if shutil.which(command[0], path=env.get("PATH")) is None:
        message = f'exec failed: "{command[0]}": executable file not found in $PATH'
        command = ["/bin/sh", "-c", f"echo {shlex.quote(message)} >&2; exit 127"]
    return [*DIE_WITH_PARENT, *command], env, str(region.directory)


def _path(first: Path, env: dict[str, str]) -> str:
    return os.pathsep.join([str(first), env.get("PATH", os.defpath)])


def _database_programs(layout: Layout, region: RegionLayout) -> Path:
    manual = [sys.executable, "-m", "hmsdr.control.manual"]
    order = ["--playbook", str(layout.playbook), "--region", region.name]
    real = [str(programs.postgres_bin() / "pg_ctl")]
    real = choose(layout.user).command(*real)
    return _stand_in(
        region,
        "pg_ctl",
        'for word in "$@"; do case "$word" in stop|promote) '
        f'exec {shlex.join(manual)} "$word" {shlex.join(order)} ;; esac; done\nexec {shlex.join(real)} "$@"',
    )


def _cache_programs(region: RegionLayout) -> Path:
    real = [str(binaries.find("redis-cli")), "-h", region.redis.host, "-p", str(region.redis.port)]
    return _stand_in(region, "redis-cli", f'exec {shlex.join(real)} "$@"')


def _stand_in(region: RegionLayout, name: str, script: str) -> Path:
    """Write it whole or not at all: another exec may be reading it."""
    place = region.directory / "programs" / name
    place.mkdir(parents=True, exist_ok=True)
    file, new = place / name, place / f".{name}.{os.getpid()}"
    if not file.exists():
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o755)
        new.replace(file)
    return place
