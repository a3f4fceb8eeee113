"""Kubernetes, over lightkube: deployments, services, ingresses, nodes and pods of one namespace.

Every write carries the resourceVersion that was read, so that a delayed one never undoes a newer. It decides
nothing: what to point where, and how many pods there should be, is its callers' part.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from hmsdr.decide.clusterbackup import Resource as Kind
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError

if TYPE_CHECKING:
    from lightkube import AsyncClient
    from lightkube.config.kubeconfig import SingleConfig

_T = TypeVar("_T")
_CONFLICT = 409
_TRY_AGAIN = frozenset({_CONFLICT, 429, 503})
_UNKNOWN = frozenset({500, 502, 504})
_ALL = "*"
_CONFLICT_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment: what is asked for, and how far it is."""

    name: str
    replicas: int
    """Pods asked for."""
    ready: int
    updated: int
    """Pods of the newest template."""
    env: dict[str, str]
    """Plain variables of its containers, together."""
    resource_version: str
    rolled_out: bool
    """All pods are of the newest template and ready, and no old one is left."""
    selector: dict[str, str] = field(default_factory=dict)
    """The labels that its pods carry."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service; `address` is its load balancer's, or None."""

    name: str
    type: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Ingress:
    """An ingress, and the services that its rules name."""

    name: str
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of any namespace."""

    namespace: str
    name: str
    phase: str
    ready: bool
    restarts: int
    address: str | None
    labels: dict[str, str] = field(default_factory=dict)
    restarted_at: datetime | None = None
    """When a container of it was started again last (UTC); None when none was."""


class Kubernetes:
    """One namespace of one cluster.

    Args:
        context: context of the kubeconfig.
        kubeconfig: its path; None means $KUBECONFIG or ~/.kube/config, as for kubectl.
        namespace: where the applications are.
    """

    def __init__(self, context: str, kubeconfig: str | None, namespace: str) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._client: AsyncClient | None = None

    async def aclose(self) -> None:
        """Close connections; the next call would open new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def deployments(self, *, deadline: float) -> tuple[Deployment, ...]:
        """All deployments of the namespace.

        Args:
            deadline: seconds that this may take.

        Raises:
            DriverError: they could not be read.
        """
        from lightkube.resources.apps_v1 import Deployment as Resource  # noqa: PLC0415

        return await self._list(Resource, _deployment, deadline, namespace=self._namespace)

    async def services(self, *, deadline: float) -> tuple[Service, ...]:
        """All services of the namespace; errors as for `deployments`."""
        from lightkube.resources.core_v1 import Service as Resource  # noqa: PLC0415

        return await self._list(Resource, _service, deadline, namespace=self._namespace)

    async def ingresses(self, *, deadline: float) -> tuple[Ingress, ...]:
        """All ingresses of the namespace; errors as for `deployments`."""
        from lightkube.resources.networking_v1 import Ingress as Resource  # noqa: PLC0415

        return await self._list(Resource, _ingress, deadline, namespace=self._namespace)

    async def nodes(self, *, deadline: float) -> tuple[Node, ...]:
        """All nodes of the cluster; errors as for `deployments`."""
        from lightkube.resources.core_v1 import Node as Resource  # noqa: PLC0415

        return await self._list(Resource, _node, deadline, namespace=None)

    async def pods(self, *, deadline: float) -> tuple[Pod, ...]:
        """All pods of all namespaces; errors as for `deployments`."""
        from lightkube.resources.core_v1 import Pod as Resource  # noqa: PLC0415

        return await self._list(Resource, _pod, deadline, namespace=_ALL)

    async def scale(self, name: str, replicas: int, *, deadline: float) -> None:
        """Ask for `replicas` pods of a deployment.

        Raises:
            TemporaryError: not done; somebody else changed the deployment meanwhile, or no connection.
            PermanentError: not done; there is no such deployment, or it may not be changed.
            OutcomeUnknownError: the answer was lost.
        """

        def change(found: Any) -> dict[str, Any] | None:
            return None if found.spec.replicas == replicas else {"replicas": replicas}

        await self._change(f"scaling {name} to {replicas}", name, change, deadline)

    async def set_env(self, name: str, values: Mapping[str, str | None], *, deadline: float) -> None:
        """Set variables of all containers of a deployment; a value of None is left as it is.

        Errors as for `scale`.
        """
        wanted = {key: value for key, value in values.items() if value is not None}

        def change(found: Any) -> dict[str, Any] | None:
            containers = found.spec.template.spec.containers
            if all(wanted.items() <= _plain(container).items() for container in containers):
                return None
            # A variable that came from elsewhere (valueFrom) must lose that to take a plain value.
            env = [{"name": key, "value": value, "valueFrom": None} for key, value in wanted.items()]
            patch = [{"name": container.name, "env": env} for container in containers]
            return {"template": {"spec": {"containers": patch}}}

        await self._change(f"setting {', '.join(wanted)} of {name}", name, change, deadline)

    async def raw_objects(
        self, resource: Kind, *, namespace: str | None, deadline: float
    ) -> tuple[dict[str, Any], ...]:
        """All objects of any kind, whole, as the API has them; `namespace` None means kinds that have none.

        Errors as for `deployments`.
        """
        kind = _generic(resource)
        doing = f"listing {resource.plural}"
        async with self._calling(doing, deadline, writes=False) as client:
            items = client.list(kind) if namespace is None else client.list(kind, namespace=namespace)
            return tuple([item.to_dict() async for item in items])

    async def write_object(
        self, resource: Kind, item: dict[str, Any], *, over: str | None, dry_run: bool, deadline: float
    ) -> None:
        """Create an object of any kind, or put it in the place of the one with the resourceVersion `over`.

        With `dry_run` the API only says whether it would. Errors as for `scale`; an object that is there already is a TemporaryError.
        """
        kind, metadata = _generic(resource), item["metadata"]
        version = {} if over is None else {"resourceVersion": over}
        body = kind.from_dict({**item, "metadata": {**metadata, **version}})
        doing = f"{'asking for' if dry_run else 'writing'} {resource.plural}/{metadata['name']}"
        async with self._calling(doing, deadline, writes=not dry_run) as client:
            if over is None:
                await client.create(body, dry_run=dry_run)
            else:
                await client.replace(body, dry_run=dry_run)

    async def _change(
        self, doing: str, name: str, change: Callable[[Any], dict[str, Any] | None], deadline: float
    ) -> None:
        """Read, and patch the spec under the version that was read.

        A conflict over the status alone (its generation stands still) is read and tried again: controllers
        write statuses all the time. A conflict over the spec is the caller's to look at.
        """
        from lightkube.core.exceptions import ApiError  # noqa: PLC0415
        from lightkube.resources.apps_v1 import Deployment as Resource  # noqa: PLC0415

        first: int | None = None
        async with self._calling(doing, deadline, writes=True) as client:
            while True:
                found = await client.get(Resource, name)
                metadata = found.metadata
                if metadata is None or (spec := change(found)) is None:
                    return
                generation = metadata.generation or 0
                first = generation if first is None else first
                if generation != first:
                    raise TemporaryError(
                        self._at(doing),
                        "somebody else changed the deployment at the same time",
                        "Look at who did, and try again",
                    )
                patch = {"metadata": {"resourceVersion": metadata.resourceVersion}, "spec": spec}
                try:
                    await client.patch(Resource, name, patch)
                except ApiError as error:
                    if error.response.status_code != _CONFLICT:
                        raise
                    await asyncio.sleep(_CONFLICT_PAUSE_SECONDS)
                else:
                    return

    async def _list(
        self, resource: Any, read: Callable[[Any], _T], deadline: float, *, namespace: str | None
    ) -> tuple[_T, ...]:
        doing = f"listing {resource.__name__.lower()}s"
        async with self._calling(doing, deadline, writes=False) as client:
            items = client.list(resource) if namespace is None else client.list(resource, namespace=namespace)
            return tuple([read(item) async for item in items])

    @asynccontextmanager
    async def _calling(self, doing: str, deadline: float, *, writes: bool) -> AsyncIterator[AsyncClient]:
        """The client, its errors in our words."""
        from lightkube.core import exceptions  # noqa: PLC0415

        # lightkube's own HTTP library, whichever its version brings; it has no other name for these errors.
        http: Any = vars(exceptions)["httpx"]
        try:
            async with asyncio.timeout(deadline):
                yield self._connected(doing)
        except exceptions.ConfigError as error:
            found, remedy = f"the kubeconfig cannot be used: {error}", "Check kubernetes.kubeconfig"
            raise PermanentError(self._at(doing), found, remedy) from error
        except exceptions.ApiError as error:
            raise self._refused(doing, error.response.status_code, str(error), writes=writes) from error
        except http.HTTPStatusError as error:
            raise self._refused(doing, error.response.status_code, str(error), writes=writes) from error
        except (http.ConnectError, http.ConnectTimeout, http.PoolTimeout) as error:
            raise self._unreachable(doing, f"not reachable: {error!r}") from error
        except (http.HTTPError, TimeoutError, ValueError) as error:
            late = isinstance(error, TimeoutError | http.TimeoutException)
            found = f"no answer within {deadline:g} s" if late else f"the request broke off: {error!r}"
            if not writes:
                raise self._unreachable(doing, found) from error
            raise OutcomeUnknownError(self._at(doing), found, "Look at the deployment first") from error

    def _connected(self, doing: str) -> AsyncClient:
        """The client, made once."""
        from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415

        if self._client is None:
            file = self._kubeconfig
            known = KubeConfig.from_file(file) if file else KubeConfig.from_env()
            config = known.get(self._context) if self._context in known.contexts else None
            if config is None:
                raise PermanentError(
                    self._at(doing),
                    f"the kubeconfig has no context {self._context!r}",
                    f"It has: {', '.join(known.contexts) or 'none'}",
                )
            self._client = AsyncClient(config, namespace=self._namespace, trust_env=not _is_loopback(config))
        return self._client

    def _at(self, doing: str) -> str:
        return f"{doing} in {self._namespace} of {self._context}"

    def _unreachable(self, doing: str, found: str) -> TemporaryError:
        remedy = f"See that the API of {self._context} answers: kubectl --context={self._context} get nodes"
        return TemporaryError(self._at(doing), found, remedy)

    def _refused(self, doing: str, code: int, message: str, *, writes: bool) -> DriverError:
        if code in _TRY_AGAIN or (code in _UNKNOWN and not writes):
            return TemporaryError(self._at(doing), f"{message} ({code})", "Try again")
        if code in _UNKNOWN:
            return OutcomeUnknownError(self._at(doing), f"{message} ({code})", "Look at the deployment first")
        return PermanentError(
            self._at(doing), f"{message} ({code})", "Check the name, and what this user is allowed to do"
        )


@lru_cache(maxsize=64)
def _generic(resource: Kind) -> Any:
    """The class for a kind whose objects are taken as they are: nothing in them is lost that we do not know.

    Made from lightkube's own parts, and not registered with it: there, the typed class of the same kind would be in its way.
    """
    from lightkube import generic_resource as generic  # noqa: PLC0415

    base = generic.GenericNamespacedResource if resource.namespaced else generic.GenericGlobalResource
    info = generic.create_api_info(resource.group, resource.version, resource.kind, resource.plural)
    return type(resource.kind, (base,), {"_api_info": info})


def _is_loopback(config: SingleConfig) -> bool:
    """Is the API on this machine? Then no proxy is asked, as kubectl does it."""
    host = urlsplit(config.cluster.server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _plain(container: Any) -> dict[str, str]:
    return {entry.name: entry.value or "" for entry in container.env or [] if entry.valueFrom is None}


def _deployment(item: Any) -> Deployment:
    status, replicas = item.status, 1 if item.spec.replicas is None else item.spec.replicas
    env: dict[str, str] = {}
    for container in item.spec.template.spec.containers:
        env |= _plain(container)
    total, updated, ready = (
        (getattr(status, field, None) or 0) for field in ("replicas", "updatedReplicas", "readyReplicas")
    )
    observed = (getattr(status, "observedGeneration", None) or 0) >= (item.metadata.generation or 0)
    available = getattr(status, "availableReplicas", None) or 0
    done = observed and replicas == updated == total == ready == available
    version, selector = item.metadata.resourceVersion, dict(item.spec.selector.matchLabels or {})
    return Deployment(item.metadata.name, replicas, ready, updated, env, version, done, selector)


def _service(item: Any) -> Service:
    balancer = item.status.loadBalancer if item.status else None
    found = [entry.ip or entry.hostname for entry in (balancer.ingress if balancer else None) or []]
    return Service(item.metadata.name, item.spec.type or "ClusterIP", found[0] if found else None)


def _ingress(item: Any) -> Ingress:
    backends = [item.spec.defaultBackend] if item.spec.defaultBackend else []
    for rule in item.spec.rules or []:
        backends += [path.backend for path in (rule.http.paths if rule.http else [])]
    return Ingress(item.metadata.name, frozenset(b.service.name for b in backends if b.service))


def _node(item: Any) -> Node:
    conditions = (item.status.conditions if item.status else None) or []
    return Node(item.metadata.name, any(c.type == "Ready" and c.status == "True" for c in conditions))


def _pod(item: Any) -> Pod:
    status = item.status
    ready = any(c.type == "Ready" and c.status == "True" for c in (status.conditions or []))
    containers = status.containerStatuses or []
    again = [
        entry.state.running.startedAt
        for entry in containers
        if entry.restartCount and entry.state and entry.state.running and entry.state.running.startedAt
    ]
    return Pod(
        item.metadata.namespace,
        item.metadata.name,
        status.phase or "Unknown",
        ready,
        sum(entry.restartCount for entry in containers),
        status.podIP,
        dict(item.metadata.labels or {}),
        max(again, default=None),
    )
