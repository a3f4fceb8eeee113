"""The data of a primary and of its standby, compared at one moment: table by table, in chunks, both sides at once (RC-3).

A chunk is a range of a table's pages: a physical standby has every row in the very same place, so each side reads in order, without
an index, and tables without a primary key are compared as any other. The primary is read at a bounded rate and in short transactions.
Both sides look at a pair of snapshots of one moment; it is renewed every minute, and whenever a server took it away, so nothing is
held back for long. Memory does not grow with the data: sums come back, and a few rows where sums differ. It changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from hmsdr.decide.equality import Difference, Odd, odd_rows, only_on_one_side
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres_calls import severable
from hmsdr.drivers.postgres_snapshots import Connection, Meeting, Pair, connect, look
from hmsdr.drivers.postgres_sums import (
    NOTHING,
    Pages,
    Row,
    Size,
    Sum,
    Table,
    add_up,
    prepare,
    rows_of,
    tables,
)
from hmsdr.playbook.topology import PostgresInstance

MIB = 1 << 20
CHUNK_PAGES = 2048
"""16 MiB: a tenth of a second or so, and a bounded rate is kept evenly."""
_HOLD_SECONDS = 60.0
_MEET_SECONDS = 60.0
_CHUNK_SECONDS = 600.0
_ROUNDS_WITHOUT_PROGRESS = 5
_PAUSE_SECONDS = 0.5
_SPLIT = 8
_FINE_PAGES = 16
_PARTS = 4
_NARROWED = 3
"""Of a table's chunks that differ so many are looked into; a table that differs everywhere is no use to list."""
_ROWS = 20_000
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some pages of a table."""

    table: Table
    pages: Pages
    bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    bytes: int
    of_bytes: int
    table: str
    lsn: int


@dataclass(slots=True)
class Compared:
    """What came of it. ``lsns``: the moments (bytes of WAL) that it was compared at, one unless a minute was too short."""

    sums: dict[str, Sum] = field(default_factory=dict)
    """The primary's, by table; rows of a table that differs are counted on the primary."""
    differences: list[Difference] = field(default_factory=list)
    lsns: list[int] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Nothing differs."""
        return not self.differences


class Pace:
    """No more than `rate` bytes a second, over all who ask; 0 is no bound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Wait until `count` bytes more may be read."""
        if not self._rate:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self._rate
        await asyncio.sleep(self._free_at - count / self._rate - now)


class Comparison:
    """Compares two servers once.

    Args:
        primary: the one that writes.
        standby: the one that follows it.
        rate: bytes a second that are read of the primary, at most; 0 is no bound.
        jobs: chunks at a time.
        say: told about progress.
        hold: seconds for which one moment is looked at.
    """

    def __init__(
        self,
        primary: PostgresInstance,
        standby: PostgresInstance,
        *,
        rate: int,
        jobs: int,
        say: Callable[[Progress], None] = lambda _: None,
        hold: float = _HOLD_SECONDS,
    ) -> None:
        self._sides = (primary, standby)
        self._jobs = jobs
        self._pace = Pace(rate)
        self._say = say
        self._hold = hold
        self._found = Compared()
        self._chunks: deque[Chunk] = deque()
        self._known: set[str] = set()
        self._of_bytes = 0
        self._narrowed: dict[str, int] = {}
        self._ends = 0.0

    async def run(self, *, deadline: float) -> Compared:
        """Compare everything, within `deadline` seconds.

        Raises:
            TemporaryError: a side does not answer, the standby does not follow, or there was not time enough.
        """
        doing = f"comparing {self._sides[0].instance} with {self._sides[1].instance}"
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(deadline):
                await self._rounds(doing)
        except TimeoutError as error:
            done = (
                f"{self._found.bytes // MIB} of {self._of_bytes // MIB} MiB are compared after {deadline:g} s"
            )
            raise TemporaryError(doing, done, "Give it more time, or a higher rate") from error
        self._found.seconds = clock() - began
        return self._found

    async def _rounds(self, doing: str) -> None:
        """Until all is compared; what one moment did not last for is looked at in the next one."""
        idle = 0
        while not self._found.lsns or self._chunks:
            before = (len(self._chunks), len(self._known))
            try:
                await self._round()
            except (psycopg.Error, OSError) as error:
                lost: BaseException | None = error
            except ExceptionGroup as errors:
                lost = _lost(errors)
            else:
                lost = None
            idle = 0 if (len(self._chunks), len(self._known)) != before else idle + 1
            if lost is not None:
                if idle >= _ROUNDS_WITHOUT_PROGRESS:
                    found = str(lost).strip().replace("\n", "; ") or type(lost).__name__
                    remedy = "See that both sides answer, and that one follows the other"
                    raise TemporaryError(doing, found, remedy) from lost
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _round(self) -> None:
        meeting = Meeting(*self._sides)
        opened: list[Connection] = []
        try:
            pair = await meeting.begin(deadline=_MEET_SECONDS)
            workers = [[await _open(side, opened) for side in self._sides] for _ in range(self._jobs)]
            await self._list(workers[0], pair)
            if pair.lsn not in self._found.lsns:
                self._found.lsns.append(pair.lsn)
            self._ends = asyncio.get_running_loop().time() + self._hold
            async with asyncio.TaskGroup() as group:
                for primary, standby in workers:
                    group.create_task(self._work(primary, standby, pair))
        finally:
            for connection in opened:
                with suppress(psycopg.Error, OSError):
                    await connection.close()
            await meeting.close()

    async def _list(self, sides: list[Connection], pair: Pair) -> None:
        """Tables that have not been seen yet; those of the primary and of the standby are looked at in the same moment."""
        listed = []
        for connection, snapshot in zip(sides, (pair.primary, pair.standby), strict=True):
            await look(connection, snapshot)
            listed.append({table.title: (table, size) for table, size in await tables(connection)})
            await connection.execute("COMMIT")
        ours, theirs = listed
        gone = self._known - ours.keys() - theirs.keys()
        self._chunks = deque(chunk for chunk in self._chunks if chunk.table.title not in gone)
        self._found.differences += (
            each for each in only_on_one_side(list(ours), list(theirs)) if each.table not in self._known
        )
        for title in sorted(ours.keys() & theirs.keys() - self._known):
            (table, size), (other, larger) = ours[title], theirs[title]
            if table != other:
                self._found.differences.append(
                    Difference(title, found="its columns or its key are not the same")
                )
                continue
            self._found.sums[title] = NOTHING
            self._chunks += _chunks(table, max(size, larger, key=lambda each: each.pages))
        self._known |= ours.keys() | theirs.keys()
        self._of_bytes = self._found.bytes + sum(chunk.bytes for chunk in self._chunks)

    async def _work(self, primary: Connection, standby: Connection, pair: Pair) -> None:
        """One chunk after the other, while the moment lasts; one at least."""
        clock, first = asyncio.get_running_loop().time, True
        while self._chunks and (first or clock() < self._ends):
            first = False
            chunk = self._chunks.popleft()
            try:
                await self._pace.take(chunk.bytes)
                async with asyncio.timeout(_CHUNK_SECONDS):
                    ours, difference = await self._compare(primary, standby, pair, chunk)
            except BaseException:
                self._chunks.appendleft(chunk)  # nothing is known of it: it is looked at again
                raise
            title = chunk.table.title
            self._found.sums[title] += ours
            self._found.differences += [difference] if difference is not None else []
            self._found.bytes += chunk.bytes
            self._say(Progress(self._found.bytes, self._of_bytes, title, pair.lsn))

    async def _compare(
        self, primary: Connection, standby: Connection, pair: Pair, chunk: Chunk
    ) -> tuple[Sum, Difference | None]:
        await look(primary, pair.primary)
        await look(standby, pair.standby)
        ours, theirs = await _both(primary, standby, chunk.table, chunk.pages)
        difference = None if ours == theirs else await self._narrow(primary, standby, chunk)
        for connection in (primary, standby):
            await connection.execute("COMMIT")
        return ours, difference

    async def _narrow(self, primary: Connection, standby: Connection, chunk: Chunk) -> Difference:
        """From pages that differ to the keys of rows, still in the same moment."""
        title, whole = chunk.table.title, (chunk.pages.first, chunk.pages.end)
        self._narrowed[title] = self._narrowed.get(title, 0) + 1
        if self._narrowed[title] > _NARROWED:
            return Difference(title, whole, more=True)
        parts, more = [chunk.pages], False
        while any(not _fine(part) for part in parts):
            found = []
            for part in itertools.chain.from_iterable(map(_split, parts)):
                ours, theirs = await _both(primary, standby, chunk.table, part)
                found += [part] if ours != theirs else []
            more = more or len(found) > _PARTS
            parts = found[:_PARTS]
        odd: list[Odd] = []
        for part in parts:
            ours_, theirs_ = [
                {_name(chunk.table, row): row.hash for row in await rows_of(side, chunk.table, part, _ROWS)}
                for side in (primary, standby)
            ]
            odd += odd_rows(ours_, theirs_)
        where = (parts[0].first, parts[-1].end) if parts else whole
        return Difference(title, where, tuple(odd[:_NAMED]), more or not odd or len(odd) > _NAMED)


async def _open(side: PostgresInstance, opened: list[Connection]) -> Connection:
    connection = await connect(side)
    opened.append(connection)
    await prepare(connection)
    return connection


async def _both(primary: Connection, standby: Connection, table: Table, pages: Pages) -> tuple[Sum, Sum]:
    async with asyncio.TaskGroup() as group:
        ours = group.create_task(severable(primary, lambda side: add_up(side, table, pages)))
        theirs = group.create_task(severable(standby, lambda side: add_up(side, table, pages)))
    return ours.result(), theirs.result()


def _chunks(table: Table, size: Size) -> Iterable[Chunk]:
    """The table in pieces, and what it may have grown by since as one more."""
    for first in range(0, size.pages, CHUNK_PAGES):
        end = min(first + CHUNK_PAGES, size.pages)
        yield Chunk(table, Pages(first, end), size.bytes * (end - first) // size.pages)
    yield Chunk(table, Pages(size.pages, None), 0)


def _fine(pages: Pages) -> bool:
    """Small enough to look at row by row; so is what a table has grown by since it was measured."""
    return pages.end is None or pages.end - pages.first <= _FINE_PAGES


def _split(pages: Pages) -> list[Pages]:
    """Smaller ranges of it."""
    if pages.end is None or _fine(pages):
        return [pages]
    step = -(-(pages.end - pages.first) // _SPLIT)
    return [Pages(first, min(first + step, pages.end)) for first in range(pages.first, pages.end, step)]


def _name(table: Table, row: Row) -> str:
    """What tells a row from others: its key, or its place."""
    if not table.key:
        page, _, item = row.place.strip("()").partition(",")
        return f"page {page} row {item}"
    return ", ".join(f"{name}={value}" for name, value in zip(table.key, row.key, strict=True))


def _lost(errors: ExceptionGroup) -> BaseException:
    """What ended a round: a server that took a snapshot away, or went; anything else is raised on."""
    expected, others = errors.split((psycopg.Error, OSError))
    if others is not None or expected is None:
        raise errors
    found: BaseException = expected
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
