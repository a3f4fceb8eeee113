"""Carrying out a recovery of the database (RC-2): by the path that was planned, one at a time, resumed by every next life of the agent.

What is to be done and how far it is stands in one small file, written before each step. It chooses no path, and nothing that it
starts is writable. An order to promote ends it at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from hmsdr.control import follow as following
from hmsdr.control.catchup import CatchUp
from hmsdr.control.database import Database
from hmsdr.control.follow import Word
from hmsdr.control.logs import log
from hmsdr.control.rebuilding import Made, Restore, copy_primary, refuse_mount_point, remove, swap
from hmsdr.control.rejoining import Rejoining
from hmsdr.control.state import Upstream, write_durably
from hmsdr.control.survey import size_of
from hmsdr.decide.recovery import Path as Way
from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import FailedError, HmsdrError, RefusedError

REBUILDING = "it is being made anew, beside what is there"
UNFINISHED = "a rewind of it did not end: `hmsdr recover` goes on with it"
_FORMAT = 1
_LOOK_SECONDS = 1.0
_SQL_SECONDS = 5.0
_KNOWN_PART = 0.02
"""Below it nothing can be said of how long the rest takes."""


class Stage(StrEnum):
    """Where a recovery is."""

    FOLLOWING = "following"
    SAVING = "saving"
    MAKING = "making"
    SWAPPING = "swapping"
    CATCHING_UP = "catching-up"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done. ``run`` names the run that it belongs to: the same order of the same run is carried out once."""

    run: str
    epoch: int
    upstream: Upstream
    path: Way
    backup: str | None = None
    word: Word | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One recovery. Moments are ISO 8601 in UTC; ``state`` is running, done or failed; ``kept`` the old directory's name now."""

    order: Order
    state: str
    stage: Stage
    began_at: str
    ended_at: str | None = None
    kept: str | None = None
    made: str = ""
    lost: dict[str, Any] | None = None
    found: str = ""
    remedy: str = ""
    refused: bool = False


@dataclass(slots=True)
class _Shown:
    """How far the present stage is; not durable."""

    words: str = ""
    began: float = field(default_factory=time.monotonic)
    total: int | None = None
    part: float | None = None
    left: float | None = None


class Recovering:
    """The recoveries of one database.

    Args:
        database: what is recovered.
        lock: the agent's, over everything that is done to it.
        rejoining: the way of a database that is still there.
        spawn: has the agent do something that nobody waits for.
        restore: restores backups; None where that is not possible.
    """

    def __init__(
        self,
        database: Database,
        lock: asyncio.Lock,
        rejoining: Rejoining,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        restore: Restore | None = None,
    ) -> None:
        self._database = database
        self._lock = lock
        self._rejoining = rejoining
        self._spawn = spawn
        self._restore = restore
        self._path = database.config.state_directory / "recovery.json"
        self.rates: dict[str, float] = {}
        self._record = self._load()
        self._shown = _Shown()
        self._task: asyncio.Task[None] | None = None
        self._lives = False

    @property
    def _place(self) -> Path:
        real = self._database.server.directory
        return real.with_name(f".{real.name}.hmsdr-rebuild")

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._task is not None and not self._task.done()

    def begin_life(self) -> None:
        """Sweep what a crash left, and go on with what it interrupted; before anything is started."""
        self._lives = True
        self._spawn(self._rejoining.sweep())
        self._spawn(self._rejoining.tell())
        record = self._record
        if self._database.memory.state.rewinding:
            self._database.held = UNFINISHED
        if record is None or record.state != "running":
            return
        if record.order.path in (Way.RESTORE, Way.BASEBACKUP) and record.stage is not Stage.CATCHING_UP:
            self._database.held = REBUILDING
        log("recovery.goes_on", path=record.order.path, stage=record.stage)
        self._start()

    def refuse_another(self, doing: str) -> None:
        """See that none is under way.

        Raises:
            RefusedError: one is.
        """
        if self.busy and self._record is not None:
            raise RefusedError(
                doing,
                f"a recovery is under way ({self._record.order.path}: {self._shown.words or self._record.stage})",
                "Wait for its end: `hmsdr plan recover` shows it; an order to promote ends it at once",
            )

    async def order(self, order: Order) -> dict[str, Any]:
        """Begin it, or join what the same order began; what it has done is not done again. Gives `told`.

        Raises:
            RefusedError: another one is under way, the database may write, or the order is of an older epoch.
            TemporaryError: the agent has just started, and has not looked yet what an earlier life was doing.
        """
        doing = f"recovering {self._database.config.instance.instance} by {order.path}"
        if not self._lives:
            raise TemporaryError(doing, "the agent is just taking the database over", "Ask again in a moment")
        record = self._record
        if record is None or record.order != order or record.state == "failed":
            self.refuse_another(doing)
            following.refuse(self._database, order.epoch, order.upstream)
            if order.path in (Way.RESTORE, Way.BASEBACKUP):
                refuse_mount_point(self._database.server.directory)
            stage = Stage.SAVING if order.path in (Way.RESTORE, Way.BASEBACKUP) else Stage.FOLLOWING
            self._write(Record(order, "running", stage, _now()))
            self._start()
        return self.told()

    async def end(self, epoch: int) -> None:
        """Stop at once for a promotion under `epoch`; one that is no later than what the recovery is of cannot be meant."""
        task, record = self._task, self._record
        if task is not None and not task.done() and record is not None and epoch > record.order.epoch:
            task.cancel()
            await asyncio.wait({task})
            self._failed(
                RefusedError(
                    "recovering the database",
                    "it was ended for an order to promote",
                    "Look at `hmsdr authority show`; plan again if it still is to come back",
                )
            )
        await self._rejoining.end_search()

    def told(self) -> dict[str, Any]:
        """For the agent's status: what is or was done, how far it is, and how long the rest will take, in seconds."""
        record, shown = self._record, self._shown
        if record is None:
            return {"state": "none"}
        running = record.state == "running"
        return {
            "state": record.state,
            "path": record.order.path,
            "backup": record.order.backup,
            "epoch": record.order.epoch,
            "stage": record.stage,
            "words": shown.words if running else "",
            "part": None if shown.part is None or not running else round(shown.part, 4),
            "seconds_left": None if shown.left is None or not running else round(shown.left, 1),
            "began_at": record.began_at,
            "ended_at": record.ended_at,
            "kept": record.kept,
            "made": record.made,
            "lost": record.lost,
            "found": record.found,
            "remedy": record.remedy,
            "refused": record.refused,
        }

    def _start(self) -> None:
        self._shown = _Shown()
        task = self._task = asyncio.create_task(self._run())

        async def wait() -> None:
            await task

        self._spawn(wait())

    async def _run(self) -> None:
        record = self._now
        try:
            if record.stage is Stage.FOLLOWING:
                await self._follow(record.order)
            elif record.stage is not Stage.CATCHING_UP:
                await self._rebuild(record.order)
            await self._catch_up(record.order)
            self._write(replace(self._now, state="done", ended_at=_now()))
            log("recovery.done", path=record.order.path, kept=self._now.kept)
        except (HmsdrError, OSError, TimeoutError) as error:
            self._failed(error)
            if self._now.stage in (Stage.SAVING, Stage.MAKING):
                with suppress(OSError):
                    await asyncio.to_thread(remove, self._place)

    @property
    def _now(self) -> Record:
        assert self._record is not None  # noqa: S101 - one is carried out
        return self._record

    async def _follow(self, order: Order) -> None:
        self._say("finding out what it committed alone, then following", None)
        answer = await self._rejoining.follow(
            order.epoch, order.upstream, order.word, may_rewind=order.path is Way.REWIND
        )
        made = "rewound" if answer["rewound"] else "as it was"
        self._write(replace(self._now, stage=Stage.CATCHING_UP, made=made, lost=answer["lost"]))

    async def _rebuild(self, order: Order) -> None:
        """Beside what is there, verified, and only then in its place; what was there stays under another name."""
        database, directory = self._database, self._database.server.directory
        self._say("finding out what it committed alone", None)
        async with self._rejoining.put_aside(order.epoch, order.upstream, REBUILDING) as lost:
            if self._now.stage in (Stage.SAVING, Stage.MAKING):
                told = None if lost is None else lost.as_json()
                self._write(replace(self._now, stage=Stage.MAKING, lost=told))
                made = await self._make(order)
                kept = f"{directory.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
                kept_as = str(directory.with_name(kept)) if directory.exists() else None
                self._write(replace(self._now, stage=Stage.SWAPPING, kept=kept_as, made=made.words))
            async with self._lock:
                following.refuse(database, order.epoch, order.upstream)
                swap(self._place, directory, Path(self._now.kept or directory.with_name("nothing")))
                database.memory.change(
                    accepted_epoch=order.epoch,
                    upstream=order.upstream,
                    stopped=False,
                    rewinding=False,
                    rewind_failed="",
                )
                database.held = ""
                await database.start_standby()
        self._write(replace(self._now, stage=Stage.CATCHING_UP))
        await asyncio.to_thread(remove, self._place)

    async def _make(self, order: Order) -> Made:
        began, watching = time.monotonic(), asyncio.create_task(self._watch_size())
        try:
            if order.path is Way.BASEBACKUP:
                made = await copy_primary(self._database, order.upstream, self._place, self._say)
            else:
                made = await self._restored(order)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        took = time.monotonic() - began
        self.rates["copy" if order.path is Way.BASEBACKUP else "restore"] = made.size / max(took, 0.001)
        return made

    async def _restored(self, order: Order) -> Made:
        if self._restore is None:
            raise RefusedError(
                "restoring the database", "this agent was started without the means to", "See its log"
            )
        primary = self._database.around.primary(order.upstream)
        timeline, text = await primary.timeline_history(deadline=_SQL_SECONDS)
        return await self._restore(
            self._database.server, self._place, order.backup, {timeline: text}, self._say
        )

    async def _watch_size(self) -> None:
        """How much of what is to come is there."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            shown = self._shown
            if shown.total:
                there = await asyncio.to_thread(size_of, self._place)
                self._progress(min(1.0, there / shown.total))

    async def _catch_up(self, order: Order) -> None:
        self._say("catching up with the primary", None)
        replay = await CatchUp(self._database, order.upstream, self._progress).run()
        if replay is not None:
            self.rates["replay"] = replay

    def _say(self, words: str, total: int | None) -> None:
        log("recovery.stage", words=words)
        self._shown = _Shown(words, total=total)

    def _progress(self, part: float) -> None:
        shown = self._shown
        shown.part = part
        took = time.monotonic() - shown.began
        shown.left = took * (1 - part) / part if part >= _KNOWN_PART else None

    def _failed(self, error: Exception) -> None:
        found = error.found if isinstance(error, HmsdrError) else f"{type(error).__name__}: {error}"
        remedy = error.remedy if isinstance(error, HmsdrError) else "See the agent's log and its disk"
        log("recovery.failed", level="error", found=found)
        with suppress(FailedError):  # a full disk: it is told from memory, and tried again by the next life
            self._write(
                replace(
                    self._now,
                    state="failed",
                    ended_at=_now(),
                    found=found,
                    remedy=remedy,
                    refused=isinstance(error, RefusedError),
                )
            )

    def _write(self, record: Record) -> None:
        """In memory and on disk.

        Raises:
            FailedError: the disk refuses.
        """
        self._record = record
        content = {"format": _FORMAT, "rates": self.rates, **asdict(record)}
        try:
            write_durably(self._path, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise FailedError(
                f"writing {self._path}", str(error), "Make room there, then try again"
            ) from error

    def _load(self) -> Record | None:
        """What an earlier life noted; a file that cannot be read says nothing, and that is said."""
        try:
            raw = json.loads(self._path.read_text())
            if raw.pop("format") != _FORMAT:
                raise ValueError("written by another version")  # noqa: TRY301 - one answer to all damage
            self.rates = {str(name): float(rate) for name, rate in raw.pop("rates").items()}
            return Record(**{**raw, "order": _order(raw["order"]), "stage": Stage(raw["stage"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log("recovery.unreadable", level="error", found=f"{type(error).__name__}: {error}")
            return None


def _order(raw: Mapping[str, Any]) -> Order:
    word = raw["word"]
    return Order(
        str(raw["run"]),
        int(raw["epoch"]),
        Upstream(**raw["upstream"]),
        Way(raw["path"]),
        raw["backup"],
        None if word is None else Word(**word),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
