"""Where the servers' programs are, and which package brings one that is missing. Finds; installs nothing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hmsdr.control.programs import POSTGRES_PACKAGES, postgres_bin
from hmsdr.errors import RefusedError

PACKAGES = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "prometheus": "prometheus",
    "etcd": "etcd-server",
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "kubectl": "kubernetes-client (Debian 13, Ubuntu: `snap install kubectl --classic`, or dl.k8s.io)",
    "postgres": POSTGRES_PACKAGES,
}
"""Program to the package that brings it, as Debian and Ubuntu name it."""

REQUIRED = ("redis-server", "prometheus")
"""What a lab cannot run without, besides PostgreSQL."""

_ADMIN_PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


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
