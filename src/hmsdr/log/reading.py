"""Opening an event log only to read it, also on a disk that takes nothing: history is needed most when something is broken.

Gives connections that refuse every write. What acts never opens the log here: it must fail, and try again.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

_BUSY_SECONDS = 10.0


def connect_reading(path: Path) -> sqlite3.Connection:
    """A connection to the file as it lies there; where even reading would have to write, a copy of it in memory.

    Raises:
        sqlite3.Error: it cannot be read.
        OSError: it cannot be copied.
    """
    try:
        return _probed(f"file:{quote(str(path))}?mode=ro", uri=True)
    except sqlite3.Error:
        return _copied(path)


def _probed(target: str, *, uri: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        target, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )
    try:
        connection.execute("SELECT format FROM meta").fetchone()
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _copied(path: Path) -> sqlite3.Connection:
    """What is committed but not yet in the file itself (its ``-wal``) is read with it, which needs a place to write."""
    with tempfile.TemporaryDirectory(prefix="hmsdr-log-") as directory:
        there = Path(directory) / "log"
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists():
            shutil.copyfile(wal, there.with_name("log-wal"))
        shutil.copyfile(path, there)
        source = sqlite3.connect(there)
        memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            source.backup(memory)
        finally:
            source.close()
    memory.execute("PRAGMA query_only = ON")
    return memory
