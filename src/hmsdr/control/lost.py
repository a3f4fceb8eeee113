"""What one fork cost, and the files in which the lost rows are kept for the hospital: `reconciliation/` in the state directory.

A file holds patients' data on purpose, readable by the agent's user only. What is told of it elsewhere, in answers, logs and
events, is this summary: counts, places, times, its name and its digest. Nothing here looks into a database.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hmsdr.control.state import sync_directory, write_durably
from hmsdr.errors import FailedError, RefusedError

_FORMAT = 1
_PART = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Lost:
    """What `instance` committed past ``fork`` that the new primary never saw. LSNs in bytes of WAL, moments ISO 8601 in UTC.

    ``commits`` counts every commit in the WAL, None when it could not be read; ``transactions`` and ``rows`` those in the
    file; ``own`` those of the agent itself (heartbeats). The rest changed no row of a table of the hospital's database.
    """

    instance: str
    system: str
    fork: int
    ends: int | None
    commits: int | None
    seconds: float | None
    kept_at: str | None = None
    first_at: str | None = None
    last_at: str | None = None
    transactions: int = 0
    rows: int = 0
    own: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    """Rows of each table."""
    unidentified: int = 0
    """Updates and deletes of tables without a key: which row it was, PostgreSQL does not log."""
    complete: bool = True
    """Whether everything that was lost is known, row by row."""
    why: str = ""
    """Why it is not complete."""
    file: str | None = None
    sha256: str | None = None
    size: int = 0
    accepted_by: str | None = None
    """Who said that the database follows all the same, although it is not complete."""
    accepted_because: str | None = None

    @property
    def bytes(self) -> int | None:
        """How much WAL the new primary never saw."""
        return None if self.ends is None else max(0, self.ends - self.fork)

    @property
    def nothing(self) -> bool:
        """Whether nothing was lost."""
        return self.complete and self.commits == 0

    def as_json(self) -> dict[str, Any]:
        """For answers and events."""
        return {**asdict(self), "bytes": self.bytes}


class Reconciliations:
    """The directory of the files.

    Args:
        directory: made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def all(self) -> list[Lost]:
        """Every summary, the oldest first; one that cannot be read is left out."""
        found = []
        for path in sorted(self.directory.glob("lost-*.json"), key=lambda each: each.stat().st_mtime):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found.append(_load(path))
        return found

    def find(self, system: str, fork: int) -> Lost | None:
        """What was found of that fork before; None when there is nothing, or its file is not what it was."""
        try:
            found = _load(self.directory / f"{_name(system, fork)}.json")
            if found.file is not None and _digest(self.directory / found.file) != found.sha256:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def write_rows(self, system: str, fork: int, write: Callable[[BinaryIO], None]) -> dict[str, Any]:
        """Have `write` fill the file of that fork; it is there whole and durable, or not at all. Gives name, digest, size.

        Raises:
            FailedError: the disk refuses.
        """
        name = f"{_name(system, fork)}.jsonl"
        fresh = self.directory / f".{name}.new"
        try:
            self._made()
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            digest, size = _digest(fresh), fresh.stat().st_size
            fresh.replace(self.directory / name)
            sync_directory(self.directory)
        except OSError as error:
            raise FailedError(
                f"writing {self.directory / name}", str(error), "Make room there, then give the order again"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)
        return {"file": name, "sha256": digest, "size": size}

    def write(self, lost: Lost) -> None:
        """Keep the summary of a fork.

        Raises:
            FailedError: the disk refuses.
        """
        path = self.directory / f"{_name(lost.system, lost.fork)}.json"
        try:
            self._made()
            write_durably(path, json.dumps({"format": _FORMAT, **asdict(lost)}, indent=1).encode())
            path.chmod(0o600)
        except OSError as error:
            raise FailedError(f"writing {path}", str(error), "Make room there, then try again") from error

    def part(self, name: str, offset: int) -> dict[str, Any]:
        """A part of a file, for who fetches it: at most 1 MiB from `offset` on.

        Raises:
            RefusedError: there is no such file.
        """
        known = {lost.file: lost for lost in self.all() if lost.file is not None}
        if name not in known:
            raise RefusedError(
                f"reading {name!r} in {self.directory}", "there is no such file", "See `hmsdr reconcile`"
            )
        with (self.directory / name).open("rb") as file:
            file.seek(offset)
            content = file.read(_PART)
        return {"offset": offset, "size": known[name].size, "content": base64.b64encode(content).decode()}

    def sweep(self) -> None:
        """Remove what a crash left unfinished."""
        for path in self.directory.glob(".*.new"):
            path.unlink(missing_ok=True)

    def _made(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.directory.chmod(0o700)


def _name(system: str, fork: int) -> str:
    return f"lost-{system}-{fork >> 32:X}-{fork & 0xFFFFFFFF:08X}"


def _load(path: Path) -> Lost:
    raw = json.loads(path.read_text())
    if raw.pop("format") != _FORMAT:
        raise ValueError("written by another version")
    return Lost(**raw)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
