"""What a cluster has lost is created again from the backup of its objects, in the order in which they need one another (RC-4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from hmsdr.decide.clusterbackup import plural_of
from hmsdr.errors import RefusedError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.recovery.cluster import cluster_of, compared
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext

_DEPLOYMENTS = "deployments"


class RestoreArgs(Model):
    """What of `archive` is gone from the cluster of `region`; no archive: the playbook's deployments must be there."""

    region: RegionName
    archive: str = ""


class RestoreObjects(Action[RestoreArgs]):
    """Objects that are gone are there again; what is there, the same or not, is left alone."""

    name: ClassVar[str] = "kubernetes.restore"
    summary: ClassVar[str] = "create what the cluster has lost from the backup of its objects"
    Args = RestoreArgs

    async def check(self, context: StepContext, args: RestoreArgs) -> Check:
        """Is anything gone?"""
        async with asyncio.timeout(context.remaining()):
            if not args.archive:
                return await self._without(context, args)
            found = await compared(context.systems, args.region, args.archive)
        missing = [step.file for step in found.missing]
        return Check(
            not missing,
            {"missing": missing, "different": list(found.different), "same": found.same},
            f"{', '.join(missing)} to be created",
        )

    async def _without(self, context: StepContext, args: RestoreArgs) -> Check:
        """No archive to compare with: nothing can be restored, so what the playbook names has to be there."""
        playbook = context.systems.playbook
        wanted = {service.deployment for service in playbook.services.values()}
        there = await context.systems.kubernetes(args.region).deployments(
            deadline=context.remaining(at_most=10)
        )
        missing = sorted(wanted - {each.name for each in there})
        if missing:
            raise RefusedError(
                f"restoring the objects of {args.region}",
                f"{', '.join(missing)} are gone, and there is no backup of them",
                "Make them as they were made first; then `hmsdr backup run --only kubernetes`",
            )
        return Check(True, {"missing": [], "deployments": len(wanted)})

    async def act(self, context: StepContext, args: RestoreArgs) -> Mapping[str, Any]:
        """Ask the API whether it would take all of it, then create it."""
        async with asyncio.timeout(context.remaining()):
            found = await compared(context.systems, args.region, args.archive)
            cluster = cluster_of(context.systems, args.region)
            done = await cluster.restore(found.missing, same=found.same, replace=False)
        created = list(done.created)
        return {
            "archive": args.archive,
            "created": created,
            "deployments": sum(plural_of(name) == _DEPLOYMENTS for name in created),
        }

    def manual(self, playbook: Playbook, args: RestoreArgs) -> Manual:
        """The source's line."""
        kubernetes = playbook.regions[args.region].kubernetes
        file = args.archive or "kubernetes_backup_YYYYMMDD.tar.gz"
        return Manual(
            (
                f"scripts/restore-kubernetes.sh {file} --region {args.region} --dry-run",
                f"scripts/restore-kubernetes.sh {file} --region {args.region}",
                f"kubectl --context={kubernetes.context} get pods -n {kubernetes.namespace}",
            ),
            "what is gone is created; pods become Running",
            (
                "Something is there and different: it is named and left alone; --replace puts the archive's in its place.",
                "Encrypted for another key: name the private key with --identity.",
            ),
        )
