"""One site's view of everything: kept, told over HTTP and to Prometheus, changes of a verdict in the log. It triggers nothing.

Its drivers are its own: a question that hangs here must not keep the watches, which decide, from their looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hmsdr.control.facets import Answer, Asked, Seen
from hmsdr.control.proctable import boottime
from hmsdr.errors import HmsdrError
from hmsdr.runbook.systems import Systems

_OFTEN, _SELDOM = 4, 60
"""Intervals of probing from one question to the next."""
_CONFIRM = 2
"""Answers in a row that make a change of verdict: one late answer is no news."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one system: the last answer, since when it answers so, and the verdict that was told."""

    seen: Seen
    at: float
    since: float
    count: int
    told: Answer | None = None


_Ask = Callable[[Asked], Awaitable[Seen]]
_QUESTIONS: Mapping[str, tuple[_Ask, int]] = {
    "database": (Asked.database, _OFTEN),
    "slots": (Asked.slots, _OFTEN),
    "redis": (Asked.redis, _OFTEN),
    "kubernetes": (Asked.kubernetes, _OFTEN),
    "agent": (Asked.agent, _OFTEN),
    "backup": (Asked.backup, _SELDOM),
    "alerts": (Asked.alerts, _OFTEN),
}
_ACTIVE_ONLY = frozenset({"slots", "backup", "alerts"})
"""Asked once, of the active region: what the other one would say does not matter."""


class View:
    """Everything that one site sees, besides what triggers.

    Args:
        systems: the hospital; its own, and closed with it.
        on_change: told of a change of verdict: region, system, from, what is seen now.
    """

    def __init__(self, systems: Systems, on_change: Callable[[str, str, Answer | None, Seen], None]) -> None:
        self._systems = systems
        self._on_change = on_change
        probing = systems.playbook.thresholds.probing
        self._interval, self._timeout = probing.interval.total_seconds(), probing.timeout.total_seconds()
        self.active: str | None = None
        """The region with the right to write."""
        self.known: dict[tuple[str, str], Known] = {}
        """By region and system."""

    async def run(self) -> None:
        """Ask, for ever; each question at its own pace, so that a slow one delays no other."""
        try:
            async with asyncio.TaskGroup() as group:
                for region in self._systems.playbook.regions:
                    for system in _QUESTIONS:
                        group.create_task(self._keep_asking(region, system))
        finally:
            await self._systems.close()

    async def _keep_asking(self, region: str, system: str) -> None:
        _, pace = _QUESTIONS[system]
        while True:
            began = boottime()
            await self.ask(region, system)
            await asyncio.sleep(max(self._interval, pace * self._interval - (boottime() - began)))

    async def ask(self, region: str, system: str) -> None:
        """One question."""
        active = None if self.active is None else region == self.active
        if system in _ACTIVE_ONLY and not active:
            self.known.pop((region, system), None)
            return
        question, _ = _QUESTIONS[system]
        with suppress(HmsdrError):  # of ours, such as a kubeconfig that is missing: it has no verdict
            self._take(region, system, await question(Asked(self._systems, region, active, self._timeout)))

    def _take(self, region: str, system: str, seen: Seen) -> None:
        now, before = boottime(), self.known.get((region, system))
        if before is None or before.seen.answer is not seen.answer:
            known = Known(seen, now, now, 1, None if before is None else before.told)
        else:
            known = replace(before, seen=seen, at=now, count=before.count + 1)
        if known.count >= _CONFIRM and known.told is not seen.answer:
            if known.told is not None or seen.answer is not Answer.WELL:
                self._on_change(region, system, known.told, seen)
            known = replace(known, told=seen.answer)
        self.known[region, system] = known

    def as_json(self) -> list[dict[str, Any]]:
        """For `/v1/view`."""
        now = boottime()
        return [
            {
                "region": region,
                "system": system,
                "answer": str(known.seen.answer),
                "found": known.seen.words,
                "seconds_ago": round(now - known.at, 1),
                "for_seconds": round(now - known.since, 1),
            }
            for (region, system), known in sorted(self.known.items())
        ]
