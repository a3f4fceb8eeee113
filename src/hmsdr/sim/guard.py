"""A simulated guard process: the looks are those of the real guard, at the shared file that the real agent writes.

Between two looks at which nothing has changed and nothing is due the real guard only sleeps: those are left out.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable

from hmsdr.control import guard as real
from hmsdr.control.guard import SIZE, GuardFile
from hmsdr.control.proctable import CLOCK
from hmsdr.sim.database import Database
from hmsdr.sim.world import Machine, Process, World

_LATEST = 0.05
"""Seconds after which a guard sees a change at the latest: its longest sleep."""


class SharedFile(GuardFile):
    """The guard's file, without a disk. It outlives everybody; after a reboot it is what it was."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._begin(bytearray(SIZE))

    def publish(self, deadline: float | None) -> None:
        """Let the database live until then, see the real one."""
        super().publish(deadline)
        self._changed()


class Guard(Process):
    """The tiny process over one database, of the generation that was started last."""

    def __init__(self, world: World, machine: Machine, database: Database) -> None:
        super().__init__(world, machine, f"guard@{machine.site}")
        self.database = database
        self.file = SharedFile(self._changed)
        self.generation = 0
        self.parent: object | None = None
        """The life of the agent that started it."""
        self.parent_lives: Callable[[], bool] = lambda: True
        self._sleeps = random.Random(f"{world.seed}/guard@{machine.site}")
        self._context = contextvars.Context()
        self._context.run(CLOCK.set, machine.clock)

    def take_over(self, generation: int, parent: object, lives: Callable[[], bool]) -> None:
        """A guard that the agent of `parent` starts; the one before leaves when it sees it."""
        self.kill()
        self.generation, self.parent, self.parent_lives = generation, parent, lives
        self.start()

    def begin(self) -> None:
        """On duty, when there is anybody who started us."""
        if self.parent is None or not self.parent_lives():
            self.alive = False  # only an agent starts a guard
            return
        self.file.take_duty(self.generation)
        self._look()

    def orphan(self) -> None:
        """The agent is gone: that is seen at the next look."""
        self._changed()

    def kill_database(self) -> tuple[int, int]:
        """Kill every process of it (rule 3); gives how many were killed, and how many survived."""
        killed = self.database.processes
        self.database.kill()
        return killed, 0

    def _changed(self) -> None:
        if self.alive:
            self.later(_LATEST * self._sleeps.random(), self._look)

    def _look(self) -> None:
        wait = self._context.run(
            real.look,
            self.file,
            self.generation,
            self.kill_database,
            lambda _, killed: self.say(f"the lease has run out: killed {killed} processes"),
            orphaned=lambda: not self.parent_lives(),
        )
        if wait is None:
            self.alive = False
            return
        deadline = self.file.deadline()
        if deadline is not None and (left := deadline - self.machine.clock()) > 0:
            self.later(left + 1e-6, self._due, deadline)  # rounding must not bring it a moment too early

    def _due(self, deadline: float) -> None:
        if deadline == self.file.deadline():
            self._look()
