"""Which processes belong to a lab, and killing every one of them. Standard library only, and it starts nothing.

A process belongs to a lab when it carries the lab's mark in its environment, or when it is one of the servers
that overwrite their environment (PostgreSQL, Redis) and works in the lab's directory. A shell, an editor or
a pager that merely stands in that directory does not belong to it and is never touched.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hmsdr.control.proctable import start_time
from hmsdr.lab.layout import LAB_ENV, REGION_ENV

DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Prefix of a command whose process is killed when the thread that started it ends."""

_SERVERS = frozenset(
    {"postgres", "redis-server", "redis-check-rdb", "redis-check-aof", "valkey-server", "prometheus"}
)
"""Executables that may hide their environment; Debian's redis-server is a link to redis-check-rdb."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class LabProcess:
    """One live process of a lab. ``start`` (clock ticks since boot) makes the pid an identity; ``executable`` is a name."""

    pid: int
    start: int
    command: str
    executable: str
    region: str | None
    directory: Path | None
    """Where it works; None when that could not be read."""
    environment: dict[str, str]
    """What could be read of its environment; empty for servers that overwrite it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses: seconds since it started, resident bytes, seconds of CPU."""

    uptime: float
    memory: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Killed:
    """What a kill did: when the first signal left (both clocks), how many processes died, how many live on."""

    wall: float
    monotonic: float
    count: int
    survivors: int


def lab_processes(lab_id: str, directory: Path) -> list[LabProcess]:
    """Every live process of that lab, this process excepted."""
    root = os.path.realpath(directory)
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - read often, names suffice
        if name.isdecimal() and int(name) != os.getpid():
            process = _look(int(name), lab_id, root)
            if process is not None:
                found.append(process)
    return found


def usage(pid: int) -> Usage | None:
    """What `pid` uses now; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / _TICKS
    return Usage(uptime, int(stat[21]) * _PAGE, (int(stat[11]) + int(stat[12])) / _TICKS)


def kill(process: LabProcess, number: int = signal.SIGKILL) -> bool:
    """Send signal `number` to exactly that process, never to a later one of the same pid."""
    with suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(process.pid)
        try:
            if start_time(process.pid) == process.start:
                signal.pidfd_send_signal(handle, number)
                return True
        finally:
            os.close(handle)
    return False


def sweep(
    lab_id: str,
    directory: Path,
    *,
    seconds: float,
    keep: Collection[int] = (),
    region: str | None = None,
) -> Killed:
    """SIGKILL every process of the lab, or of one region of it, until two looks in a row find none.

    Args:
        lab_id: the mark.
        directory: the lab's directory.
        seconds: when to give up; then `survivors` is not 0.
        keep: pids to leave alone (this process always is).
        region: only processes of that region.
    """
    deadline = time.monotonic() + seconds
    wall, first = time.time(), time.monotonic()
    done: set[tuple[int, int]] = set()
    empty = 0
    while True:
        found = [
            process
            for process in lab_processes(lab_id, directory)
            if process.pid not in keep and (region is None or process.region == region)
        ]
        if found and not done:
            wall, first = time.time(), time.monotonic()
        # Parents first, as a rule: what could start another dies before what it would restart.
        for process in sorted(found, key=lambda each: each.start):
            if kill(process):
                done.add((process.pid, process.start))
        empty = 0 if found else empty + 1
        if empty == 2 or (found and time.monotonic() >= deadline):  # noqa: PLR2004 - a fork can be missed once
            return Killed(wall, first, len(done), len(found))
        if found:
            time.sleep(0.002)


def _look(pid: int, lab_id: str, root: str) -> LabProcess | None:
    """`pid` as a process of the lab; None when it is not one, or gone."""
    start = start_time(pid)
    if start is None:
        return None
    environment = _environment(pid)
    works_in = _link(pid, "cwd")
    inside = works_in is not None and (works_in == root or works_in.startswith(root + os.sep))
    executable = os.path.basename(_link(pid, "exe") or "").split(" ")[0]  # noqa: PTH119
    if environment.get(LAB_ENV) != lab_id and not (inside and executable in _SERVERS):
        return None
    region = environment.get(REGION_ENV)
    if region is None and inside and works_in is not None:
        parts = Path(works_in).relative_to(root).parts
        region = parts[1] if len(parts) > 1 and parts[0] == "regions" else None
    return LabProcess(
        pid, start, _command(pid), executable, region, Path(works_in) if works_in else None, environment
    )


def _environment(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - read hundreds of times a second
            raw = file.read()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _link(pid: int, name: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/{name}").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return None


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return os.fsdecode(file.read().replace(b"\0", b" ").strip())
    except OSError:
        return ""
