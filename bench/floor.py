"""The floor of a failover: only the irreducible work, as parallel as it can be, by a plain script on the same lab.

Promote PostgreSQL, promote Redis, change the record, get five health answers through the public name. The clock
starts when the pods use the new region's stores and are ready, no sooner than hmsdr can have the right to write, and every client
is connected. It has no journal, no checks and no safety: nobody should fail over like this.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import dns.asyncresolver
import psycopg
import redis.asyncio

from hmsdr.drivers.http import HttpAnswer, HttpProbe
from hmsdr.drivers.kubernetes import Kubernetes
from hmsdr.errors import FailedError
from hmsdr.lab.aws.seed import TTL, client
from hmsdr.lab.layout import DATABASE, NAMESPACE, PUBLIC_NAME, SERVICES, ZONE, Layout, RegionLayout
from hmsdr.lab.processes import lab_processes

_PAUSE = 0.002
_LOOK = 0.005
"""How often the name is asked for: faster would take the processor from what is waited for."""
_DEADLINE = 30.0
_OK = 200
_EPOCH = """
INSERT INTO hmsdr_epoch (epoch, instance, since)
SELECT max(epoch) + 1, current_setting('cluster_name'), clock_timestamp() FROM hmsdr_epoch
"""


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds from the clock's start: PostgreSQL writes, Redis writes, the name leads to the new region, all is done."""

    postgres: float
    redis: float
    record: float
    total: float


async def measure(layout: Layout, source: str, target: str, *, before: float) -> Floor:
    """Prepare, then do it against the clock, which starts `before` seconds after the pods were asked for, or when they are ready.

    Raises:
        FailedError: a part is not done within its deadline.
    """
    region = layout.regions[target]
    scaled = time.monotonic()
    await _pods(layout, region)
    route53 = client(layout, "route53")
    zone = route53.list_hosted_zones_by_name(DNSName=ZONE)["HostedZones"][0]["Id"]
    probe = HttpProbe((str(layout.dns),), layout.ca_file)
    cache = redis.asyncio.Redis(host=region.redis.host, port=region.redis.port)
    await cache.ping()
    conninfo = f"host={region.postgres.host} port={region.postgres.port} user=postgres dbname={DATABASE}"
    try:
        await asyncio.sleep(max(0.0, scaled + before - time.monotonic()))
        await asyncio.gather(
            *(_health(probe, region, service, via=str(region.ingress_https)) for service in SERVICES)
        )
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            _stop_agent(layout, region)
            async with asyncio.timeout(_DEADLINE):
                began = time.monotonic()
                postgres, cached, _, record = await asyncio.gather(
                    _promote(connection, began),
                    _promote_cache(cache, began),
                    asyncio.to_thread(_move, route53, zone, layout, source, target),
                    _served(probe, layout, region, began),
                )
                return Floor(postgres, cached, record, time.monotonic() - began)
    except TimeoutError as error:
        raise FailedError(
            "measuring the floor",
            f"not done within {_DEADLINE:g} s",
            f"Try again; its lab: {layout.directory}",
        ) from error
    finally:
        await cache.aclose()
        await probe.close()


def _stop_agent(layout: Layout, region: RegionLayout) -> None:
    """Its agent would kill a standby that is promoted around it, as it should. The lab's end kills stopped ones too."""
    for process in lab_processes(layout.lab_id, layout.directory):
        if process.region == region.name and ("hmsdr agent" in process.command or "guard" in process.command):
            os.kill(process.pid, signal.SIGSTOP)


async def _pods(layout: Layout, region: RegionLayout) -> None:
    """Pods pointed over, scaled, ready, as hmsdr has them when the right to write is free, unless the machine is busy."""
    stores = {
        "DATABASE_HOST": f"postgres-{region.ordinal_name}.hms.system.svc.cluster.local",
        "REDIS_HOST": f"redis-{region.ordinal_name}.hms.system.svc.cluster.local",
    }
    cluster = Kubernetes(region.name, str(layout.kubeconfig), NAMESPACE)
    try:
        for service in SERVICES:
            await cluster.set_env(f"{service}-service", stores, deadline=10)
            await cluster.scale(f"{service}-service", 2, deadline=10)
        ends = time.monotonic() + _DEADLINE
        while not all(each.rolled_out for each in await cluster.deployments(deadline=5)):
            if time.monotonic() > ends:
                raise FailedError(
                    "preparing the floor", f"the pods of {region.name} are not ready", "Try again"
                )
            await asyncio.sleep(0.1)
    finally:
        await cluster.aclose()


async def _promote(connection: psycopg.AsyncConnection[Any], began: float) -> float:
    """Promote without waiting, and try a write every 2 ms: that of the next epoch, by which pods know the primary."""
    await connection.execute("SELECT pg_promote(false)")
    while True:
        try:
            await connection.execute(_EPOCH)
        except psycopg.errors.ReadOnlySqlTransaction:
            await asyncio.sleep(_PAUSE)
        else:
            return time.monotonic() - began


async def _promote_cache(cache: redis.asyncio.Redis, began: float) -> float:
    await cache.replicaof("NO", "ONE")
    await cache.set("floor", "1")
    return time.monotonic() - began


def _move(route53: Any, zone: str, layout: Layout, source: str, target: str) -> None:
    """One exact batch. Whether it is in sync is not asked: the name's servers are."""
    changes = [
        {
            "Action": action,
            "ResourceRecordSet": {
                "Name": f"{PUBLIC_NAME}.",
                "Type": "A",
                "SetIdentifier": name,
                "Weight": weight,
                "TTL": TTL,
                "ResourceRecords": [{"Value": layout.regions[name].ingress_http.host}],
            },
        }
        for name, old, new in ((source, 100, 0), (target, 0, 100))
        for action, weight in (("DELETE", old), ("CREATE", new))
    ]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


async def _served(probe: HttpProbe, layout: Layout, region: RegionLayout, began: float) -> float:
    """Five good answers, asked for as soon as the name leads to the new region; gives when it did."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [layout.dns.host], layout.dns.port
    while True:
        found = await resolver.resolve(PUBLIC_NAME, "A", search=False)
        if found[0].to_text() == region.ingress_https.host:
            break
        await asyncio.sleep(_LOOK)
    record = time.monotonic() - began
    await asyncio.gather(*(_healthy(probe, region, service) for service in SERVICES))
    return record


async def _healthy(probe: HttpProbe, region: RegionLayout, service: str) -> None:
    """Until the service answers well from the new region through the public name."""
    while True:
        answer = await _health(probe, region, service)
        if answer.status == _OK and answer.headers.get("X-HMS-Region") == region.name:
            return
        await asyncio.sleep(_PAUSE)


async def _health(probe: HttpProbe, region: RegionLayout, service: str, via: str | None = None) -> HttpAnswer:
    url = f"https://{PUBLIC_NAME}:{region.ingress_https.port}/{service}-service/health"
    return await probe.get(url, deadline=2, via=via)
