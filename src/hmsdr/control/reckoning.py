"""What a database committed that the new primary never saw, before anything of it is rewound: counted, and extracted row by row.

The stopped database is only read; rows are decoded in an isolated copy, from the slot that `slots` keeps. It stops no
promotion, rewinds nothing, and says plainly what it could not find out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from hmsdr.control import isolated
from hmsdr.control.database import Database
from hmsdr.control.decoded import Change, read_change
from hmsdr.control.logs import log
from hmsdr.control.lost import Lost, Reconciliations
from hmsdr.control.server import ControlData, PostgresServer
from hmsdr.control.state import Upstream
from hmsdr.control.waltail import Tail, changes_tablespaces, read_tail
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.timelines import Stretch, fork, history
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_questions import LOST_KEYS, LOST_ROWS, LOST_SLOTS
from hmsdr.errors import FailedError, HmsdrError

_SQL_SECONDS = 5.0
OUR_TABLES = ("public.hmsdr_epoch", "public.hmsdr_heartbeat")
"""What the agent itself writes: nobody's data."""
_OUR_MESSAGE = "message: transactional: 1 prefix: hmsdr,"
_COMMIT = re.compile(r"COMMIT \d+ \(at ([^)]+)\)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


async def reckon(database: Database, kept: Reconciliations, upstream: Upstream) -> Lost | None:
    """Find out what would be lost when `database`, which is stopped, follows `upstream`; None when they did not part.

    What was found before is not looked for again.

    Raises:
        TemporaryError: the new primary does not answer.
        PermanentError: it refuses us.
        FailedError: the two have nothing to do with each other.
    """
    server, instance = database.server, database.config.instance
    doing = f"comparing the history of {instance.instance} with that of {upstream.host}:{upstream.port}"
    primary = Postgres(instance.model_copy(update={"host": upstream.host, "port": upstream.port}))
    timeline, text = await primary.timeline_history(deadline=_SQL_SECONDS)
    control = await server.control()
    try:
        ours = _own_history(server, control.newest_timeline)
        parted = fork(ours, history(timeline, text))
    except (OSError, ValueError) as error:
        raise FailedError(doing, str(error), "It is another database: rebuild it as a standby") from error
    if parted is None:
        return None
    system = str(control.system_identifier)
    before = await asyncio.to_thread(kept.find, system, parted)
    try:
        tail = await read_tail(server, ours, parted, segment=control.segment, checkpoint=control.checkpoint)
    except FailedError as error:
        if before is not None and before.complete:
            return before
        unknown = Lost(instance.instance, system, parted, None, None, None, complete=False, why=error.found)
        kept.write(unknown)
        return unknown
    if before is not None and before.complete and before.ends is not None and tail.ends <= before.ends:
        return before
    lost = _counted(instance.instance, system, tail)
    if tail.commits == 0:
        return lost
    lost = await _extract(database, kept, control, tail, lost)
    kept.write(lost)
    log("lost.reckoned", **{**lost.as_json(), "fork": format_lsn(lost.fork), "ends": format_lsn(tail.ends)})
    return lost


def _own_history(server: PostgresServer, timeline: int) -> tuple[Stretch, ...]:
    if timeline == 1:
        return history(1, "")
    return history(timeline, (server.directory / "pg_wal" / f"{timeline:08X}.history").read_text())


def _counted(instance: str, system: str, tail: Tail) -> Lost:
    def told(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return Lost(
        instance,
        system,
        tail.begins,
        tail.ends,
        tail.commits,
        round(tail.seconds, 6),
        told(tail.kept_at),
        told(tail.first_at),
        told(tail.last_at),
    )


async def _extract(
    database: Database, kept: Reconciliations, control: ControlData, tail: Tail, lost: Lost
) -> Lost:
    """The same with the rows in a file, or with the reason why they are not."""
    server = database.server
    try:
        if await changes_tablespaces(server, control.timeline, control.redo, control.segment):
            raise FailedError(
                "copying the database", "a tablespace was made or dropped since its last checkpoint", ""
            )
        async with isolated.Isolated(server, database.config.state_directory).copied() as copy:
            return await _decode(database.config.instance.database, copy, kept, tail, lost)
    except (HmsdrError, OSError) as error:
        found = error.found if isinstance(error, HmsdrError) else str(error)
        log("lost.not_extracted", level="error", found=found)
        return replace(lost, complete=False, why=f"the rows could not be extracted: {found}")


async def _decode(database: str, copy: PostgresServer, kept: Reconciliations, tail: Tail, lost: Lost) -> Lost:
    place = copy.directory.parent
    files = {name: place / f"{name}.txt" for name in ("slots", "keys", "rows")}
    questions = {"slots": LOST_SLOTS, "keys": LOST_KEYS, "rows": LOST_ROWS}
    await isolated.ask(
        copy,
        database,
        [
            f"COPY ({' '.join(questions[name].split())}) TO '{str(path).replace(chr(39), chr(39) * 2)}' ENCODING 'UTF8'"
            for name, path in files.items()
        ],
    )
    slots = list(_copied(files["slots"]))
    if not slots:
        return replace(lost, complete=False, why="there is no slot from which rows could be decoded")
    keys: dict[str, list[str]] = {}
    for table, column in _copied(files["keys"]):
        keys.setdefault(table, []).append(column)
    rows = _Rows(files["rows"], tail.begins, keys)
    written = await asyncio.to_thread(kept.write_rows, lost.system, lost.fork, rows.write)
    decodes_from = int(slots[0][1])
    late = decodes_from > tail.begins
    return replace(
        lost,
        **written,
        transactions=len(rows.with_rows),
        rows=sum(rows.tables.values()),
        own=len(rows.own - rows.with_rows),
        tables=dict(sorted(rows.tables.items())),
        unidentified=rows.unidentified,
        complete=not late,
        why=f"slot {slots[0][0]} decodes only what was committed from {format_lsn(decodes_from)} on"
        if late
        else "",
    )


@dataclass(slots=True)
class _Rows:
    """The decoded output in `path`, made into lines of JSON: of what was committed past `begins`, in order of commit."""

    path: Path
    begins: int
    keys: Mapping[str, Sequence[str]]
    tables: dict[str, int] = field(default_factory=dict)
    with_rows: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    unidentified: int = 0

    def write(self, file: BinaryIO) -> None:
        """Write all of it. Read twice: when a transaction was committed stands at its end.

        Raises:
            FailedError: PostgreSQL said what is not understood.
        """
        committed = {
            xid: (int(lsn), _moment(match[1]))
            for lsn, xid, text in _copied(self.path)
            if (match := _COMMIT.fullmatch(text)) is not None and int(lsn) > self.begins
        }
        for number, (_, xid, text) in enumerate(_copied(self.path)):
            if xid not in committed or text.startswith(("BEGIN ", "COMMIT ")):
                continue
            if text.startswith(_OUR_MESSAGE):
                self.own.add(xid)
                continue
            try:
                changes = read_change(text)
            except ValueError as error:
                raise FailedError(
                    f"reading decoded change {number}", str(error), "Keep the data directory; report it"
                ) from error
            lsn, at = committed[xid]
            for change in changes:
                if change.table in OUR_TABLES:
                    self.own.add(xid)
                    continue
                self.with_rows.add(xid)
                name = change.table or "message"
                self.tables[name] = self.tables.get(name, 0) + 1
                line = {
                    "xid": int(xid),
                    "committed_at": at,
                    "commit_lsn": format_lsn(lsn),
                    **self._row(change),
                }
                file.write(json.dumps(line).encode() + b"\n")

    def _row(self, change: Change) -> dict[str, object]:
        """Old key and new values; a key that did not change is that of the new row."""
        old, new = change.old, change.new
        key = self.keys.get(change.table, ())
        if change.operation == "update" and old is None and new is not None and key and set(key) <= set(new):
            old = {name: new[name] for name in key}
        if change.operation in ("update", "delete") and not old:
            self.unidentified += 1
        row: dict[str, object] = {
            "table": change.table,
            "operation": change.operation,
            "old_key": old,
            "new": new,
        }
        return {**row, "unchanged": list(change.unchanged)} if change.unchanged else row


def _copied(path: Path) -> Iterator[list[str]]:
    """The rows of a file that COPY wrote."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            yield [
                _ESCAPED.sub(lambda match: _MEANT.get(match[1], match[1]), value)
                for value in line.removesuffix("\n").split("\t")
            ]


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).isoformat(timespec="microseconds")
