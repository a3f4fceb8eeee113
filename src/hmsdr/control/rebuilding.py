"""Making a database anew beside the one that is there: from its backups, or as a copy of the primary; verified, not yet in its place.

Nothing that exists is changed here but the place that is given, which is ours and is emptied first. Taking the old one's place is
`swap`: two renames, which can be done again at any point, and the old directory stays under another name.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hmsdr.control import pgconf
from hmsdr.control.database import Database
from hmsdr.control.follow import open_conninfo, password
from hmsdr.control.server import PostgresServer
from hmsdr.control.state import Upstream, sync_directory
from hmsdr.decide.recovery import MARGIN
from hmsdr.errors import FailedError, RefusedError

_COPY_SECONDS = 24 * 3600.0
_VERIFY_SECONDS = 12 * 3600.0
_SQL_SECONDS = 10.0
_OURS = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
"""Who may enter is this region's own to say, not the primary's."""

Say = Callable[[str, int | None], None]
"""Told what is done now, and how many bytes it puts into the place, where that is known."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, in words, and how many bytes were handled: of files, and of WAL."""

    words: str
    size: int


class Restore(Protocol):
    """Restores a backup into a place: `hmsdr.backup.staging`, which the agent is given when it is started."""

    async def __call__(
        self, server: PostgresServer, place: Path, wanted: str | None, histories: Mapping[int, str], say: Say
    ) -> Made:
        """Make ``place/data``: replayed as far as the archive goes, every page checked, on disk, a standby.

        Args:
            server: of the data directory that is there.
            place: ours alone; emptied first.
            wanted: a backup's id; None: the newest that leads to the present.
            histories: of timelines, which the archive need not have.
            say: told about progress.

        Raises:
            HmsdrError: it cannot be, and why; nothing else was touched.
        """


async def copy_primary(database: Database, upstream: Upstream, place: Path, say: Say) -> Made:
    """Make ``place/data`` a copy of the primary, each file compared with the copy's own manifest.

    Raises:
        FailedError: no room, the primary refuses or is silent, or the copy is not what was sent.
    """
    server, target = database.server, place / "data"
    doing = f"copying the primary {upstream.host}:{upstream.port} to {target}"
    await asyncio.to_thread(clear, place)
    size = (await database.around.primary(upstream).source(deadline=_SQL_SECONDS)).size
    has_room(doing, place, size)
    say(f"copying {size >> 20} MiB from the primary", size)
    await asyncio.to_thread(server.unprivileged.own, place)
    await _tool(
        server,
        doing,
        *("pg_basebackup", "-D", target, "-d", open_conninfo(database, upstream), "-S", upstream.slot),
        *("-X", "stream", "--checkpoint=fast", "--no-password"),
        deadline=_COPY_SECONDS,
        environment=password(database),
    )
    say("comparing every file of the copy with its manifest", None)
    await _tool(
        server, doing, "pg_verifybackup", "--quiet", "--no-parse-wal", target, deadline=_VERIFY_SECONDS
    )
    for name in _OURS:
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.copyfile(server.directory / name, target / name)
    pgconf.make_standby(target)
    return Made("a copy of the primary", size)


async def _tool(
    server: PostgresServer,
    doing: str,
    name: str,
    *arguments: str | Path,
    deadline: float,
    environment: Mapping[str, str] | None = None,
) -> None:
    try:
        status, output, errors = await server.tool(
            name, *arguments, deadline=deadline, environment=environment, dies=True
        )
    except TimeoutError as error:
        raise FailedError(
            doing, f"{name} did not end within {deadline:g} s", "Give the order again"
        ) from error
    if status != 0:
        said = " ".join((errors or output).strip().splitlines()[-1:])
        raise FailedError(
            doing, said or f"{name} ended with {status}", "Mend that, then give the order again"
        )


def has_room(doing: str, place: Path, needed: int) -> None:
    """See that so many bytes, and a margin, are free there.

    Raises:
        FailedError: they are not.
    """
    free = shutil.disk_usage(place).free
    if free < needed + MARGIN:
        kept = ", ".join(sorted(each.name for each in place.parent.glob("*.before-*")))
        raise FailedError(
            doing,
            f"{(needed + MARGIN) >> 20} MiB are needed there, and {free >> 20} MiB are free",
            f"Make room{f': {kept} of earlier recoveries may be removed' if kept else ''}; then give the order again",
        )


def clear(place: Path) -> None:
    """An empty place, ours alone."""
    remove(place)
    place.mkdir(mode=0o700, parents=True)


def remove(place: Path) -> None:
    """Leave nothing of it."""
    if place.exists():
        shutil.rmtree(place)


def refuse_mount_point(directory: Path) -> None:
    """See that another directory can take the name of `directory`.

    Raises:
        RefusedError: it is a file system of its own.
    """
    if directory.exists() and directory.stat().st_dev != directory.parent.stat().st_dev:
        raise RefusedError(
            f"making {directory} anew",
            "it is a file system of its own, so another directory cannot take its name",
            "Put the data into a directory below the mount point, and name that",
        )


def swap(place: Path, directory: Path, kept: Path) -> None:
    """Let ``place/data`` take the name of `directory`, which goes on as `kept`; done before, whole or half, it is finished.

    Raises:
        OSError: the file system refuses; what is there is there.
    """
    made = place / "data"
    if not made.exists():
        return
    if directory.exists():
        directory.rename(kept)
        sync_directory(directory.parent)
    try:
        made.rename(directory)
    except OSError:
        if kept.exists():
            kept.rename(directory)
        raise
    sync_directory(directory.parent)
