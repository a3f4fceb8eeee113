"""A region's cluster beside the newest backup of its objects: what is gone, and restoring just that (RC-4). What is there stays."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hmsdr.backup.cluster import Cluster, Step
from hmsdr.decide.damageassessment import ClusterSeen
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.runbook.systems import Systems

_ASK_SECONDS = 10.0
_STORE_SECONDS = 20.0
_NAME = re.compile(r"^kubernetes_backup_\d{8}\.tar\.gz$")


@dataclass(frozen=True, slots=True)
class Compared:
    """The cluster beside an archive: steps that would create what is gone, files of what differs, how many are the same."""

    missing: tuple[Step, ...]
    different: tuple[str, ...]
    same: int


def cluster_of(systems: Systems, region: str) -> Cluster:
    """The cluster of `region`, with the drivers of `systems`."""
    return Cluster(systems.playbook, region, systems.objects(), systems.kubernetes(region), lambda _: None)


async def newest_archive(systems: Systems, region: str) -> str:
    """The name of the newest archive of the region's objects in either bucket.

    Raises:
        RefusedError: there is none, or no bucket answers.
    """
    where = systems.playbook.regions[region].backups
    prefix = f"{systems.playbook.backups.kubernetes.prefix}{region}/"
    names: set[str] = set()
    wrong = []
    for bucket in (where.bucket, where.copy_bucket):
        try:
            listed = await systems.objects().names(bucket, prefix, deadline=_STORE_SECONDS)
        except DriverError as error:
            wrong.append(f"{bucket}: {error.found}")
            continue
        names |= {item.key.removeprefix(prefix) for item in listed}
    found = [name for name in names if _NAME.fullmatch(name)]
    if not found:
        raise RefusedError(
            f"looking for a backup of the objects of {region}",
            "; ".join(wrong) or f"there is none under {prefix}",
            f"Make one beforehand: `hmsdr backup run --only kubernetes --region {region}`",
        )
    return max(found)


async def compared(systems: Systems, region: str, archive: str) -> Compared:
    """What of `archive` is gone, and what differs.

    Raises:
        HmsdrError: the archive cannot be read, or the API does not answer.
    """
    cluster = cluster_of(systems, region)
    contents = cluster.contents(await cluster.fetch(archive), archive, None)
    steps, same = await cluster.plan(contents)
    missing = tuple(step for step in steps if step.over is None)
    return Compared(missing, tuple(step.file for step in steps if step.over is not None), same)


async def look_at_cluster(systems: Systems, region: str) -> ClusterSeen:
    """The region's cluster, as far as it answers."""
    kubernetes = systems.kubernetes(region)
    try:
        nodes = await kubernetes.nodes(deadline=_ASK_SECONDS)
        deployments = {each.name for each in await kubernetes.deployments(deadline=_ASK_SECONDS)}
    except DriverError as error:
        return ClusterSeen(found=error.found)
    ready = sum(node.ready for node in nodes)
    wanted = {service.deployment for service in systems.playbook.services.values()}
    lacking = tuple(f"deployments/{name}" for name in sorted(wanted - deployments))
    try:
        archive = await newest_archive(systems, region)
        beside = await compared(systems, region, archive)
    except HmsdrError as error:
        return ClusterSeen("", len(nodes), ready, "", error.found, lacking)
    return ClusterSeen(
        "",
        len(nodes),
        ready,
        archive,
        "",
        tuple(step.file for step in beside.missing),
        beside.different,
        beside.same,
    )
