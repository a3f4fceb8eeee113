"""Is the hospital well, and is it protected? Asks every system once, each within a bound, and judges against the playbook.

What users need is told apart from what protects them: a lost standby region stops nobody today. Only looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from hmsdr.decide.gates import GateState, backup_gate
from hmsdr.drivers.errors import DriverError
from hmsdr.log.store import StoreError
from hmsdr.playbook.base import format_duration
from hmsdr.runbook.observe import newest_backup, sent_to
from hmsdr.runbook.systems import Systems

_T = TypeVar("_T")
ASK_SECONDS = 3.0
CLOUD_SECONDS = 10.0
"""The cloud's API is far away, and its library slow to begin: silence is not concluded from that."""
_HTTP_OK = 200


class Area(StrEnum):
    """What a finding is about."""

    USERS = "users are served"
    PROTECTION = "the hospital is protected"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was asked. ``observed`` is for people; ``limit`` says what was expected, where that is not plain.

    ``remedy`` names the command that mends it, where one does.
    """

    area: Area
    name: str
    well: bool
    observed: str
    limit: str = ""
    remedy: str = ""


async def examine(systems: Systems) -> tuple[Finding, ...]:
    """Everything, asked at once."""
    try:
        authority = await systems.authority.read_authority()
    except StoreError as error:
        holder, words = None, error.found
    else:
        holder = authority.holder.instance if authority.holder else None
        words = f"epoch {authority.epoch}, {authority.phase}, {holder or 'nobody'}"
    regions = systems.playbook.regions
    active = next((name for name, region in regions.items() if region.postgres.instance == holder), None)
    found = [Finding(Area.USERS, "right to write", active is not None, words)]
    if active is None:
        active = systems.playbook.home_region
    standby = systems.playbook.other_region(active)
    groups = await asyncio.gather(
        _services(systems),
        _records(systems, active),
        _active(systems, active),
        _standby(systems, standby),
        _caches(systems, active),
        _backup(systems, active),
        _monitoring(systems, active),
    )
    return (*found, *(each for group in groups for each in group))


async def _services(systems: Systems) -> list[Finding]:
    playbook = systems.playbook

    async def ask(name: str, path: str) -> Finding:
        answer = await systems.http().get(playbook.traffic.public_url + path, deadline=ASK_SECONDS)
        if answer.status is None:
            return Finding(Area.USERS, f"{name} service", False, answer.found or str(answer.outcome))
        where = answer.headers.get("X-HMS-Region", "")
        words = f"HTTP {answer.status} in {1000 * answer.seconds:.0f} ms {f'from {where}' if where else ''}"
        return Finding(Area.USERS, f"{name} service", answer.status == _HTTP_OK, words.rstrip())

    return list(
        await asyncio.gather(*(ask(name, each.health_path) for name, each in playbook.services.items()))
    )


async def _records(systems: Systems, active: str) -> list[Finding]:
    found = await _try(systems.dns().weights(deadline=CLOUD_SECONDS))
    if isinstance(found, DriverError):
        return [Finding(Area.PROTECTION, "public record", False, found.found)]
    weights = {name: item.weight for name, item in found.items()}
    words = ", ".join(f"{name} {weight}" for name, weight in weights.items())
    sends = [name for name, weight in weights.items() if weight]
    if sends and active not in sends:
        words += f"; the database is in {active}"  # as database-failover leaves it: whether that serves, the services say
    return [Finding(Area.USERS, "public record", bool(sends), words, "users are sent somewhere")]


async def _active(systems: Systems, region: str) -> list[Finding]:
    status, nodes = await asyncio.gather(
        systems.postgres(region).status(deadline=ASK_SECONDS),
        _try(systems.kubernetes(region).nodes(deadline=ASK_SECONDS)),
    )
    words = "primary" if status.in_recovery is False else status.found or "a standby"
    return [
        Finding(
            Area.USERS,
            f"database {region}",
            status.reachable and status.in_recovery is False,
            words,
            "primary",
        ),
        _nodes(Area.USERS, region, nodes),
    ]


async def _standby(systems: Systems, region: str) -> list[Finding]:
    limit = systems.playbook.thresholds.gates.replication_lag
    agent, nodes = await asyncio.gather(
        _try(systems.agent(region).status(deadline=ASK_SECONDS)),
        _try(systems.kubernetes(region).nodes(deadline=ASK_SECONDS)),
    )
    area = Area.PROTECTION
    if isinstance(agent, DriverError):
        database = Finding(area, f"standby {region}", False, agent.found)
    else:
        seen = agent.replication
        lag = "unknown" if seen.lag_seconds is None else f"{seen.lag_seconds:.1f} s"
        well = seen.streaming and seen.lag_seconds is not None and seen.lag_seconds < limit.total_seconds()
        words = f"{agent.database.state}, {'streaming' if seen.streaming else 'not streaming'}, lag {lag}"
        remedy = "" if seen.streaming else f"hmsdr follow {region}"
        database = Finding(
            area, f"standby {region}", well, words, f"lag below {format_duration(limit)}", remedy
        )
    return [database, _nodes(area, region, nodes)]


async def _caches(systems: Systems, active: str) -> list[Finding]:
    """Redis of both regions: the one that applications are pointed at is the primary, and the other one follows it.

    Loss-tolerant by policy: the services go on without it, so that it is protection only.
    """
    regions = tuple(systems.playbook.regions)
    used, found = await asyncio.gather(
        _cache_in_use(systems, active),
        asyncio.gather(
            *(_try(systems.redis(region).info_replication(deadline=ASK_SECONDS)) for region in regions)
        ),
    )
    seen, spare = dict(zip(regions, found, strict=True)), systems.playbook.other_region(used)
    there = not isinstance(seen[spare], DriverError)
    findings = []
    for region, info in seen.items():
        name, role = f"redis {region}", "master" if region == used else "slave"
        if isinstance(info, DriverError):
            remedy = _cache_failover(used, spare) if region == used and there else ""
            findings.append(Finding(Area.PROTECTION, name, False, info.found, "", remedy))
            continue
        # Moved once more to where it is looked for, there is one primary and one replica.
        well = info.role == role
        remedy = "" if well or isinstance(seen[used], DriverError) else _cache_failover(spare, used)
        findings.append(Finding(Area.PROTECTION, name, well, f"role {info.role}", f"role {role}", remedy))
    return findings


def _cache_failover(source: str, target: str) -> str:
    return f"hmsdr run start cache-failover from={source} to={target}"


async def _cache_in_use(systems: Systems, active: str) -> str:
    """The region of the Redis that the applications of the users' region are pointed at; `active` if that cannot be told."""
    users = next(iter(await sent_to(systems)), active)
    found = await _try(systems.kubernetes(users).deployments(deadline=ASK_SECONDS))
    if isinstance(found, DriverError):
        return active
    names = {service.deployment for service in systems.playbook.services.values()}
    hosts = {item.env.get("REDIS_HOST") for item in found if item.name in names}
    regions = systems.playbook.regions
    return next((name for name, region in regions.items() if hosts == {region.redis.service_host}), active)


def _nodes(area: Area, region: str, nodes: object) -> Finding:
    if not isinstance(nodes, tuple):
        return Finding(area, f"kubernetes {region}", False, getattr(nodes, "found", "no answer"))
    ready = sum(node.ready for node in nodes)
    return Finding(
        area, f"kubernetes {region}", 0 < ready == len(nodes), f"{ready} of {len(nodes)} nodes ready"
    )


async def _backup(systems: Systems, region: str) -> list[Finding]:
    found = await newest_backup(systems, region)
    problem = found.found if isinstance(found, DriverError) else None
    seen = None if isinstance(found, DriverError) else found
    gate = backup_gate(seen, systems.playbook.thresholds.gates, problem)
    well = gate.state is GateState.PASSED
    return [Finding(Area.PROTECTION, "backup", well, gate.observed, gate.limit)]


async def _monitoring(systems: Systems, region: str) -> list[Finding]:
    label = systems.playbook.prometheus.region_label
    found = await _try(systems.prometheus().query(f'up{{{label}="{region}"}}', deadline=ASK_SECONDS))
    if isinstance(found, DriverError):
        return [Finding(Area.PROTECTION, "monitoring", False, found.found)]
    up = sum(sample.value == 1 for sample in found)
    words = f"{up} of {len(found)} targets of {region} up, {datetime.now(UTC):%H:%M:%S} UTC"
    return [Finding(Area.PROTECTION, "monitoring", 0 < up == len(found), words)]


async def _try(call: Awaitable[_T]) -> _T | DriverError:
    """The answer, or the error as a value: silence is an answer here."""
    try:
        return await call
    except DriverError as error:
        return error
