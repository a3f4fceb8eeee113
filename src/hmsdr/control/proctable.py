"""Which processes belong to a database, and killing every one of them. Standard library only: the guard runs on it.

PostgreSQL's backends outlive a killed postmaster and leave its session, so neither its pid nor its process
group is enough (SAFETY rule 3). A process belongs to the database of a directory when it is a `postgres`
working in that directory, when it inherited our mark in its environment, or when it descends from one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_CHUNK = 1 << 16
MARK = "HMSDR_DATABASE_DIRECTORY"
"""Environment variable given to the postmaster: what it starts (an archive command) inherits it."""

Owner = tuple[int, int]
"""User and group id that the database runs as."""


CLOCK: ContextVar[Callable[[], float] | None] = ContextVar("clock", default=None)
"""Of a simulated machine, for what runs on it; None: this machine's own."""


def boottime() -> float:
    """Seconds since boot, suspend included: the clock of every lease deadline (rule 1)."""
    clock = CLOCK.get()
    return time.clock_gettime(time.CLOCK_BOOTTIME) if clock is None else clock()


def start_time(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot: with the pid, its identity. None when dead or a zombie."""
    found = _stat(pid)
    return None if found is None else found[1]


def database_processes(directory: str, owner: Owner | None = None) -> dict[int, int]:
    """Every live process of the database in `directory`, as pid to start time.

    Args:
        directory: the data directory.
        owner: whom the database runs as, when that is not this process's own user.

    A process that forks and exits while the table is being read can be missed once: ask until two
    answers in a row are empty, as `kill_database` does.
    """
    real = os.path.realpath(directory)
    mark = f"{MARK}={real}".encode()
    parents: dict[int, int] = {}
    starts: dict[int, int] = {}
    with _seen_as(owner):
        # What is dead or a zombie has neither a program nor an environment.
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - for the guard
        found = {pid for pid in pids if _belongs(pid, real, mark)} - {os.getpid()}
        if not found:  # then nothing descends from one either: writers wait for this answer
            return {}
        for pid in pids:
            if (stat := _stat(pid)) is not None:
                parents[pid], starts[pid] = stat
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        more.discard(os.getpid())
        found |= more
        grew = bool(more)
    return {pid: starts[pid] for pid in found if pid in starts}


def kill_database(directory: str, seconds: float, owner: Owner | None = None) -> tuple[int, int]:
    """Kill every process of the database in `directory`, again and again until none is left.

    Gives how many were killed, and how many survived the given seconds (0 is the proof that rule 3 asks for).
    """
    deadline = boottime() + seconds
    killed: set[tuple[int, int]] = set()
    empty = 0
    while True:
        found = database_processes(directory, owner)
        empty = 0 if found else empty + 1
        if empty >= 2:  # noqa: PLR2004 - see database_processes
            return len(killed), 0
        for pid, start in found.items():
            if _kill(pid, start):
                killed.add((pid, start))
        if found and boottime() >= deadline:
            return len(killed), len(found)
        if found:
            time.sleep(0.001)


def _kill(pid: int, start: int) -> bool:
    """SIGKILL exactly that process, never a later one of the same pid."""
    with suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)
        try:
            if start_time(pid) == start:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and start time; None for what does not run (gone, zombie, dead)."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 20)
    except OSError:
        return None
    if fields[0] in (b"Z", b"X", b"x"):
        return None
    return int(fields[1]), int(fields[19])


def _belongs(pid: int, directory: str, mark: bytes) -> bool:
    with suppress(OSError):
        executable = os.path.basename(os.readlink(f"/proc/{pid}/exe"))  # noqa: PTH115, PTH119
        if executable.split(" ")[0] == "postgres":
            return os.readlink(f"/proc/{pid}/cwd") == directory or _marked(pid, mark)  # noqa: PTH115
        return _marked(pid, mark)
    return False


def _marked(pid: int, mark: bytes) -> bool:
    # At the beginning, or behind the end of another variable: nothing is split, there may be a lot of it.
    content = b"\0" + _read(f"/proc/{pid}/environ") + b"\0"
    return b"\0" + mark + b"\0" in content


def _read(path: str) -> bytes:
    """All of a file of the kernel's, without the buffers of a file object: every process is looked at while writers wait."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(handle, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


@contextmanager
def _seen_as(owner: Owner | None) -> Iterator[None]:
    """Look at /proc as the database's own user: in a container root may lack the right to see others' files.

    The file system identity is this thread's alone, so that nothing else in the process is disturbed.
    """
    if owner is None or os.geteuid() != 0 or owner == (0, 0):
        yield
        return
    import ctypes  # noqa: PLC0415 - only here, to keep the guard small

    libc = ctypes.CDLL(None)
    libc.setfsgid(owner[1])
    libc.setfsuid(owner[0])
    try:
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
