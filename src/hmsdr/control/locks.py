"""One agent for one data directory (SAFETY rule 6), one controller for one copy: locks that end with their process."""

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
        _lock(path, directory, "agent")
        for path, directory in zip(names, (real, state_directory), strict=True)
    )


def lock_data_directory(data_directory: Path, what: str, *, apart: bool = False) -> int:
    """Take the lock of a data directory for `what`: no agent keeps it meanwhile. Held while the descriptor is open.

    With `apart` it is a lock of its own: for what may be done beside a running agent, but by one at a time.

    Raises:
        RefusedError: an agent, or another one, has it.
    """
    real = data_directory.resolve()
    return _lock(real.with_name(f".{real.name}.hmsdr-{what if apart else 'agent'}.lock"), real, what)


def lock_directory(directory: Path, what: str) -> int:
    """Take the lock of `directory` for `what`; it is held while the descriptor that is given is open.

    Raises:
        RefusedError: another one has it, or the directory cannot be written.
    """
    return _lock(directory.resolve() / f"{what}.lock", directory, what)


def _lock(path: Path, directory: Path, what: str) -> int:
    doing = f"starting the {what} for {directory}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusedError(
            doing, f"{path}: {error.strerror}", f"Make the directory writable for the {what}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise RefusedError(
            doing,
            f"another {what} (process {other or 'unknown'}) keeps it",
            "Stop that one first; two must never share it",
        ) from error
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
