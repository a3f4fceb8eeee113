"""The kernel's own high-water mark of a process's memory. Not its resource usage: that begins with the memory of whoever started it."""

from __future__ import annotations

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_mb(pid: int) -> float:
    """The most that process `pid` has had, in MB; it only rises. 0 for one that has ended."""
    try:
        found = _PEAK.search((Path("/proc") / str(pid) / "status").read_text())
    except OSError:
        return 0.0
    return 0.0 if found is None else int(found[1]) * 1024 / 1e6
