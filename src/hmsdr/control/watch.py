"""Watching one region from here until it is lost: asks on several paths at each interval, decide/ does the judging.

It opens connections and changes nothing. What it finds first and last goes into the log; the looks in between do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hmsdr.control.proctable import boottime
from hmsdr.control.punctuality import Punctuality
from hmsdr.decide.outage import Look, Sight, Watch, look
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.drivers.http import HttpOutcome
from hmsdr.drivers.postgres_questions import PostgresStatus
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

_SERVED = range(200, 500)
GAP_INTERVALS = 4
"""Looks further apart than so many intervals do not join."""
KINDS = frozenset({"ingress", "agent", "database"})
"""The kinds of path on which a region is looked at (FA-3)."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a failover is wanted (FA-1)."""

    kind: str
    region: str
    unreachable_since: datetime
    decided_at: datetime
    hold_down: timedelta
    evidence: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For the log."""
        return {
            "kind": self.kind,
            "region": self.region,
            "unreachable_since": self.unreachable_since.isoformat(),
            "decided_at": self.decided_at.isoformat(),
            "hold_down_seconds": self.hold_down.total_seconds(),
            "seen_seconds": round((self.decided_at - self.unreachable_since).total_seconds(), 3),
            "evidence": self.evidence,
        }


class RegionWatch:
    """Looks at one region.

    Args:
        systems: the hospital.
        region: the region that is watched.
        site: where we are; None outside of all sites.
        on_change: told when it stops or begins to answer.
    """

    def __init__(
        self,
        systems: Systems,
        region: str,
        site: str | None = None,
        on_change: Callable[[Watch], None] = lambda _: None,
    ) -> None:
        self._systems = systems
        self._region = region
        self._references = references(systems.playbook, region, site)
        self._on_change = on_change
        self.told: tuple[float, AgentStatus] | None = None
        """What the region's agent said last, and when it was asked, on the boot-time clock."""
        probing = systems.playbook.thresholds.probing
        self._interval = probing.interval.total_seconds()
        self._timeout = probing.timeout.total_seconds()
        self.held_up = 0
        """Looks in vain that do not count, because this process could not run while it looked."""
        self.watch = Watch(
            systems.playbook.thresholds.triggers.region_unreachable,
            longest_gap=timedelta(seconds=fresh(systems.playbook)),
        )

    async def until_lost(self) -> Trigger:
        """Look at each interval until the hold-down is over. Waits for ever while the region answers."""
        while True:
            began = _now()
            await self.step()
            if self.watch.lost:
                return self._trigger()
            await asyncio.sleep(max(0.0, self._interval - (_now() - began)))

    async def step(self) -> None:
        """One look. One in vain does not count when this process was held up meanwhile: that is a gap, not silence."""
        with Punctuality(self._timeout) as punctuality:
            found = await self._look()
        if found.sight is not Sight.REACHABLE and punctuality.held_up:
            self.held_up += 1
            return
        before = self.watch
        self.watch = look(before, found)
        seen = None if before.last is None else before.last.sight
        if self.watch.last is not None and self.watch.last.sight is not seen:
            self._on_change(self.watch)

    async def run(self) -> None:
        """Look at each interval, for ever."""
        while True:
            began = _now()
            await self.step()
            await asyncio.sleep(max(0.0, self._interval - (_now() - began)))

    def _trigger(self) -> Trigger:
        watch = self.watch
        assert watch.since is not None  # noqa: S101 - it is lost
        assert watch.last is not None  # noqa: S101
        now = datetime.now(UTC)
        return Trigger(
            kind="region-unreachable",
            region=self._region,
            # The last look itself took a while: what counts is how long ago the first one began.
            unreachable_since=now - timedelta(seconds=_now() - watch.since),
            decided_at=now,
            hold_down=watch.hold_down,
            evidence=dict(watch.last.evidence),
        )

    async def _look(self) -> Look:
        """One look on every path at once."""
        at = _now()
        systems, region = self._systems, self._systems.playbook.regions[self._region]
        http, agent, database, seen = await asyncio.gather(
            systems.http().get(f"{region.ingress.url}/health", deadline=self._timeout),
            _heard(systems.agent(self._region).status(deadline=self._timeout)),
            _heard(systems.postgres(self._region).status(deadline=self._timeout)),
            self._reference_seen(),
        )
        if isinstance(agent.status, AgentStatus):
            self.told = (at, agent.status)
        served = http.outcome is HttpOutcome.ANSWERED and http.status in _SERVED
        evidence = {
            "ingress": f"HTTP {http.status}" if http.status else str(http.outcome),
            "agent": agent.words,
            "database": database.words,
        }
        if served or agent.answers or database.answers:
            return Look(at, Sight.REACHABLE, evidence)
        # Who can see neither the region nor anything else may be the one who is cut off.
        if not seen:
            evidence["references"] = f"none of {len(self._references)} answers"
            return Look(at, Sight.BLIND, evidence)
        return Look(at, Sight.UNREACHABLE, evidence)

    async def _reference_seen(self) -> bool:
        """Whether anything answers that has nothing to do with the region."""
        http = self._systems.http()
        answers = await asyncio.gather(*(http.get(url, deadline=self._timeout) for url in self._references))
        return any(answer.outcome is HttpOutcome.ANSWERED for answer in answers)


def fresh(playbook: Playbook) -> float:
    """For how long the last word of a site or of an agent counts, in seconds."""
    probing = playbook.thresholds.probing
    return GAP_INTERVALS * (probing.interval + probing.timeout).total_seconds()


def references(playbook: Playbook, region: str, site: str | None) -> tuple[str, ...]:
    """What a vantage point at `site` checks its own sight with: the other region's way in, and the other sites' controllers."""
    other = playbook.other_region(region)
    urls = [] if other == site else [f"{playbook.regions[other].ingress.url}/health"]
    for each in playbook.sites():
        controller = playbook.controller(each)
        if controller is not None and each not in (site, region):
            urls.append(f"{controller.url}/healthz")
    return tuple(urls)


@dataclass(frozen=True, slots=True)
class _Heard:
    """Whether a path answers, and what was found on it."""

    answers: bool
    words: str
    status: AgentStatus | PostgresStatus | None = None


async def _heard(call: Awaitable[AgentStatus | PostgresStatus]) -> _Heard:
    """What became of one question. Who refuses us is there: a wrong password is no outage."""
    try:
        status = await call
    except PermanentError as error:
        return _Heard(answers=True, words=f"refuses us: {error.found}")
    except DriverError as error:
        return _Heard(answers=False, words=error.found)
    if isinstance(status, PostgresStatus) and not status.reachable:
        return _Heard(answers=False, words=status.found)
    return _Heard(answers=True, words="answers", status=status)


def _now() -> float:
    """Seconds that also count while the machine sleeps: a sleep is a gap, and must show as one."""
    return boottime()
