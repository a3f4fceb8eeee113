"""The lab's faults: each kills real processes with SIGKILL, at once, and says when and how many.

Faults are data for whoever breaks and heals; nothing here decides what should happen afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hmsdr.errors import RefusedError
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import Killed, LabProcess, kill, lab_processes, sweep
from hmsdr.playbook.findings import nearest

KILL_SECONDS = 5.0
FAULTS = {
    "region-down": "every process of a region, database backends included",
    "database-killed": "the region's PostgreSQL with all its backends",
    "redis-killed": "the region's Redis",
}


def break_(layout: Layout, fault: str, region: str) -> Killed:
    """Let `fault` happen to `region`.

    Raises:
        RefusedError: unknown fault or region, or nothing there to kill.
    """
    if fault not in FAULTS:
        hint = nearest(fault, FAULTS)
        raise RefusedError(
            f"breaking the lab with {fault!r}", "there is no such fault", f"{hint} Known: {', '.join(FAULTS)}"
        )
    if region not in layout.regions:
        hint = nearest(region, layout.regions)
        raise RefusedError(
            f"breaking region {region!r}",
            "the lab has no such region",
            f"{hint} Known: {', '.join(layout.regions)}",
        )
    if fault == "region-down":
        killed = sweep(layout.lab_id, layout.directory, seconds=KILL_SECONDS, region=region)
    elif fault == "database-killed":
        data = layout.regions[region].postgres_data
        killed = _kill(layout, lambda process: process.directory == data)
    else:
        where = layout.regions[region].redis_data
        killed = _kill(layout, lambda process: process.directory == where)
    if killed.count == 0:
        raise RefusedError(f"breaking {region} with {fault}", "nothing of it runs", "`hmsdr lab heal` first")
    return killed


def _kill(layout: Layout, wanted: Callable[[LabProcess], bool]) -> Killed:
    """SIGKILL what is wanted until two looks in a row find none of it."""
    wall, first = time.time(), time.monotonic()
    count = empty = 0
    while empty < 2:  # noqa: PLR2004 - a fork can be missed once
        found = [process for process in lab_processes(layout.lab_id, layout.directory) if wanted(process)]
        count += sum(kill(process) for process in found)
        empty = 0 if found else empty + 1
        if time.monotonic() > first + KILL_SECONDS:
            return Killed(wall, first, count, len(found))
    return Killed(wall, first, count, 0)
