"""A directory for scratch servers that is ours alone, and used by one of us at a time. It restores nothing itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmsdr.control.locks import lock_directory
from hmsdr.errors import RefusedError


@contextmanager
def owned_place(directory: Path, name: str) -> Iterator[Path]:
    """The place `name` in `directory`, which is made if need be, while nobody else has it.

    Raises:
        RefusedError: it is somebody else's, is a link, or is in use.
    """
    base = directory.absolute()
    doing = f"taking {base} for a scratch server"
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = base.lstat()
    except OSError as error:
        raise RefusedError(doing, f"{error.strerror}", "Name another with --scratch") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RefusedError(doing, "it is not a directory of ours", "Name another with --scratch")
    base.chmod(0o711)  # PostgreSQL's user passes through; what is below is closed
    lock = lock_directory(base, "verify")
    try:
        yield base / name
    finally:
        os.close(lock)
