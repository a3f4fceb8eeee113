"""Redis: promote the replica, follow the new primary, verify (RD-1, RD-3).

The cache is loss-tolerant by policy (SAFETY rule 13): it is flushed at promotion, so that nothing older than
the database's own state is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hmsdr.drivers.errors import PermanentError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext
from hmsdr.runbook.actions.database import RegionArgs

if TYPE_CHECKING:
    from hmsdr.drivers.redis import RedisReplication


async def _replication(context: StepContext, region: str) -> RedisReplication:
    """What the Redis of `region` says of itself now."""
    return await context.systems.redis(region).info_replication(deadline=context.remaining(at_most=2))


class RedisReady(Action[RegionArgs]):
    """Redis answers, and what it is now: known before anything depends on it, and the way there is open."""

    name: ClassVar[str] = "redis.ready"
    summary: ClassVar[str] = "confirm that Redis can be promoted"
    Args = RegionArgs

    async def check(self, context: StepContext, args: RegionArgs) -> Check:
        """Reads INFO replication; a replica can be promoted also when its link is down, for it is flushed then."""
        info = await _replication(context, args.region)
        return Check(
            not info.sync_in_progress, {"role": info.role, "link_up": info.link_up}, "its first copy to end"
        )

    async def act(self, context: StepContext, args: RegionArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: RegionArgs) -> Manual:
        """By hand."""
        redis = playbook.regions[args.region].redis
        return Manual(
            (f"redis-cli -h {redis.host} -p {redis.port} INFO replication",),
            "role:slave (or master already), master_sync_in_progress:0",
            ("No answer: start it. The services work without a cache, only slower.",),
        )


class PromoteRedis(Action[RegionArgs]):
    """REPLICAOF NO ONE, then a flush."""

    name: ClassVar[str] = "redis.promote"
    summary: ClassVar[str] = "promote the Redis replica"
    Args = RegionArgs

    async def check(self, context: StepContext, args: RegionArgs) -> Check:
        """Is it a master, as INFO replication says (RD-3)?"""
        info = await _replication(context, args.region)
        return Check(info.role == "master", {"role": info.role}, "the role master")

    async def act(self, context: StepContext, args: RegionArgs) -> Mapping[str, Any]:
        """Promote and flush."""
        await context.systems.redis(args.region).promote(flush=True, deadline=context.remaining())
        return {"flushed": True}

    def manual(self, playbook: Playbook, args: RegionArgs) -> Manual:
        """The source's lines, with the flush that the policy asks for."""
        region = playbook.regions[args.region]
        into = (
            f"kubectl --context={region.kubernetes.context} exec {region.redis.statefulset}-0 "
            f"-n {region.kubernetes.namespace} -- redis-cli"
        )
        return Manual(
            (f"{into} REPLICAOF NO ONE", f"{into} FLUSHALL", f"{into} INFO replication"),
            "OK, OK, then role:master",
            ("READONLY: it still follows; repeat the first line.",),
        )


class ReplicateArgs(Model):
    """`region`'s Redis follows `primary`'s."""

    region: RegionName
    primary: RegionName


class ReplicateRedis(Action[ReplicateArgs]):
    """Make a Redis follow the new primary."""

    name: ClassVar[str] = "redis.replicate"
    summary: ClassVar[str] = "make Redis follow the new primary"
    Args = ReplicateArgs

    async def check(self, context: StepContext, args: ReplicateArgs) -> Check:
        """Is it a replica whose link is up?"""
        info = await _replication(context, args.region)
        return Check(
            info.role == "slave" and info.link_up is True,
            {"role": info.role, "link_up": info.link_up},
            "link up",
        )

    async def act(self, context: StepContext, args: ReplicateArgs) -> Mapping[str, Any]:
        """REPLICAOF, when there is a primary to follow: two replicas of each other would serve nobody."""
        primary = context.systems.playbook.regions[args.primary].redis
        found = await _replication(context, args.primary)
        if found.role != "master":
            raise PermanentError(
                f"making Redis of {args.region} follow that of {args.primary}",
                f"that one is no primary (role {found.role})",
                f"Promote it first: `hmsdr run start cache-failover from={args.region} to={args.primary}` does both",
            )
        await context.systems.redis(args.region).replicate_from(
            primary.host, primary.port, deadline=context.remaining()
        )
        return {}

    def later(self, args: ReplicateArgs) -> str:
        """Redis is moved there once more: it may be lost, and then there is one primary."""
        return f"hmsdr run start cache-failover from={args.region} to={args.primary}"

    def manual(self, playbook: Playbook, args: ReplicateArgs) -> Manual:
        """By hand."""
        redis, primary = playbook.regions[args.region].redis, playbook.regions[args.primary].redis
        into = f"redis-cli -h {redis.host} -p {redis.port}"
        return Manual(
            (f"{into} REPLICAOF {primary.host} {primary.port}", f"{into} INFO replication"),
            "role:slave, master_link_status:up",
            ("master_link_status:down: check that the two can reach each other.",),
        )
