"""What is seen of both regions before a failover is planned: the observations that gates are judged by (FM-1, FM-2).

Asks through drivers, each within a bound; what does not answer is reported as such. Judging is decide/'s part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hmsdr.decide.gates import BackupSeen, GateName, LagSeen, Observations
from hmsdr.drivers.errors import DriverError
from hmsdr.runbook.plan import Mode
from hmsdr.runbook.systems import Systems

_T = TypeVar("_T")
_PROBE_SECONDS = 3.0


async def mode_of(systems: Systems, source: str) -> Mode:
    """Planned when the region to be left can still hand over: its database writes and its agent answers."""
    status, agent = await asyncio.gather(
        systems.postgres(source).status(deadline=_PROBE_SECONDS),
        _try(systems.agent(source).status(deadline=_PROBE_SECONDS)),
    )
    writes = status.reachable and status.in_recovery is False
    return "planned" if writes and not isinstance(agent, DriverError) else "unplanned"


async def observations(systems: Systems, source: str, target: str, rollback: str | None) -> Observations:
    """Everything the four gates need, asked at once."""
    health, lag, backup = await asyncio.gather(
        _health(systems, target), _lag(systems, source, target), _backup(systems, source)
    )
    problems = [
        (name, str(seen))
        for name, seen in ((GateName.REPLICATION_LAG, lag), (GateName.BACKUPS_CURRENT, backup))
        if isinstance(seen, DriverError)
    ]
    healthy, words = health
    return Observations(
        target=target,
        healthy=healthy,
        health=words,
        lag=None if isinstance(lag, DriverError) else lag,
        backup=None if isinstance(backup, DriverError) else backup,
        rollback=rollback,
        problems=problems,
    )


async def _health(systems: Systems, target: str) -> tuple[bool, str]:
    status, agent, nodes = await asyncio.gather(
        systems.postgres(target).status(deadline=_PROBE_SECONDS),
        _try(systems.agent(target).status(deadline=_PROBE_SECONDS)),
        _try(systems.kubernetes(target).nodes(deadline=_PROBE_SECONDS)),
    )
    parts = [
        f"database {'is a standby' if status.in_recovery else 'is a primary' if status.reachable else status.found}",
        f"agent {agent.found if isinstance(agent, DriverError) else 'answers'}",
        f"Kubernetes {nodes.found if isinstance(nodes, DriverError) else f'has {len(nodes)} nodes'}",
    ]
    healthy = (
        status.reachable
        and status.in_recovery is True
        and not isinstance(agent, DriverError)
        and not isinstance(nodes, DriverError)
        and len(nodes) > 0
    )
    return healthy, "; ".join(parts)


async def _lag(systems: Systems, source: str, target: str) -> LagSeen | DriverError | None:
    """As the standby's agent measures it each second; with the stream gone, the last that it measured."""
    agent = await _try(systems.agent(target).status(deadline=_PROBE_SECONDS))
    if isinstance(agent, DriverError):
        return agent
    seen = agent.replication
    if seen.measured_at is None:
        return None
    primary = await systems.postgres(source).status(deadline=_PROBE_SECONDS)
    live = seen.streaming and primary.reachable
    return LagSeen(seen.lag_seconds, seen.lag_bytes, live=live, age=datetime.now(UTC) - seen.measured_at)


async def _backup(systems: Systems, source: str) -> BackupSeen | DriverError | None:
    """The newest backup of the source's database, in its own bucket or in the copy elsewhere."""
    where = systems.playbook.regions[source].backups
    found = await asyncio.gather(
        *(
            _try(systems.objects().newest(bucket, where.prefix, deadline=_PROBE_SECONDS))
            for bucket in (where.copy_bucket, where.bucket)
        )
    )
    objects = [item for item in found if item is not None and not isinstance(item, DriverError)]
    if not objects:
        return next((item for item in found if isinstance(item, DriverError)), None)
    newest = max(objects, key=lambda item: item.modified)
    age: timedelta = datetime.now(UTC) - newest.modified
    return BackupSeen(newest.key, newest.size, age)


async def _try(call: Awaitable[_T]) -> _T | DriverError:
    """The answer, or the error as a value: for observing, where silence is an answer."""
    try:
        return await call
    except DriverError as error:
        return error
