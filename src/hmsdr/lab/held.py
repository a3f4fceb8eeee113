"""What a region's Kubernetes may not start, because it was broken on purpose and is held: one small file for each region.

The supervisor writes it, the kubelet follows it. A file, so that neither needs the other alive: a kubelet that comes up
later finds what is held, and nobody is left held by a supervisor that is gone, since the lab goes with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hmsdr.lab.layout import RegionLayout


def path(region: RegionLayout) -> Path:
    """Where it stands."""
    return region.directory / "held.json"


def write(region: RegionLayout, workloads: Iterable[str]) -> None:
    """Hold exactly these deployments and statefulsets; written anew, even if they are the same, it ends every back-off.

    Raises:
        OSError: it cannot be written.
    """
    target = path(region)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    new.write_text(json.dumps(sorted(workloads)))
    new.replace(target)


def read(region: RegionLayout) -> frozenset[str]:
    """What is held; nothing if there is no such file."""
    with suppress(OSError, ValueError):
        return frozenset(map(str, json.loads(path(region).read_text())))
    return frozenset()


def written(region: RegionLayout) -> tuple[int, int]:
    """Changes whenever the file is written."""
    with suppress(OSError):
        found = path(region).stat()
        return found.st_ino, found.st_mtime_ns
    return 0, 0
