"""What lies in the agent's data directory, for whoever plans its recovery (RC-1): control data, history, sizes, speeds. It changes nothing.

Nothing is judged here. Speeds are measured for a moment: a little is written beside the data and removed, a little is fetched from
the primary.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hmsdr.control.database import Database, Role
from hmsdr.control.server import ControlData, PostgresServer
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import FailedError

_PROBE_BYTES = 16 * 1024 * 1024
_BLOCK = 1024 * 1024
_LINK_SECONDS = 5.0


async def survey(database: Database) -> dict[str, Any]:
    """Everything but what the agent remembers of recoveries: sizes in bytes, LSNs in bytes of WAL, speeds in bytes a second."""
    server = database.server
    place = server.directory.parent
    sizes, disk, (link, reaches) = await asyncio.gather(
        asyncio.to_thread(_sizes, server.directory), asyncio.to_thread(_disk_speed, place), _link(database)
    )
    return {
        **sizes,
        **await _data(database),
        "rewinding": database.memory.state.rewinding,
        "link": link,
        "reaches_primary": reaches,
        "disk": disk,
    }


async def _data(database: Database) -> dict[str, Any]:
    """What its control file and its history say; ``problem`` when that cannot be read."""
    server = database.server
    found: dict[str, Any] = {
        "exists": server.exists,
        "problem": "",
        "system_identifier": None,
        "state": "",
        "timeline": None,
        "history": "",
        "ends": None,
    }
    if not server.exists:
        return found
    try:
        control = await server.control()
        timeline = control.newest_timeline
        found |= {
            # A number of 64 bits is not every reader's of JSON.
            "system_identifier": str(control.system_identifier),
            "state": control.state,
            "timeline": timeline,
            "history": await asyncio.to_thread(own_history, server, timeline),
            "ends": await _ends(database, control),
        }
    except (FailedError, OSError, ValueError, KeyError, TimeoutError) as error:
        found["problem"] = (
            error.found if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"
        )
    return found


async def _ends(database: Database, control: ControlData) -> int | None:
    """Where its WAL ends: a server that runs says it, the files of one that does not."""
    if database.role is not Role.STOPPED:
        measured = await database.meter.glance(primary=database.role is Role.PRIMARY)
        return measured.lsn
    server = database.server
    return await server.end_of_wal(control.redo, control.timeline, control.segment)


def own_history(server: PostgresServer, timeline: int) -> str:
    """The text of the history file of a timeline that the database is on; the first one has none.

    Raises:
        OSError: it is not there.
    """
    if timeline == 1:
        return ""
    return (server.directory / "pg_wal" / f"{timeline:08X}.history").read_text()


async def _link(database: Database) -> tuple[float | None, str]:
    """How fast the primary sends to us, and in words what came of asking it; empty when it answered."""
    primary = database.around.primary(database.upstream)
    try:
        seconds = await primary.transfer(_PROBE_BYTES // 4, deadline=_LINK_SECONDS)
    except DriverError as error:
        return None, error.found
    return _PROBE_BYTES / 4 / max(seconds, 1e-6), ""


def _sizes(directory: Path) -> dict[str, Any]:
    place = directory if directory.exists() else directory.parent
    while not place.exists():
        place = place.parent
    mounted = directory.exists() and directory.stat().st_dev != directory.parent.stat().st_dev
    return {
        "size": size_of(directory),
        "free": shutil.disk_usage(place).free,
        "mount_point": mounted,
    }


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory; what vanishes meanwhile does not count."""
    total = 0
    for path, _, files in os.walk(directory):
        for name in files:
            with suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total


def _disk_speed(place: Path) -> float | None:
    """Bytes a second that are written and synced there; None when it cannot be told."""
    probe = place / f".hmsdr-probe-{os.getpid()}"
    block = os.urandom(_BLOCK)
    try:
        began = time.monotonic()
        with probe.open("wb") as file:
            for _ in range(_PROBE_BYTES // _BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return _PROBE_BYTES / max(time.monotonic() - began, 1e-6)
    except OSError:
        return None
    finally:
        probe.unlink(missing_ok=True)
