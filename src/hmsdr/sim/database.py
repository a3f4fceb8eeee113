"""A region's PostgreSQL, simulated: who can commit, what is replicated, what dies with what, what a start gives.

Processes of a database are the postmaster and its backends: a backend may be busy for seconds and commit after its
postmaster is gone (FACTS.md). A postmaster outlives whoever started it. Commits are told to the checkers, which stand outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

from hmsdr.decide.authority import Authority
from hmsdr.sim.world import Machine, World

Row = tuple[int, int]
"""Epoch under which it was committed, and its number."""
History = tuple[tuple[int, int], ...]
"""Epochs promoted under, each with the number of rows there were then."""
BUSY = 0.06
"""Part of all transactions that take seconds."""
START_SECONDS, PROMOTE_SECONDS, STOP_SECONDS = 0.15, 0.02, 0.2
"""From the launch to the first connection, from the wish to the first write, from the wish to the end of a clean stop."""


class Witness(Protocol):
    """Who watches what databases do."""

    def able(self, database: Database) -> None:
        """It can write from now on."""

    def committed(self, database: Database, row: Row) -> None:
        """A client has its acknowledgement."""

    def promise(self, known: Authority | None, epoch: int) -> None:
        """A peer that knows `known` promised something to the holder of `epoch`."""

    def promoted(self, database: Database, epoch: int) -> None:
        """It was promoted."""


class Database:
    """One data directory and the processes on it."""

    def __init__(self, world: World, machine: Machine, instance: str, seed: str) -> None:
        self.world = world
        self.machine = machine
        self.instance = instance
        self.running = False
        """Whether it has a postmaster that takes connections."""
        self.launched = False
        """Whether it has a postmaster."""
        self.primary = False
        self.standby_signal = True
        """On disk: whether a start, by whomever, gives a standby (rule 6)."""
        self.state = "shut down in recovery"
        """What its control file says."""
        self.checkpoint = 0
        """The place of its last checkpoint."""
        self.epoch = 0
        """Under which it was promoted last."""
        self.rows: list[Row] = []
        self.history: History = ()
        """Where this data branched off: PostgreSQL's timelines."""
        self.other: Database | None = None
        self.follows = False
        """Whether it streams from the other side when both run and the wire is well."""
        self.witness: Witness | None = None
        self.cached: Row | None = None
        """The newest row that the region's Redis knows of: it replicates on its own, and may be ahead (rule 13)."""
        self.damaged = False
        """Whether a page of it is spoilt."""
        self.spoils: int | None = None
        """From which row on its WAL spoils whoever replays it; None: the damage is its disk's alone."""
        self.signs: list[dict[str, Any]] = []
        """What its agent has noted of damage: on disk."""
        self.checked: tuple[int, int] | None = None
        """Where the last complete and clean check began, and on which timeline: on disk."""
        self.busy = 0
        """Backends that are in the middle of a transaction."""
        self.draw = random.Random(seed)
        self.pid = 0
        """Of the last postmaster."""
        self.when_gone: list[Callable[[], None]] = []
        """Told, once, when the postmaster ends."""
        self.when_unsignalled: list[Callable[[], None]] = []
        """Told, once, when standby.signal goes."""
        self._life = 0
        self._number = 0

    @property
    def able(self) -> bool:
        """Whether anything of it can still commit."""
        return self.machine.up and (self.busy > 0 or (self.running and self.primary))

    @property
    def processes(self) -> int:
        """How many there are: postmaster and backends."""
        return (1 + (1 if self.running else 0) if self.launched else 0) + self.busy

    @property
    def timeline(self) -> int:
        """Counts its promotions."""
        return 1 + len(self.history)

    @property
    def streams(self) -> bool:
        """Whether it is a standby whose stream is up."""
        other = self.other
        if other is None or not (self.running and self.follows) or self.primary:
            return False
        here, there = self.machine.site, other.machine.site
        joined = other.machine.up and not {(here, there), (there, here)} & self.world.cut
        return joined and other.running and other.primary and self._leads_to(other.history)

    def launch(self, *, follows: bool) -> None:
        """Start a postmaster on it: what it becomes is what the directory says."""
        if self.launched or not self.machine.up:
            return
        self.pid += 1
        self.launched, self.follows, self.state = True, follows, "in production"
        self.world.at(self.world.now + START_SECONDS, self._up, self.pid, not self.standby_signal)

    def _up(self, pid: int, writable: bool) -> None:
        if pid != self.pid or not self.launched:
            return
        self.running = True
        self.world.say(self.instance, "is up as the primary" if writable else "is up as a standby")
        if writable:
            self._writable()

    def promote(self, epoch: int) -> None:
        """`pg_promote`: done when a moment has passed, whoever asked."""
        self.world.at(self.world.now + PROMOTE_SECONDS, self._promoted, self.pid, epoch)

    def _promoted(self, pid: int, epoch: int) -> None:
        """A new history begins here."""
        if pid != self.pid or not self.running or self.primary:
            return
        self.epoch = epoch
        self.history = (*self.history, (epoch, len(self.rows)))
        self.follows = False
        self.unsignal()  # PostgreSQL takes it away; the agent puts it back
        self.flush_cache()
        if self.witness is not None:
            self.witness.promoted(self, epoch)
        self.world.say(self.instance, f"promoted under epoch {epoch}")
        self._writable()

    def unsignal(self) -> None:
        """standby.signal is there no more."""
        self.standby_signal = False
        told, self.when_unsignalled = self.when_unsignalled, []
        for each in told:
            each()

    def flush_cache(self) -> None:
        """Redis is declared loss-tolerant: it is emptied at promotion (rule 13)."""
        self.cached = None

    def stop(self) -> None:
        """Ask for a clean stop: sessions end, a connected standby gets everything, a checkpoint is written."""
        self.world.at(self.world.now + STOP_SECONDS, self._stopped, self.pid)

    def _stopped(self, pid: int) -> None:
        if pid != self.pid or not self.launched:
            return
        other, here = self.other, self.machine.site
        if self.primary and other is not None:
            there = other.machine.site
            if not {(here, there), (there, here)} & self.world.cut:
                other._receive(self.history, len(self.rows))  # noqa: SLF001 - same class
        state = "shut down" if self.primary else "shut down in recovery"
        self.world.say(self.instance, "stops cleanly")
        self.kill()
        self.state, self.checkpoint = state, self.end_told()

    def end_told(self) -> int:
        """Where a clean stop says that its WAL ends: it covers everything it ever acknowledged (rule 9)."""
        return len(self.rows)

    def kill(self, *, backends: bool = True) -> None:
        """SIGKILL of the postmaster and, as it must be, of every backend (rule 3)."""
        if self.launched:
            self.world.say(self.instance, "killed" if backends else "its postmaster is killed")
        self.running = self.launched = False
        if backends:
            self.primary = False
            self.busy = 0
            self._life += 1
        told, self.when_gone = self.when_gone, []
        for gone in told:
            gone()

    def rewind(self) -> bool:
        """`pg_rewind`: it has what the other side has now; whether that could be read."""
        other = self.other
        if other is None or not (other.running and other.primary) or self.launched:
            return False
        self.rows, self.history = list(other.rows), other.history
        self.state = "in archive recovery"
        self.damaged, self.spoils = other.damaged, other.spoils
        return True

    def damage(self, *, spreads: bool) -> None:
        """A page is spoilt: by this disk alone, or by what is written, so that whoever replays it has it, too."""
        self.damaged, self.spoils = True, len(self.rows) if spreads else None

    def _writable(self) -> None:
        self.primary = True
        if self.witness is not None:
            self.witness.able(self)
        self._life += 1
        self._transact(self._life)

    def _transact(self, life: int) -> None:
        """Clients at work: one transaction after another, some of them long."""
        if life != self._life or not (self.running and self.primary):
            return
        long = self.draw.random() < BUSY
        seconds = 1 + 9 * self.draw.random() if long else 0.01 + 0.03 * self.draw.random()
        self.busy += 1
        self.world.at(self.world.now + seconds, self._commit, life)
        self.world.at(self.world.now + 0.4 + 0.4 * self.draw.random(), self._transact, life)

    def _commit(self, life: int) -> None:
        if life != self._life or not self.machine.up:
            return
        self.busy -= 1
        self.write()

    def write(self) -> None:
        """A transaction is committed and acknowledged."""
        self._number += 1
        row = (self.epoch, self._number)
        self.rows.append(row)
        if self.witness is not None:
            self.witness.committed(self, row)
        other = self.other
        self.cached = row
        if (
            other is not None
            and other.follows
            and (self.machine.site, other.machine.site) not in self.world.cut
        ):
            other.cached = row
        if other is not None and other.follows:
            transit = self.world.transit(self.machine.site, other.machine.site)
            if transit is not None:
                self.world.at(self.world.now + transit, other._receive, self.history, len(self.rows))  # noqa: SLF001

    def _receive(self, history: History, length: int) -> None:
        other = self.other
        if other is None or not (self.running and self.follows and self.machine.up) or self.primary:
            return
        if history != other.history or length > len(other.rows) or not self._leads_to(history):
            return
        self.history = history
        if length > len(self.rows):
            self.rows.extend(other.rows[len(self.rows) : length])
        if other.spoils is not None and len(self.rows) > other.spoils:
            self.damaged, self.spoils = True, other.spoils

    def _leads_to(self, history: History) -> bool:
        """Whether what is here is a beginning of that history: else it has diverged, and cannot follow."""
        known = len(self.history)
        if history[:known] != self.history:
            return False
        return len(history) == known or len(self.rows) <= history[known][1]
