"""One agent for one data directory (SAFETY rule 6): a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from hmsdr.errors import RefusedError


def lock_directories(data_directory: Path, state_directory: Path) -> tuple[int, ...]:
    """Take the locks of both directories; they are held while the descriptors that are given are open.

    The data directory's lock lies beside it, since its content is replaced when it is cloned.

    Raises:
        RefusedError: another agent has one of them, or a directory cannot be written.
    """
    real = data_directory.resolve()
    names = (real.with_name(f".{real.name}.hmsdr-agent.lock"), state_directory.resolve() / "agent.lock")
    return tuple(
        _lock(path, directory) for path, directory in zip(names, (real, state_directory), strict=True)
    )


def _lock(path: Path, directory: Path) -> int:
    doing = f"starting an agent for {directory}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusedError(
            doing, f"{path}: {error.strerror}", "Make the directory writable for the agent"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise RefusedError(
            doing,
            f"another agent (process {other or 'unknown'}) keeps it",
            "Stop that one first; two must never share a database",
        ) from error
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
