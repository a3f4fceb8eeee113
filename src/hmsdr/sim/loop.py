"""An event loop in virtual time: one life of one simulated process, in which the real asyncio code runs as it is.

It has a process's three ways of not running: paused (what comes meanwhile waits), killed (nothing of it reaches the world any
more), and on a clock with a rate of its own. Only the world's heap of moments decides what happens when.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from hmsdr.control.logs import LISTENER
from hmsdr.control.proctable import CLOCK

if TYPE_CHECKING:
    from hmsdr.sim.process import Running

_T = TypeVar("_T")
_ROUNDS = 8
"""In which everything of a life that was killed has ended: a task that waits in its own clean-up is cancelled again."""
_MOST = 100_000
"""Steps at one moment: more is an endless loop."""


class Handle:
    """A call that is due: as much of `asyncio.Handle` as is used."""

    __slots__ = ("arguments", "callback", "off")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback, self.arguments = callback, arguments
        self.off = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off


class Life(asyncio.AbstractEventLoop):
    """The loop of one life of `process`."""

    def __init__(self, process: Running) -> None:
        self.process = process
        self.world = process.world
        self.over = False
        """Killed: whatever of it still runs, to be cleared away, reaches nobody."""
        self._clock = process.machine.clock
        self._rate = process.machine.rate
        self._ready: deque[Handle] = deque()
        self._awake = False
        self._context = contextvars.Context()
        self._context.run(CLOCK.set, self._clock)
        self._context.run(LISTENER.set, self._told)
        self._within = self._context.run

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Seconds on the machine's clock that never jumps."""
        return self._clock()

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Always, as long as it lives."""
        return not self.over

    def is_closed(self) -> bool:
        """Whether it was killed."""
        return self.over

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """At this moment, after what is due already."""
        handle = Handle(callback, args)
        self._ready.append(handle)
        if not self._awake:
            self._awake = True
            self.world.at(self.world.now, self.go_on)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Handle:
        """After `delay` seconds of our clock."""
        handle = Handle(callback, args)
        if not self.over:
            self.world.at(self.world.now + max(0.0, delay) / self._rate, self._due, handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Handle:
        """When our clock says so."""
        handle = Handle(callback, args)
        if not self.over:
            now = self.world.now
            self.world.at(max(now, now + (when - self._clock()) / self._rate), self._due, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of ours."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, _T], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[_T]:
        """A task of ours."""
        return asyncio.Task(coro, loop=self, name=name or "task", context=self._context)

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:  # type: ignore[override]
        """What is done in a thread takes no time here."""
        del executor
        done: asyncio.Future[_T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody looked at: as bad as a crash of the world, unless the process is dead anyway."""
        error = context.get("exception")
        if error is not None and not self.over:
            self.world.broken.append(error)

    # What the world does with it.

    def enter(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Something from outside reaches the process: now, or when it goes on."""
        if self.over:
            return
        if events._get_running_loop() is None:  # noqa: SLF001 - one process runs at a time
            self._ready.append(Handle(callback, arguments))
            self.go_on()
        else:
            self.call_soon(callback, *arguments)

    def deliver(self, give: Callable[[Any], None], value: Any) -> None:
        """An answer is there: whoever waits for it goes on now, or when the process does."""
        if self.over:
            return
        if events._get_running_loop() is None:  # noqa: SLF001
            self._awake = True  # what becomes ready is done at once
            give(value)
            self._awake = False
            self.go_on()
        else:
            self.call_soon(give, value)

    def go_on(self) -> None:
        """Do everything that is due, unless the process is paused."""
        if not self.process.paused:
            self._run()

    def end(self) -> None:
        """SIGKILL: the ports are dead before anything learns of it, so that no clean-up reaches the world."""
        self.over = True
        for _ in range(_ROUNDS):
            left = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not left and not self._ready:
                return
            for task in left:
                task.cancel()
            self._run()

    def _due(self, handle: Handle) -> None:
        if not (handle.off or self.over):
            self._ready.append(handle)
            if not self.process.paused:
                self._run()

    def _run(self) -> None:
        self._awake = True
        events._set_running_loop(self)  # noqa: SLF001 - what every loop does while it runs
        try:
            self._within(self._do)
        finally:
            events._set_running_loop(None)  # noqa: SLF001
            self._awake = False

    def _do(self) -> None:
        """All in one context: nothing here sets a variable for one task alone."""
        ready, steps = self._ready, 0
        while ready:
            handle = ready.popleft()
            if not handle.off:
                handle.callback(*handle.arguments)
            steps += 1
            if steps > _MOST:
                raise RuntimeError(f"{self.process.name} does not come to rest")

    def _told(self, event: str, fields: Mapping[str, Any]) -> None:
        if self.world.history is not None and not self.over:
            words = ", ".join(f"{name} {value}" for name, value in fields.items() if value not in (None, ""))
            self.process.say(f"{event}{': ' if words else ''}{words}")
