"""Whether this process itself was held up while it looked: a starved machine makes everybody else seem silent.

Deadlines are kept by the event loop. When that could not run, because the process was stopped, starved or busy, a deadline
passes without the other side having had its time, and its silence proves nothing. It measures; it decides nothing.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

_TICKS = 5
"""So many times within a deadline the loop is asked whether it is on time."""
_SHARE = 0.4
"""Whoever was late by this share of the deadline gave the other side little more than half of it."""


class Punctuality:
    """Measures, while it is entered, by how much the event loop is late.

    Args:
        deadline: what the looks within are given, in seconds.
    """

    def __init__(self, deadline: float) -> None:
        self._step = deadline / _TICKS
        self._limit = deadline * _SHARE
        self._due = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.latest = 0.0
        """The longest that the loop was late, in seconds."""

    @property
    def held_up(self) -> bool:
        """Whether what was silent meanwhile may have answered in time."""
        return self.latest >= self._limit

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ask(self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None  # noqa: S101 - it was entered
        assert self._loop is not None  # noqa: S101
        self._timer.cancel()
        self._measure(self._loop)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + self._step
        self._timer = loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._measure(loop)
        self._ask(loop)

    def _measure(self, loop: asyncio.AbstractEventLoop) -> None:
        self.latest = max(self.latest, loop.time() - self._due)
