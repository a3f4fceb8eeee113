"""Watches many endpoints over HTTP from one site: each once in an interval, spread over it, never twice at once.

It asks, and tells what it found; what follows from that is decided elsewhere. Every question has a deadline, connections are used
again, and no more than a stated number of questions are open. Where it cannot keep up, it says so instead of drawing the looks apart
in silence.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.drivers.http import HttpAnswer, HttpOutcome, HttpProbe

_GOOD = range(200, 300)
_SPARE = 16
"""Places beside those that are taken when no endpoint answers at all."""
_TICK_SECONDS = 0.01
"""Questions that fall due within it are asked together: a timer for each would cost as much as the question."""


class Verdict(StrEnum):
    """What one question found."""

    WELL = "well"
    SLOW = "slow"
    """A good answer, but later than is good for users."""
    WRONG = "wrong"
    """An answer with another status than one of the right ones."""
    HALF_OPEN = "half open"
    """A new connection was accepted, and not one byte came over it."""
    SILENT = "silent"
    """No connection, or no whole answer, in time. The next question goes over a new connection, and tells which."""
    NONE = "none"
    """Refused, or cut."""
    UNASKED = "unasked"
    """We could not ask: no address, or no trust; that says nothing of who is there."""


_ANSWERS = frozenset({Verdict.WELL, Verdict.SLOW, Verdict.WRONG})


@dataclass(frozen=True, slots=True)
class Watched:
    """One endpoint. ``via`` is an ``address:port`` to go to instead of resolving the name in `url`; ``good`` are the right statuses."""

    name: str
    url: str
    via: str | None = None
    good: Container[int] = _GOOD


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation: when the question was asked (boot-time clock), what was found, how long it took, in words."""

    at: float
    verdict: Verdict
    seconds: float
    words: str


class Prober:
    """Asks each of `endpoints` once in `interval` seconds.

    Args:
        probe: how to ask; the caller closes it.
        endpoints: whom; their names are different.
        interval: seconds from one question to an endpoint to the next.
        timeout: seconds for one question, less than `interval`.
        slow: from how many seconds on a good answer is a slow one.
        at_once: most questions that are open at the same time; None: as many as there are when nobody answers.
        on_look: told endpoint, what was seen before (None: nothing) and now, after each look.
        keep: whether connections are kept for the next question: one open file for each endpoint.
    """

    def __init__(
        self,
        probe: HttpProbe,
        endpoints: Iterable[Watched],
        *,
        interval: float,
        timeout: float,
        slow: float | None = None,
        at_once: int | None = None,
        on_look: Callable[[Watched, Seen | None, Seen], None] = lambda _endpoint, _before, _now: None,
        keep: bool = True,
    ) -> None:
        found = tuple(endpoints)
        if len({each.name for each in found}) != len(found):
            msg = "two endpoints have the same name"
            raise ValueError(msg)
        if not 0 < timeout < interval:
            msg = f"a timeout of {timeout:g} s does not fit into an interval of {interval:g} s"
            raise ValueError(msg)
        self._probe = probe
        self._interval = interval
        self._timeout = timeout
        self._slow = timeout if slow is None else slow
        self._on_look = on_look
        self._keep = keep
        self._order = sorted(((phase(each.name), each) for each in found), key=lambda each: each[0])
        self._places = asyncio.Semaphore(at_once or math.ceil(len(found) * timeout / interval) + _SPARE)
        self._last: dict[str, Seen] = {}
        self._open: set[str] = set()
        self.asked = 0
        """Questions since the beginning."""
        self.skipped = 0
        """Questions that were not asked in their turn: the machine was paused, or too many were open."""

    @property
    def last(self) -> Mapping[str, Seen]:
        """What was seen last of each endpoint; who was not asked yet is not in it."""
        return self._last

    def silent(self, now: float, seconds: float) -> list[str]:
        """Endpoints that were not looked at within the last `seconds`, as of `now` (boot-time clock)."""
        return [
            each.name
            for _, each in self._order
            if (seen := self._last.get(each.name)) is None or now - seen.at > seconds
        ]

    async def run(self) -> None:
        """Ask for ever; cancelled, no question is left open.

        Raises:
            PermanentError: nobody can be asked: the certificate authority's file cannot be read.
        """
        async with asyncio.TaskGroup() as group:
            await self._rounds(group)

    async def _rounds(self, group: asyncio.TaskGroup) -> None:
        if not self._order:
            return
        began = now = _now()
        number, place = 0, 0
        while True:
            share, endpoint = self._order[place]
            due = began + (number + share) * self._interval
            if due - now > 0:
                await asyncio.sleep(max(due - now, _TICK_SECONDS))
                now = _now()
                continue
            # After a pause nothing is made up for: what was missed is a gap, and is counted as one.
            if now - due > self._interval or endpoint.name in self._open or self._places.locked():
                self.skipped += 1
            else:
                await self._places.acquire()
                self._open.add(endpoint.name)
                self.asked += 1
                group.create_task(self._ask(endpoint))
            place += 1
            if place == len(self._order):
                number, place = number + 1, 0

    async def _ask(self, endpoint: Watched) -> None:
        at = _now()
        before = self._last.get(endpoint.name)
        reuse = self._keep and (before is None or before.verdict in _ANSWERS)
        try:
            answer = await self._probe.get(endpoint.url, self._timeout, via=endpoint.via, reuse=reuse)
        finally:
            self._places.release()
            self._open.discard(endpoint.name)
        seen = Seen(at, verdict(answer, self._slow, endpoint.good), answer.seconds, _words(answer))
        self._last[endpoint.name] = seen
        self._on_look(endpoint, before, seen)


def phase(name: str) -> float:
    """When in an interval an endpoint has its turn, from 0 to 1: by its name, so that a new one does not move the others."""
    return zlib.crc32(name.encode()) / (1 << 32)


def verdict(answer: HttpAnswer, slow: float, good: Container[int] = _GOOD) -> Verdict:
    """What an answer means: slow, wrong and half-open ones are told apart from none."""
    match answer.outcome:
        case HttpOutcome.ANSWERED:
            if answer.status not in good:
                return Verdict.WRONG
            return Verdict.SLOW if answer.seconds > slow else Verdict.WELL
        case HttpOutcome.HALF_OPEN:
            return Verdict.HALF_OPEN
        case HttpOutcome.TIMEOUT:
            return Verdict.SILENT
        case HttpOutcome.DNS | HttpOutcome.TLS:
            return Verdict.UNASKED
        case HttpOutcome.REFUSED | HttpOutcome.RESET:
            return Verdict.NONE


def _words(answer: HttpAnswer) -> str:
    return f"HTTP {answer.status}" if answer.status is not None else answer.found or str(answer.outcome)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
