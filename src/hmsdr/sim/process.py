"""A simulated process in which real asyncio code runs, and how it reaches others: questions over the wires, with no answer promised."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from hmsdr.errors import HmsdrError
from hmsdr.sim.loop import Handle, Life
from hmsdr.sim.world import LATEST, SILENCE, Machine, Process, World

_RESTART_SECONDS = 1.0
"""After which whoever started a process that ended by itself starts it again."""


class Running(Process, ABC):
    """A process whose program is a coroutine."""

    def __init__(self, world: World, machine: Machine, name: str) -> None:
        super().__init__(world, machine, name)
        self.loop: Life | None = None
        world.processes.append(self)

    @abstractmethod
    def program(self) -> Coroutine[Any, Any, None]:
        """What a new life does; it ends by an error only, or never."""

    def begin(self) -> None:
        """A new life."""
        loop = self.loop = Life(self)  # type: ignore[abstract]  # what nobody uses is not there
        loop.create_task(self.program()).add_done_callback(self._ended)
        loop.go_on()

    def kill(self) -> None:
        """SIGKILL."""
        super().kill()
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.end()

    def resume(self) -> None:
        """SIGCONT: what came meanwhile happens now, in order."""
        super().resume()
        if self.loop is not None:
            self.loop.go_on()

    def _ended(self, done: asyncio.Task[None]) -> None:
        """Crash-only: it says why, and is started again."""
        if self.loop is None or self.loop.over or done.cancelled():
            return
        error = done.exception()
        if error is not None and not isinstance(error, HmsdrError):
            self.world.broken.append(error)
        self.say(f"ends: {error}")
        self.world.at(self.world.now, self._fall, self.life)

    def _fall(self, life: int) -> None:
        if life == self.life:
            self.kill()
            self.world.at(self.world.now + _RESTART_SECONDS, self.start)


class NobodyThereError(ConnectionError):
    """Nobody listens there: the machine says so."""


def asked(
    loop: Life,
    site: str,
    answer: Callable[[], Any],
    *,
    within: float | None = None,
    to: Running | None = None,
) -> asyncio.Future[Any]:
    """A question of `loop`'s process to `site`; its answer, if one comes back.

    Args:
        loop: of who asks.
        site: where it is answered.
        answer: gives the answer when the question arrives, `SILENCE` when there is none, or a coroutine that `to` runs.
        within: seconds after which there is `SILENCE`; None: for ever, somebody else counts.
        to: the process that answers: one that is paused answers late, a dead one refuses.

    Raises:
        asyncio.CancelledError: who asks is dead.
    """
    if loop.over:
        raise asyncio.CancelledError
    question = _Question(loop, site, answer, to)
    if within is not None:
        question.patience = loop.call_later(within, question.give, SILENCE)
    return question.back


class _Question:
    """One question on its way there and back. It may arrive twice, the second time late, and is answered once."""

    __slots__ = ("answer", "back", "loop", "open", "patience", "site", "to", "world")

    def __init__(self, loop: Life, site: str, answer: Callable[[], Any], to: Running | None) -> None:
        self.loop, self.site, self.answer, self.to = loop, site, answer, to
        self.world = world = loop.world
        self.back: asyncio.Future[Any] = loop.create_future()
        self.open = True
        self.patience: Handle | None = None
        here = loop.process.machine.site
        transit = world.transit(here, site)
        if transit is None:
            return
        world.at(world.now + transit, self._arrive)
        if world.duplicates and here != site and world.wires.random() < world.duplicates:
            world.at(world.now + transit + LATEST * world.wires.random() ** 2, self._arrive)

    def _arrive(self) -> None:
        to = self.to
        if to is None:
            self._answered(self.answer())
        elif to.loop is not None:
            to.loop.enter(self._handle)
        elif to.machine.up:
            self._answered(NobodyThereError(f"{to.name} does not run"))

    def _handle(self) -> None:
        loop = None if self.to is None else self.to.loop
        if loop is None:
            return  # killed while it was paused
        given = self.answer()
        if asyncio.iscoroutine(given):
            loop.create_task(given).add_done_callback(self._carried_out)
        else:
            self._answered(given)

    def _carried_out(self, done: asyncio.Task[Any]) -> None:
        if not done.cancelled():
            self._answered(done.result())

    def _answered(self, value: Any) -> None:
        if not self.open:
            return
        self.open = False
        if value is SILENCE:
            return
        transit = self.world.transit(self.site, self.loop.process.machine.site)
        if transit is not None:
            self.world.at(self.world.now + transit, self.loop.deliver, self.give, value)

    def give(self, value: Any) -> None:
        """That is the answer, unless there was one."""
        if not self.back.done():
            if self.patience is not None:
                self.patience.cancel()  # it would wake the process for nothing
                self.patience = None
            if isinstance(value, NobodyThereError):
                self.back.set_exception(value)
            else:
                self.back.set_result(value)
