"""What one site asks of everything that a region stands on, one question each: how it answered, told apart, and in words.

Questions only, each within a bound; whether an answer matters is judged elsewhere, and none of these triggers anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

from hmsdr.decide.gates import GateState, backup_gate
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.playbook.base import format_duration
from hmsdr.runbook.observe import newest_backup
from hmsdr.runbook.systems import Systems

_T = TypeVar("_T")
_REFUSED = re.compile(r"refused|unreachable|no route|connect call failed", re.IGNORECASE)
"""As the clients of these systems say it: some keep no error number."""
_SILENT = re.compile(r"no answer within|timed? ?out|no whole answer", re.IGNORECASE)
_OBJECT_STORE_SECONDS = 10.0


class Answer(StrEnum):
    """How something answered. None of the last three is an answer, and they are not the same."""

    WELL = "well"
    SLOW = "slow"
    """Right, and later than half of the time that it is given."""
    WRONG = "wrong"
    """It answers, and what it says is not as it should be; or it refuses us."""
    HALF_OPEN = "half-open"
    """Something takes the connection and says nothing: a stopped process, a dead machine behind a live address."""
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer."""

    answer: Answer
    words: str


class Asked:
    """One question about one region, or about what is in none.

    Args:
        systems: the hospital.
        region: which region it is about.
        active: whether that is the region with the right to write; None when nobody knows.
        deadline: in seconds.
    """

    def __init__(self, systems: Systems, region: str, active: bool | None, deadline: float) -> None:
        self.systems, self.region, self.active, self.deadline = systems, region, active, deadline
        self.settings = systems.playbook.regions[region]

    async def database(self) -> Seen:
        """The active region's database takes a write on the heartbeat table; the other one's is a standby."""
        postgres, where = self.systems.postgres(self.region), self.settings.postgres
        if self.active:
            writing = postgres.heartbeat(where.instance, deadline=self.deadline)
            return await self._timed(writing, lambda _: (True, "takes writes"), where.host, where.port)

        def standby(recovering: bool) -> tuple[bool, str]:
            return recovering or self.active is None, "a standby" if recovering else "not a standby"

        return await self._timed(
            postgres.in_recovery(deadline=self.deadline), standby, where.host, where.port
        )

    async def slots(self) -> Seen:
        """The active region's slot for the other one is there, in use, and has all its WAL."""
        other = self.systems.playbook.regions[self.systems.playbook.other_region(self.region)]
        wanted, where = other.postgres.slot, self.settings.postgres
        found, seen = await self._try(
            self.systems.postgres(self.region).slots(deadline=self.deadline), where.host, where.port
        )
        if found is None:
            return seen
        slot = next((each for each in found if each.name == wanted), None)
        if slot is None:
            return Seen(Answer.WRONG, f"no slot {wanted}")
        well = slot.active and slot.wal_status in ("reserved", "extended")
        words = f"{wanted} {'in use' if slot.active else 'not in use'}, WAL {slot.wal_status or 'unknown'}"
        return Seen(Answer.WELL if well else Answer.WRONG, words)

    async def redis(self) -> Seen:
        """Redis is the master in the active region, and follows with its link up in the other one."""
        where = self.settings.redis
        found, seen = await self._try(
            self.systems.redis(self.region).info_replication(deadline=self.deadline), where.host, where.port
        )
        if found is None:
            return seen
        if self.active is None:
            return Seen(Answer.WELL, f"role {found.role}")
        link = "" if found.link_up is None else f", link {'up' if found.link_up else 'down'}"
        well = found.role == ("master" if self.active else "slave") and found.link_up is not False
        return Seen(Answer.WELL if well else Answer.WRONG, f"role {found.role}{link}")

    async def kubernetes(self) -> Seen:
        """Its API answers, and all nodes are ready."""
        found, seen = await self._try(self.systems.kubernetes(self.region).nodes(deadline=self.deadline))
        if found is None:
            return seen
        ready = sum(node.ready for node in found)
        well = 0 < ready == len(found)
        return Seen(Answer.WELL if well else Answer.WRONG, f"{ready} of {len(found)} nodes ready")

    async def agent(self) -> Seen:
        """Its agent's heartbeat: it answers, and what it says of database, stream, lag and damage."""
        url = urlsplit(self.settings.agent.url)
        found, seen = await self._try(
            self.systems.agent(self.region).status(deadline=self.deadline),
            url.hostname or "",
            url.port or 443,
        )
        if found is None:
            return seen
        words = [found.database.state]
        well = found.database.state == ("primary" if self.active else "standby") or self.active is None
        if found.database.state == "standby":
            lag, limit = found.replication, self.systems.playbook.thresholds.gates.replication_lag
            seconds = "unknown" if lag.lag_seconds is None else f"{lag.lag_seconds:.1f} s"
            late = lag.lag_seconds is None or lag.lag_seconds > limit.total_seconds()
            words.append(
                f"{'streaming' if lag.streaming else 'not streaming'}, lag {seconds}, {lag.lag_bytes or 0} bytes"
            )
            well = well and lag.streaming and not late
        if found.health is not None and found.health.signs:
            words.append(
                "damage: " + ", ".join(f"{each.kind} in {each.where}" for each in found.health.signs)
            )
            well = False
        return Seen(Answer.WELL if well else Answer.WRONG, "; ".join(words))

    async def backup(self) -> Seen:
        """The newest backup of its database is not too old."""
        limits = self.systems.playbook.thresholds.gates
        found = await newest_backup(self.systems, self.region)
        if found is None:
            return Seen(Answer.WRONG, "there is none")
        if isinstance(found, DriverError):
            return judged(found)
        gate = backup_gate(found, limits, None)
        well = gate.state is GateState.PASSED
        words = f"{found.age.total_seconds() / 3600:.1f} h old, at most {format_duration(limits.backup_age)}"
        return Seen(Answer.WELL if well else Answer.WRONG, words if well else gate.observed)

    async def alerts(self) -> Seen:
        """No alert of Prometheus is firing (it is asked for all regions at once)."""
        found, seen = await self._try(self.systems.prometheus().alert_rules(deadline=self.deadline))
        if found is None:
            return seen
        firing = sorted(rule.name for rule in found if rule.state == "firing")
        broken = sorted(rule.name for rule in found if rule.health == "err")
        words = f"firing: {', '.join(firing)}" if firing else f"{len(found)} rules, none is firing"
        if broken or not found:
            words += f"; cannot be evaluated: {', '.join(broken)}" if broken else ": there are no rules"
        return Seen(Answer.WRONG if firing or broken or not found else Answer.WELL, words)

    async def _timed(
        self, call: Awaitable[_T], judge: Callable[[_T], tuple[bool, str]], host: str, port: int
    ) -> Seen:
        """The same with how long it took told apart."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        found, seen = await self._try(call, host, port)
        if found is None:
            return seen
        well, words = judge(found)
        took = loop.time() - began
        if well and took > self.deadline / 2:
            return Seen(Answer.SLOW, f"{words}, after {took:.1f} s")
        return Seen(Answer.WELL if well else Answer.WRONG, words)

    async def _try(self, call: Awaitable[_T], host: str = "", port: int = 0) -> tuple[_T | None, Seen]:
        try:
            return await call, Seen(Answer.WELL, "answers")
        except DriverError as error:
            seen = judged(error)
        if seen.answer is Answer.SILENT and host and await _takes_connections(host, port, self.deadline):
            seen = Seen(Answer.HALF_OPEN, f"takes connections, and gives {seen.words}")
        return None, seen


def judged(error: DriverError) -> Seen:
    """How something answered that gave an error."""
    if isinstance(error, PermanentError):
        return Seen(Answer.WRONG, error.found)
    if _REFUSED.search(error.found):
        return Seen(Answer.REFUSED, error.found)
    return Seen(Answer.SILENT if _SILENT.search(error.found) else Answer.WRONG, error.found)


async def _takes_connections(host: str, port: int, deadline: float) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(deadline):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False
