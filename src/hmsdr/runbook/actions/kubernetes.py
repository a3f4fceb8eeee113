"""Kubernetes: point applications at their stores, scale them, see pods and ways in (DB-3, RD-2, SV-1, SV-2).

Every write carries the resourceVersion that was read (the driver's part), so a delayed one cannot undo a newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from hmsdr.drivers.errors import PermanentError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, ServiceName, StepContext, UndoableAction

_CALL_SECONDS = 5.0


class PointArgs(Model):
    """The applications of `region` use the stores of `stores`."""

    region: RegionName
    stores: RegionName
    database: bool = True
    cache: bool = True


class PointApplications(UndoableAction[PointArgs]):
    """DATABASE_HOST and REDIS_HOST of every deployment of the hospital's services (DB-3, RD-2)."""

    name: ClassVar[str] = "kubernetes.point-applications"
    summary: ClassVar[str] = "point the applications at their database and cache"
    Args = PointArgs

    async def check(self, context: StepContext, args: PointArgs) -> Check:
        """Do all deployments name these hosts?"""
        wanted = _hosts(context.systems.playbook, args)
        found = await self._found(context, args)
        wrong = {name: env for name, env in found.items() if env != wanted}
        return Check(
            not wrong, {"hosts": wanted, "deployments": len(found)}, f"{', '.join(wrong)} to be pointed over"
        )

    async def act(self, context: StepContext, args: PointArgs) -> Mapping[str, Any]:
        """Set the environment of each deployment that differs, together."""
        wanted = _hosts(context.systems.playbook, args)
        found = await self._found(context, args)
        kubernetes = context.systems.kubernetes(args.region)
        deadline = context.remaining(at_most=_CALL_SECONDS)
        await asyncio.gather(
            *(
                kubernetes.set_env(name, wanted, deadline=deadline)
                for name, env in found.items()
                if env != wanted
            )
        )
        return {"changed": sorted(name for name, env in found.items() if env != wanted)}

    async def remember(self, context: StepContext, args: PointArgs) -> Mapping[str, Any]:
        """The hosts of each deployment."""
        return {"hosts": await self._found(context, args)}

    async def undo(self, context: StepContext, args: PointArgs, before: Mapping[str, Any]) -> None:
        """Put back the hosts that were there."""
        kubernetes = context.systems.kubernetes(args.region)
        for name, env in before["hosts"].items():
            values = {key: value for key, value in env.items() if value is not None}
            await kubernetes.set_env(name, values, deadline=context.remaining(at_most=_CALL_SECONDS))

    async def _found(self, context: StepContext, args: PointArgs) -> dict[str, dict[str, str | None]]:
        playbook = context.systems.playbook
        keys = _hosts(playbook, args).keys()
        names = {service.deployment for service in playbook.services.values()}
        kubernetes = context.systems.kubernetes(args.region)
        deployments = await kubernetes.deployments(deadline=context.remaining(at_most=_CALL_SECONDS))
        return {
            item.name: {key: item.env.get(key) for key in keys} for item in deployments if item.name in names
        }

    def manual(self, playbook: Playbook, args: PointArgs) -> Manual:
        """The source's line."""
        kubernetes = playbook.regions[args.region].kubernetes
        names = " ".join(f"deployment/{service.deployment}" for service in playbook.services.values())
        pairs = " ".join(f"{key}={value}" for key, value in _hosts(playbook, args).items())
        return Manual(
            (f"kubectl --context={kubernetes.context} set env {names} -n {kubernetes.namespace} {pairs}",),
            "one line 'deployment.apps/… env updated' for each that changed",
            ("Conflict: somebody else changed the deployment at the same time; repeat the line.",),
        )


class ScaleArgs(Model):
    """`service` of `region` runs as many pods as the `role` asks for."""

    region: RegionName
    service: ServiceName
    role: Literal["active", "standby"]


class ScaleDeployment(UndoableAction[ScaleArgs]):
    """Scale a service for its region's role."""

    name: ClassVar[str] = "kubernetes.scale"
    summary: ClassVar[str] = "scale a service to what its region's role asks for"
    Args = ScaleArgs

    async def check(self, context: StepContext, args: ScaleArgs) -> Check:
        """Are as many pods asked for?"""
        wanted = _replicas(context.systems.playbook, args)
        found = (await self._deployment(context, args)).replicas
        # An active region may have been scaled up by others; nothing is taken away from it.
        enough = found >= wanted if args.role == "active" else found == wanted
        return Check(enough, {"replicas": found, "wanted": wanted}, f"{wanted} pods of {args.service}")

    async def act(self, context: StepContext, args: ScaleArgs) -> Mapping[str, Any]:
        """Scale."""
        playbook = context.systems.playbook
        wanted = _replicas(playbook, args)
        await context.systems.kubernetes(args.region).scale(
            playbook.services[args.service].deployment,
            wanted,
            deadline=context.remaining(at_most=_CALL_SECONDS),
        )
        return {"replicas": wanted}

    async def remember(self, context: StepContext, args: ScaleArgs) -> Mapping[str, Any]:
        """How many pods are asked for."""
        return {"replicas": (await self._deployment(context, args)).replicas}

    async def undo(self, context: StepContext, args: ScaleArgs, before: Mapping[str, Any]) -> None:
        """Back to the pods there were."""
        name = context.systems.playbook.services[args.service].deployment
        await context.systems.kubernetes(args.region).scale(
            name, int(before["replicas"]), deadline=context.remaining(at_most=_CALL_SECONDS)
        )

    async def _deployment(self, context: StepContext, args: ScaleArgs) -> Any:
        name = context.systems.playbook.services[args.service].deployment
        kubernetes = context.systems.kubernetes(args.region)
        for item in await kubernetes.deployments(deadline=context.remaining(at_most=_CALL_SECONDS)):
            if item.name == name:
                return item
        raise PermanentError(
            f"scaling {name} in {args.region}",
            "there is no such deployment",
            "Check `services` in the playbook",
        )

    def manual(self, playbook: Playbook, args: ScaleArgs) -> Manual:
        """By hand."""
        kubernetes = playbook.regions[args.region].kubernetes
        name = playbook.services[args.service].deployment
        return Manual(
            (
                f"kubectl --context={kubernetes.context} scale deployment/{name} -n {kubernetes.namespace} "
                f"--replicas={_replicas(playbook, args)}",
            ),
            f"deployment.apps/{name} scaled",
            ("Pods stay Pending: the region lacks room; `kubectl describe pod` says of what.",),
        )


class ReadyArgs(Model):
    """The services of `region` are rolled out and ready."""

    region: RegionName


class DeploymentsReady(Action[ReadyArgs]):
    """Every pod of the new template is ready (FM-3)."""

    name: ClassVar[str] = "kubernetes.ready"
    summary: ClassVar[str] = "wait until every deployment is rolled out"
    Args = ReadyArgs

    async def check(self, context: StepContext, args: ReadyArgs) -> Check:
        """Observed, updated, and ready as many as wanted."""
        names = {service.deployment for service in context.systems.playbook.services.values()}
        kubernetes = context.systems.kubernetes(args.region)
        found = [
            item
            for item in await kubernetes.deployments(deadline=context.remaining(at_most=_CALL_SECONDS))
            if item.name in names
        ]
        ready = {
            item.name: f"{item.ready}/{item.replicas}" for item in sorted(found, key=lambda item: item.name)
        }
        late = sorted(names - {item.name for item in found if item.rolled_out})
        return Check(not late, {"ready": ready}, f"{', '.join(late)} to become ready")

    async def act(self, context: StepContext, args: ReadyArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: ReadyArgs) -> Manual:
        """By hand."""
        kubernetes = playbook.regions[args.region].kubernetes
        where = f"--context={kubernetes.context} -n {kubernetes.namespace}"
        return Manual(
            tuple(
                f"kubectl {where} rollout status deployment/{service.deployment} --timeout=120s"
                for service in playbook.services.values()
            ),
            "deployment … successfully rolled out, five times",
            ("It hangs: `kubectl describe` and `kubectl logs` of the pod that is not ready say why.",),
        )


class RoutesReady(Action[ReadyArgs]):
    """Load balancers have an address and endpoints; the ingress names every service (SV-1, SV-2)."""

    name: ClassVar[str] = "kubernetes.routes"
    summary: ClassVar[str] = "verify load balancers, endpoints and ingress"
    Args = ReadyArgs

    async def check(self, context: StepContext, args: ReadyArgs) -> Check:
        """Each service of the playbook has a way in."""
        kubernetes = context.systems.kubernetes(args.region)
        deadline = context.remaining(at_most=_CALL_SECONDS)
        services, ingresses = await asyncio.gather(
            kubernetes.services(deadline=deadline), kubernetes.ingresses(deadline=deadline)
        )
        wanted = {service.deployment for service in context.systems.playbook.services.values()}
        balanced = {
            item.name: item.address for item in services if item.type == "LoadBalancer" and item.address
        }
        routed = {name for ingress in ingresses for name in ingress.services}
        missing = sorted((wanted - balanced.keys()) | (wanted - routed))
        observed = {"load_balancers": balanced, "routed": sorted(routed & wanted)}
        return Check(not missing, observed, f"a way in for {', '.join(missing)}")

    async def act(self, context: StepContext, args: ReadyArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: the region's own services and ingress follow its pods."""
        return {}

    def manual(self, playbook: Playbook, args: ReadyArgs) -> Manual:
        """The source's lines."""
        context = playbook.regions[args.region].kubernetes.context
        return Manual(
            (
                f"kubectl --context={context} get svc --all-namespaces -o json | "
                "jq -r '.items[] | select(.spec.type == \"LoadBalancer\") | .metadata.name'",
                f"kubectl --context={context} get ingress --all-namespaces -o yaml",
            ),
            "the five services, and an ingress that names each of them",
            ("A service is missing: restore it from the Kubernetes backup of the region.",),
        )


def _hosts(playbook: Playbook, args: PointArgs) -> dict[str, str | None]:
    stores = playbook.regions[args.stores]
    hosts: dict[str, str | None] = {}
    if args.database:
        hosts["DATABASE_HOST"] = stores.postgres.service_host
    if args.cache:
        hosts["REDIS_HOST"] = stores.redis.service_host
    return hosts


def _replicas(playbook: Playbook, args: ScaleArgs) -> int:
    replicas = playbook.services[args.service].replicas
    return replicas.active if args.role == "active" else replicas.standby
