"""A region's Kubernetes API: deployments, services, ingresses, nodes, pods; scale and set environment (FM-2, DB-3).

Thin over lightkube, which knows kubeconfigs and exec credentials. Every write carries the resourceVersion that was
read, so that a delayed one cannot undo a newer. No policy here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError

if TYPE_CHECKING:
    from lightkube import AsyncClient

_T = TypeVar("_T")
_CONFLICT = 409
_BUSY = frozenset({429, 500, 502, 503, 504})
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment: pods wanted, ready and of the newest template; the first container's environment."""

    name: str
    replicas: int
    ready: int
    updated: int
    env: Mapping[str, str]
    resource_version: str
    rolled_out: bool
    """Every pod is of the newest template and ready, and the controller has seen the newest template."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service; `address` is its load balancer's, once it has one."""

    name: str
    type: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Ingress:
    """An ingress and the services it leads to."""

    name: str
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster."""

    name: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of any namespace."""

    namespace: str
    name: str
    phase: str


class Kubernetes:
    """One cluster, by a context of a kubeconfig. Calls take a `deadline` in seconds and may run at once."""

    def __init__(self, context: str, kubeconfig: str | None, namespace: str) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._client: AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def nodes(self, *, deadline: float) -> tuple[Node, ...]:
        """All nodes."""
        from lightkube.resources.core_v1 import Node as Resource  # noqa: PLC0415 - half a second, paid where it is used

        found = await self._list(Resource, "nodes", None, deadline)
        return tuple(Node(_name(item), _is_true(item.status, "Ready")) for item in found)

    async def pods(self, *, deadline: float) -> tuple[Pod, ...]:
        """All pods of all namespaces."""
        from lightkube.resources.core_v1 import Pod as Resource  # noqa: PLC0415

        found = await self._list(Resource, "pods", _ALL, deadline)
        return tuple(Pod(str(item.metadata.namespace), _name(item), str(item.status.phase)) for item in found)

    async def deployments(self, *, deadline: float) -> tuple[Deployment, ...]:
        """The deployments of the hospital's namespace."""
        from lightkube.resources.apps_v1 import Deployment as Resource  # noqa: PLC0415

        return tuple(
            _deployment(item) for item in await self._list(Resource, "deployments", self._namespace, deadline)
        )

    async def services(self, *, deadline: float) -> tuple[Service, ...]:
        """The services of the hospital's namespace."""
        from lightkube.resources.core_v1 import Service as Resource  # noqa: PLC0415

        found = await self._list(Resource, "services", self._namespace, deadline)
        return tuple(Service(_name(item), str(item.spec.type), _address(item)) for item in found)

    async def ingresses(self, *, deadline: float) -> tuple[Ingress, ...]:
        """The ingresses of the hospital's namespace."""
        from lightkube.resources.networking_v1 import Ingress as Resource  # noqa: PLC0415

        found = await self._list(Resource, "ingresses", self._namespace, deadline)
        return tuple(Ingress(_name(item), _backends(item)) for item in found)

    async def scale(self, name: str, replicas: int, *, deadline: float) -> None:
        """Ask for `replicas` pods of deployment `name`; repeating it changes nothing.

        Raises:
            TemporaryError: somebody changed the deployment in between, or the API does not answer.
        """
        await self._change(name, lambda _: {"replicas": replicas}, f"scaling {name} to {replicas}", deadline)

    async def set_env(self, name: str, env: Mapping[str, str | None], *, deadline: float) -> None:
        """Set environment variables of the deployment's first container; repeating it changes nothing.

        Raises:
            TemporaryError: somebody changed the deployment in between, or the API does not answer.
        """

        def change(item: Any) -> dict[str, Any]:
            container = item.spec.template.spec.containers[0].name
            variables = [{"name": key, "value": value} for key, value in env.items()]
            return {"template": {"spec": {"containers": [{"name": container, "env": variables}]}}}

        await self._change(name, change, f"setting {', '.join(env)} of {name}", deadline)

    async def _change(
        self, name: str, spec: Callable[[Any], dict[str, Any]], doing: str, deadline: float
    ) -> None:
        """Read, then patch with the resourceVersion that was read."""
        from lightkube.resources.apps_v1 import Deployment as Resource  # noqa: PLC0415

        async def call(client: AsyncClient) -> None:
            item = await client.get(Resource, name, namespace=self._namespace)
            version = item.metadata.resourceVersion if item.metadata else None
            patch = {"metadata": {"resourceVersion": version}, "spec": spec(item)}
            await client.patch(Resource, name, patch, namespace=self._namespace)

        await self._call(f"{doing} in {self._context}", call, deadline, writes=True)

    async def _list(self, resource: Any, what: str, namespace: str | None, deadline: float) -> list[Any]:
        async def call(client: AsyncClient) -> list[Any]:
            where: Any = {} if namespace is None else {"namespace": namespace}
            return [item async for item in client.list(resource, **where)]

        return await self._call(f"listing {what} of {self._context}", call, deadline)

    async def _call(
        self,
        doing: str,
        call: Callable[[AsyncClient], Awaitable[_T]],
        deadline: float,
        *,
        writes: bool = False,
    ) -> _T:
        try:
            async with asyncio.timeout(deadline):
                return await call(self._connected(doing))
        except TimeoutError as error:
            kind = OutcomeUnknownError if writes else TemporaryError
            raise kind(
                doing, f"no answer within {deadline:g} s", "Check that the cluster's API is reachable"
            ) from error
        except DriverError:
            raise
        except Exception as error:
            known = _translate(doing, error, writes=writes)
            if known is None:
                raise
            raise known from error

    def _connected(self, doing: str) -> AsyncClient:
        """The client, made once."""
        if self._client is None:
            from lightkube import AsyncClient, KubeConfig  # noqa: PLC0415

            config = KubeConfig.from_file(self._kubeconfig) if self._kubeconfig else KubeConfig.from_env()
            chosen = config.get(self._context) if self._context in config.contexts else None
            if chosen is None:
                raise PermanentError(
                    doing,
                    f"the kubeconfig has no context {self._context!r}",
                    f"It has: {', '.join(config.contexts) or 'none'}",
                )
            self._client = AsyncClient(config=chosen, namespace=self._namespace, trust_env=False)
        return self._client


def _translate(doing: str, error: Exception, *, writes: bool) -> DriverError | None:
    """Our error for lightkube's and its HTTP client's; None when it is neither."""
    from lightkube.core import exceptions  # noqa: PLC0415
    from lightkube.core.exceptions import ApiError, ConfigError  # noqa: PLC0415

    # lightkube's own HTTP client, whichever package its version brings.
    httpx: Any = vars(exceptions)["httpx"]
    if isinstance(error, ApiError):
        status = error.status
        code, text = int(status.code or 0), status.message or status.reason or "no message"
        if code == _CONFLICT:
            return TemporaryError(
                doing, "somebody else changed it at the same time", "Look at it again, then repeat"
            )
        kind = TemporaryError if code in _BUSY else PermanentError
        return kind(doing, f"the API answered {code}: {text}", "Check names and permissions in the cluster")
    if isinstance(error, ConfigError | FileNotFoundError):
        return PermanentError(doing, f"the kubeconfig cannot be used: {error}", "Check kubernetes.kubeconfig")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return TemporaryError(
            doing, "the cluster's API is not reachable", "Check the network and the cluster"
        )
    if isinstance(error, httpx.HTTPError):
        broken = OutcomeUnknownError if writes else TemporaryError
        return broken(doing, f"the request broke off ({type(error).__name__})", "Look, then try again")
    return None


def _deployment(item: Any) -> Deployment:
    status, wanted = item.status, item.spec.replicas if item.spec.replicas is not None else 1
    ready = (status and status.readyReplicas) or 0
    updated = (status and status.updatedReplicas) or 0
    total = (status and status.replicas) or 0
    seen = ((status and status.observedGeneration) or 0) >= (item.metadata.generation or 0)
    containers = item.spec.template.spec.containers
    env = (
        {each.name: each.value for each in (containers[0].env or []) if each.value is not None}
        if containers
        else {}
    )
    return Deployment(
        name=_name(item),
        replicas=wanted,
        ready=ready,
        updated=updated,
        env=env,
        resource_version=str(item.metadata.resourceVersion),
        rolled_out=seen and updated >= wanted and ready >= wanted and total <= updated,
    )


def _name(item: Any) -> str:
    return str(item.metadata.name)


def _is_true(status: Any, condition: str) -> bool:
    return any(
        each.type == condition and each.status == "True" for each in (status and status.conditions) or []
    )


def _address(item: Any) -> str | None:
    balancer = item.status and item.status.loadBalancer
    for each in (balancer and balancer.ingress) or []:
        return str(each.ip or each.hostname)
    return None


def _backends(item: Any) -> frozenset[str]:
    paths = (path for rule in item.spec.rules or [] for path in (rule.http.paths if rule.http else []))
    return frozenset(str(path.backend.service.name) for path in paths if path.backend.service)
