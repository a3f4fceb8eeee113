"""A region's PostgreSQL and the guard over it, simulated: who can commit, what is replicated, what dies with what.

Processes of a database are the postmaster and its backends: a backend may be busy for seconds and commit after its
postmaster is gone (FACTS.md). Commits are told to the checkers, which stand outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from hmsdr.decide.authority import Authority
from hmsdr.sim.world import Machine, Process, World

Row = tuple[int, int]
"""Epoch under which it was committed, and its number."""
History = tuple[tuple[int, int], ...]
"""Epochs promoted under, each with the number of rows there were then."""
BUSY = 0.06
"""Part of all transactions that take seconds."""


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
        self.primary = False
        self.standby_signal = True
        """On disk: whether a start outside the agent comes up as a standby (rule 6)."""
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
        self.busy = 0
        """Backends that are in the middle of a transaction."""
        self.draw = random.Random(seed)
        self._life = 0
        self._number = 0

    @property
    def able(self) -> bool:
        """Whether anything of it can still commit."""
        return self.machine.up and (self.busy > 0 or (self.running and self.primary))

    def start_standby(self) -> None:
        """Start it the way its directory says."""
        if not self.running and self.machine.up:
            self.running, self.primary = True, False
            self.world.say(self.instance, "starts as a standby")

    def start_primary(self) -> None:
        """Start it writable, under the epoch it was promoted under."""
        if not self.running and self.machine.up:
            self.running = True
            self._writable()

    def promote(self, epoch: int) -> None:
        """`pg_promote`: a new history begins here."""
        self.epoch = epoch
        self.history = (*self.history, (epoch, len(self.rows)))
        self.follows = False
        self.standby_signal = False  # PostgreSQL takes it away; the agent puts it back
        self.flush_cache()
        if self.witness is not None:
            self.witness.promoted(self, epoch)
        self.world.say(self.instance, f"promoted under epoch {epoch}")
        self._writable()

    def flush_cache(self) -> None:
        """Redis is declared loss-tolerant: it is emptied at promotion (rule 13)."""
        self.cached = None

    def stop_cleanly(self) -> int:
        """Shut down with a checkpoint; gives the last LSN: everything it ever acknowledged.

        PostgreSQL's sender waits until a standby that is connected has it all.
        """
        here, other = self.machine.site, self.other
        if (
            other is not None
            and not {(here, other.machine.site), (other.machine.site, here)} & self.world.cut
        ):
            other._receive(self.history, len(self.rows))  # noqa: SLF001 - same class
        self.kill()
        return len(self.rows)

    def kill(self, *, backends: bool = True) -> None:
        """SIGKILL of the postmaster and, as it must be, of every backend (rule 3)."""
        if self.running:
            self.world.say(self.instance, "killed" if backends else "its postmaster is killed")
        self.running = False
        if backends:
            self.primary = False
            self.busy = 0
            self._life += 1

    def rewind(self) -> None:
        """Make it a standby of the other side, at what that side had."""
        other = self.other
        assert other is not None  # noqa: S101
        self.rows, self.history = list(other.rows), other.history
        self.running, self.primary, self.follows = True, False, True

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

    def _leads_to(self, history: History) -> bool:
        """Whether what is here is a beginning of that history: else it has diverged, and cannot follow."""
        known = len(self.history)
        if history[:known] != self.history:
            return False
        return len(history) == known or len(self.rows) <= history[known][1]


class Guard(Process):
    """The tiny process that kills the database at the deadline last published (rule 2).

    The deadline is in shared memory: it outlives agent and guard, not a reboot.
    """

    def __init__(self, world: World, machine: Machine, database: Database) -> None:
        super().__init__(world, machine, f"guard@{machine.site}")
        self.database = database
        self.deadline: float | None = None
        self.kill_database: Callable[[], None] = database.kill

    def begin(self) -> None:
        """On duty."""
        self._watch()

    def publish(self, deadline: float | None) -> None:
        """Let the database live until then; None: nothing to guard."""
        self.deadline = deadline
        if deadline is not None and self.alive:
            self._watch()

    def _watch(self) -> None:
        if self.deadline is None:
            return
        left = self.deadline - self.machine.clock()
        if left > 1e-9:  # noqa: PLR2004 - rounding
            self.later(left, self._due, self.deadline)
        elif self.database.able:
            self.say("the lease has run out: kills the database")
            self.kill_database()

    def _due(self, deadline: float) -> None:
        if deadline == self.deadline:
            self._watch()
