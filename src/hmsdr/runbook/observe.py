"""What is seen of both regions before a failover is planned: the observations that gates are judged by (FM-1, FM-2).

Asks through drivers, each within a bound; what does not answer is reported as such. Judging is decide/'s part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hmsdr.decide.backups import RECORD_LIMIT, BackupRecord, RecordError, is_record, missing, parse_record
from hmsdr.decide.gates import BackupSeen, GapSeen, GateName, LagSeen, Observations
from hmsdr.decide.soundness import Doubt, doubt
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.kubernetes import Node
from hmsdr.drivers.postgres_questions import PostgresStatus
from hmsdr.runbook.plan import Mode
from hmsdr.runbook.systems import Systems

_T = TypeVar("_T")
_PROBE_SECONDS = 3.0
_STORE_SECONDS = 10.0
"""An object store is far away and slow to greet; a gate is not refused for that."""
_STEADY = timedelta(seconds=3)
"""So long after it was started again a pod counts; the clocks of cluster and operator differ by less."""
_LOOKS = 2
_HTTP_OK = 200
_RECORDS_LOOKED_AT = 3
"""Damaged ones before the newest that is whole; more of them are no hurried look's business."""


async def mode_of(systems: Systems, source: str) -> Mode:
    """Planned when the region to be left can still hand over: its database writes and its agent answers."""
    status, agent = await asyncio.gather(
        _database(systems, source),
        _try(systems.agent(source).status(deadline=_PROBE_SECONDS)),
    )
    writes = status.reachable and status.in_recovery is False
    return "planned" if writes and not isinstance(agent, DriverError) else "unplanned"


async def rest_mode_of(systems: Systems, source: str) -> Mode:
    """For the rest of a failover whose target writes already: planned while anything of the region to be left answers.

    There is nothing to hand over any more, and nothing to prove lost: what lives there is made a standby region, too.
    """
    url = f"{systems.playbook.regions[source].ingress.url}/health"
    http, agent, nodes = await asyncio.gather(
        systems.http().get(url, deadline=_PROBE_SECONDS),
        _try(systems.agent(source).status(deadline=_PROBE_SECONDS)),
        _try(systems.kubernetes(source).nodes(deadline=_PROBE_SECONDS)),
    )
    silent = isinstance(agent, DriverError) and isinstance(nodes, DriverError)
    return "unplanned" if silent and http.status is None else "planned"


async def cache_mode_of(systems: Systems, source: str) -> Mode:
    """Planned when the Redis to be left still answers as a primary: then the other one can follow it first."""
    found = await _try(systems.redis(source).info_replication(deadline=_PROBE_SECONDS))
    return "planned" if not isinstance(found, DriverError) and found.role == "master" else "unplanned"


async def sent_to(systems: Systems) -> tuple[str, ...]:
    """The regions that the public record sends users to, most first; none when that cannot be asked."""
    weights = await _try(systems.dns().weights(deadline=_PROBE_SECONDS))
    if isinstance(weights, DriverError):
        return ()
    known = [name for name in systems.playbook.regions if name in weights and weights[name].weight > 0]
    return tuple(sorted(known, key=lambda name: -weights[name].weight))


async def observations(
    systems: Systems,
    source: str,
    target: str,
    rollback: str | None,
    *,
    serves: bool = False,
    cache: bool = False,
) -> Observations:
    """Everything the four gates need, asked at once.

    Args:
        systems: the hospital.
        source: the region to be left.
        target: the one to go to.
        rollback: the way back, in words; None when there is none.
        serves: whether the target's services can be expected to serve now: users are to be sent there, and the primary they use
            is well. While nobody can write, an unhealthy answer says nothing about them.
        cache: whether its Redis is a condition too, because nothing forces us to go there without one.
    """
    health, lag, backup = await asyncio.gather(
        _health(systems, source, target, serves=serves, cache=cache),
        _lag(systems, source, target),
        newest_backup(systems, source),
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


async def _health(
    systems: Systems, source: str, target: str, *, serves: bool, cache: bool
) -> tuple[bool, str]:
    (status, agent, left, nodes, record), (idle, unwell) = await asyncio.gather(
        asyncio.gather(
            _database(systems, target),
            _try(systems.agent(target).status(deadline=_PROBE_SECONDS)),
            _try(systems.agent(source).status(deadline=_PROBE_SECONDS)),
            _try(systems.kubernetes(target).nodes(deadline=_PROBE_SECONDS)),
            systems.authority.read_authority(),
        ),
        asyncio.gather(
            _try(_without_pods(systems, target)), _unwell(systems, target, serves=serves, cache=cache)
        ),
    )
    holder = record.holder
    holds = holder is not None and holder.instance == systems.playbook.regions[target].postgres.instance
    parts = [
        f"database {'is a standby' if status.in_recovery else 'is a primary' if status.reachable else status.found}",
        f"agent {agent.found if isinstance(agent, DriverError) else 'answers'}",
        f"Kubernetes {nodes.found if isinstance(nodes, DriverError) else _nodes(nodes)}",
    ]
    # Once it holds the right, going back is another failover: this one is finished.
    damaged = "" if holds else _damage(agent, left)
    if damaged:
        parts.append(damaged)
    if not isinstance(idle, DriverError) and idle:
        parts.append(f"no ready pod of {', '.join(idle)}")
    elif isinstance(idle, DriverError) and not isinstance(nodes, DriverError):
        parts.append(f"its pods are not known: {idle.found}")
    parts += unwell
    healthy = (
        status.reachable
        and (status.in_recovery is True or holds)
        and not isinstance(agent, DriverError)
        and not damaged
        and not isinstance(nodes, DriverError)
        and any(node.ready for node in nodes)
        and not isinstance(idle, DriverError)
        and not idle
        and not unwell
    )
    return healthy, "; ".join(parts)


async def _unwell(systems: Systems, target: str, *, serves: bool, cache: bool) -> list[str]:
    """What speaks against the target besides database, agent and Kubernetes, of that which is a condition now."""

    async def serving() -> list[str]:
        url = f"{systems.playbook.regions[target].ingress.url}/health"
        for _ in range(_LOOKS):
            answer = await systems.http().get(url, deadline=_PROBE_SECONDS)
            if answer.status == _HTTP_OK:
                return []
        told = answer.found or str(answer.outcome) if answer.status is None else f"HTTP {answer.status}"
        return [f"{url}: {told}"]

    async def caching() -> list[str]:
        found = await _try(systems.redis(target).info_replication(deadline=_PROBE_SECONDS))
        return [f"Redis {found.found}"] if isinstance(found, DriverError) else []

    asked = [look() for look, wanted in ((serving, serves), (caching, cache)) if wanted]
    return [words for found in await asyncio.gather(*asked) for words in found]


def _damage(target: AgentStatus | DriverError, source: AgentStatus | DriverError) -> str:
    """What speaks against the target's data, in words; empty when nothing does that anybody told."""
    if isinstance(target, DriverError):
        return ""
    primary = None if isinstance(source, DriverError) else source.health
    found = doubt(target.health, target.database.lsn, primary)
    if found is None:
        return ""
    health = primary if found is Doubt.UNCHECKED else target.health
    signs = () if health is None else health.signs
    return f"{found}: {', '.join(f'{sign.kind} in {sign.where} since {sign.since}' for sign in signs)}"


async def _without_pods(systems: Systems, region: str) -> list[str]:
    """Services that should run in a standby region and have no pod there that is ready, and not only for a moment.

    A pod that ends again and again is ready in between: one that was started again just now does not count yet.
    """
    kubernetes = systems.kubernetes(region)
    deployments, pods = await asyncio.gather(
        kubernetes.deployments(deadline=_PROBE_SECONDS), kubernetes.pods(deadline=_PROBE_SECONDS)
    )
    now, where = datetime.now(UTC), systems.playbook.regions[region].kubernetes.namespace
    steady = [
        pod.labels
        for pod in pods
        if pod.namespace == where
        and pod.ready
        and (pod.restarted_at is None or now - pod.restarted_at > _STEADY)
    ]
    known = {item.name: item for item in deployments}

    def runs(deployment: str) -> bool:
        item = known.get(deployment)
        if (
            item is None or not item.selector
        ):  # one that chooses its pods by expressions only is taken at its word
            return item is not None and item.ready > 0
        return any(item.selector.items() <= labels.items() for labels in steady)

    return [
        name
        for name, service in systems.playbook.services.items()
        if service.replicas.standby and not runs(service.deployment)
    ]


def _nodes(nodes: Sequence[Node]) -> str:
    return f"has {sum(node.ready for node in nodes)} of {len(nodes)} nodes ready"


async def _lag(systems: Systems, source: str, target: str) -> LagSeen | DriverError | None:
    """As the standby's agent measures it each second; with the primary gone, the last that it measured."""
    agent, primary, standby = await asyncio.gather(
        _try(systems.agent(target).status(deadline=_PROBE_SECONDS)),
        _database(systems, source),
        _database(systems, target),
    )
    if standby.reachable and standby.in_recovery is False:
        return LagSeen(0.0, 0, live=True, age=timedelta())  # the primary itself: nothing of it can be behind
    if isinstance(agent, DriverError):
        return agent
    seen = agent.replication
    answers = primary.reachable and primary.in_recovery is False
    gap = None
    if seen.primary_lsn is not None and seen.primary_seen_at is not None and agent.database.lsn is not None:
        ahead = max(0, seen.primary_lsn - agent.database.lsn)
        gap = GapSeen(ahead, datetime.now(UTC) - seen.primary_seen_at)
    if seen.measured_at is None:
        return None if gap is None else LagSeen(None, None, live=False, age=gap.age, gap=gap)
    age = datetime.now(UTC) - seen.measured_at
    live = seen.streaming and answers
    return LagSeen(seen.lag_seconds, seen.lag_bytes, live=live, age=age, primary_answers=answers, gap=gap)


async def newest_backup(systems: Systems, source: str) -> BackupSeen | DriverError | None:
    """The newest whole backup of the source's database in the copy elsewhere; without one, that in its own bucket, and so said."""
    where = systems.playbook.regions[source].backups
    smallest = systems.playbook.thresholds.gates.backup_bytes

    async def newest(bucket: str) -> BackupSeen | DriverError | None:
        record = await _try(_newest(systems, bucket, where.prefix))
        if record is None or isinstance(record, DriverError):
            return record
        if record.size < smallest:
            return None
        address = f"s3://{bucket}/{where.prefix}{record.name}"
        return BackupSeen(address, record.size, datetime.now(UTC) - record.ended)

    copy, own = await asyncio.gather(newest(where.copy_bucket), newest(where.bucket))
    if isinstance(copy, BackupSeen):
        return copy
    if isinstance(own, BackupSeen):
        unseen = copy.found if isinstance(copy, DriverError) else ""
        return replace(own, only_in=source, unseen=unseen)
    return copy or own


async def _newest(systems: Systems, bucket: str, prefix: str) -> BackupRecord | None:
    """From the newest record on, the first whose objects are all there: a record alone restores nothing."""
    objects = systems.objects()
    listed = await objects.names(bucket, prefix, deadline=_STORE_SECONDS)
    names = sorted(
        (name for item in listed if is_record(name := item.key.removeprefix(prefix))), reverse=True
    )
    for name in names[:_RECORDS_LOOKED_AT]:
        try:
            content = await objects.read(bucket, prefix + name, limit=RECORD_LIMIT, deadline=_STORE_SECONDS)
            record = parse_record(content, name)
        except RecordError:
            continue
        base = f"{prefix}{record.server}/base/{record.id}/"
        stored = await objects.listing(bucket, base, deadline=_STORE_SECONDS)
        if not missing(record, {item.key.removeprefix(prefix): item.size for item in stored}):
            return record
    return None


async def _database(systems: Systems, region: str) -> PostgresStatus:
    """What the region's database says; one that refuses us cannot be judged, and why is said."""
    try:
        return await systems.postgres(region).status(deadline=_PROBE_SECONDS)
    except DriverError as error:
        return PostgresStatus(reachable=False, found=error.found)


async def _try(call: Awaitable[_T]) -> _T | DriverError:
    """The answer, or the error as a value: for observing, where silence is an answer."""
    try:
        return await call
    except DriverError as error:
        return error
