"""The end of a stopped database's WAL, read with pg_waldump: how much was committed past a point, and when. Counts only.

It reads files that no server writes to. It knows commits of every database of the server, those without rows too: it
is what decoded rows are compared with, and all there is when they cannot be decoded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from hmsdr.control.server import WAL_ENDS, PostgresServer, written
from hmsdr.decide.lsn import format_lsn, parse_lsn
from hmsdr.decide.timelines import Stretch
from hmsdr.errors import FailedError

_SECONDS = 1800.0
_LINE_LIMIT = 8 * 1024 * 1024
_COMMIT = re.compile(
    rb"lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: COMMIT(?:_PREPARED)? (?:\d+: )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)"
)
_MISSING = re.compile(r'could not find file "([0-9A-F]{24})"')


@dataclass(frozen=True, slots=True)
class Tail:
    """What was committed from ``begins`` on, to the end of the WAL (LSNs in bytes, moments in UTC)."""

    begins: int
    ends: int
    commits: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    kept_at: datetime | None = None
    """The newest commit before ``begins``, if there is one in the same segment."""

    def before(self) -> datetime | None:
        """From when on something is missing."""
        return self.kept_at or self.first_at

    @property
    def seconds(self) -> float:
        """How long a stretch of time is missing: from the last commit that both have to the last that is lost."""
        since = self.before()
        return 0.0 if since is None or self.last_at is None else (self.last_at - since).total_seconds()


async def read_tail(
    server: PostgresServer, ours: Sequence[Stretch], begins: int, *, segment: int, checkpoint: int
) -> Tail:
    """Read the WAL of the stopped `server` from the segment that holds `begins` to its end.

    Args:
        server: nothing of it runs.
        ours: its history.
        begins: in bytes of WAL.
        segment: size of one file of WAL, in bytes.
        checkpoint: place of its last checkpoint: the WAL ends no earlier.

    Raises:
        FailedError: the WAL is not all there any more.
    """
    found = _Found(begins)
    ends = begins
    for stretch in ours:
        if stretch.ends is not None and stretch.ends <= begins:
            continue
        start = max(begins, stretch.begins)
        ends = start
        if written(server.segment(start, stretch.timeline, segment)):
            ends = await _read(server, stretch, start // segment * segment, segment, found)
    if ends < checkpoint:
        raise FailedError(
            f"reading the WAL in {server.directory}",
            f"it can be read up to {format_lsn(ends)}, and its checkpoint is at {format_lsn(checkpoint)}",
            "Part of it is gone or damaged: restore the archive's copy of it into pg_wal",
        )
    return Tail(begins, ends, found.commits, found.first_at, found.last_at, found.kept_at)


@dataclass(slots=True)
class _Found:
    """Commits, counted as they are read: there may be millions."""

    begins: int
    commits: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    kept_at: datetime | None = None

    def take(self, lsn: int, at: datetime) -> None:
        if lsn < self.begins:
            self.kept_at = max(at, self.kept_at or at)
            return
        self.commits += 1
        self.first_at = min(at, self.first_at or at)
        self.last_at = max(at, self.last_at or at)


async def changes_tablespaces(server: PostgresServer, timeline: int, redo: int, segment: int) -> bool:
    """Whether recovery from `redo` on would make or drop a tablespace: that is a place outside the data directory."""
    with suppress(TimeoutError):
        _, output, _ = await server.tool(
            "pg_waldump",
            *("-r", "Tablespace", *server.waldump(redo, timeline, segment)),
            deadline=_SECONDS,
        )
        return bool(output.strip())
    return True


async def _read(server: PostgresServer, stretch: Stretch, first: int, segment: int, found: _Found) -> int:
    """Add the commits of `stretch` from `first` on to `found`; gives where it ends."""
    doing = f"reading the WAL in {server.directory}"
    arguments = server.waldump(first, stretch.timeline, segment, stretch.ends)
    process = await asyncio.create_subprocess_exec(
        *server.command("pg_waldump", "-r", "Transaction", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**server.environment, "TZ": "UTC"},
        limit=_LINE_LIMIT,
    )
    assert process.stdout is not None  # noqa: S101 - asked for
    assert process.stderr is not None  # noqa: S101
    said = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(_SECONDS):
            async for line in process.stdout:
                if (match := _COMMIT.search(line)) is not None:
                    at = datetime.fromisoformat(match[2].decode()).replace(tzinfo=UTC)
                    found.take(parse_lsn(match[1].decode()), at)
            errors = (await said).decode(errors="replace")
            await process.wait()
    except TimeoutError as error:
        raise FailedError(doing, f"it took longer than {_SECONDS:g} s", "Give the order again") from error
    except ValueError as error:
        raise FailedError(doing, f"pg_waldump said what cannot be read ({error})", "Report it") from error
    finally:
        said.cancel()
        with suppress(ProcessLookupError):
            process.kill()
    if stretch.ends is not None and process.returncode == 0:
        return stretch.ends
    if stretch.ends is None and (end := _end(server, stretch.timeline, first, segment, errors)) is not None:
        return end
    raise FailedError(
        doing,
        (errors.strip().splitlines() or ["pg_waldump said nothing"])[-1],
        "The segment is gone: restore it from the archive into pg_wal",
    )


def _end(server: PostgresServer, timeline: int, first: int, segment: int, errors: str) -> int | None:
    """Where the WAL ends, by what pg_waldump said; None when it only could not be read further."""
    missing = _MISSING.search(errors)
    if missing is None:
        # "error in WAL record at 0/2D15A40: invalid record length at 0/2D15A78: …": the second is the end.
        places = WAL_ENDS.findall(errors)
        return parse_lsn(places[-1]) if places else None
    # The end of a segment may be the end of all; not where a later one is there.
    name = missing[1]
    files = (path.name for path in (server.directory / "pg_wal").iterdir())
    if any(len(each) == len(name) and each[:8] == f"{timeline:08X}" and each > name for each in files):
        return None
    end = (int(name[8:16], 16) << 32) + int(name[16:], 16) * segment
    return end if end > first else None
