"""The proxy: the region's Ingress objects say which service a path is for, a ready pod of it answers. Keeps nothing between requests.

A request that no pod has seen goes to a second pod, whatever its method; one that a pod may have seen is repeated
only when it is a GET.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from hmsdr.lab.hms.ingress.endpoints import Backend, Backends
from hmsdr.lab.hms.ingress.metrics import Metrics
from hmsdr.lab.hms.ingress.routes import Routes
from hmsdr.lab.layout import SERVICES

_UPSTREAM_SECONDS = 5.0
_CONNECT_SECONDS = 1.0
_HEALTH_SECONDS = 2.5
_LARGEST_BODY = 1 << 20
_OK = 200
_NAMES = frozenset(f"{service}-service" for service in SERVICES)
_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "date",
        "server",
    ]
)
"""Headers that belong to one connection, or that each side writes itself."""
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class NoPodError(Exception):
    """No pod answered; the text says why. ``status`` is what the client is told."""

    def __init__(self, found: str, status: int = 503) -> None:
        super().__init__(found)
        self.status = status


class Ingress:
    """One region's ingress; `session` is its connections to pods."""

    def __init__(
        self, region: str, backends: Backends, routes: Routes, session: aiohttp.ClientSession
    ) -> None:
        self._region = region
        self._backends = backends
        self._routes = routes
        self._session = session
        self._metrics = Metrics()

    def app(self) -> web.Application:
        """The application for both listeners."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_get("/__ingress/healthz", self._alive)
        app.router.add_get("/__ingress/targets", self._targets)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._proxy)
        app.on_response_prepare.append(self._sign)
        return app

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-HMS-Region"] = self._region

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        service = self._routes.service(request.host, request.path)
        if service is None and self._routes.learned:
            error = f"no ingress routes {request.path!r} here"
            return _json(404, {"error": error, "paths": self._routes.paths()})
        headers = _forwarded(request.headers)
        headers["X-Forwarded-For"] = request.remote or ""
        headers["X-Forwarded-Proto"] = request.scheme
        try:
            if service is None:
                raise NoPodError("the Kubernetes API has not answered yet")  # noqa: TRY301 - answered as below
            answer = await self._ask(
                service, request.method, request.raw_path, headers, await request.read(), _UPSTREAM_SECONDS
            )
        except NoPodError as error:
            response = _json(error.status, {"error": str(error), "service": service, "region": self._region})
            response.headers["Retry-After"] = "1"
        else:
            response = web.Response(
                status=answer.status, body=answer.body, headers=_forwarded(answer.headers)
            )
        self._metrics.request(
            service or "unknown",
            request.method,
            response.status,
            time.monotonic() - began,
            health=request.path.endswith("/health"),
        )
        return response

    async def _ask(
        self, service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> _Answer:
        """The answer of a pod.

        Raises:
            NoPodError: no pod is ready, or none of two answered.
        """
        pods = self._backends.ready(service)
        if not pods:
            known = "no pod is ready" if self._backends.learned else "the Kubernetes API has not answered yet"
            raise NoPodError(f"{service}: {known}")
        until = time.monotonic() + seconds
        for number, pod in enumerate(chosen := [pods[0], pods[1 % len(pods)]]):
            last = number + 1 == len(chosen)
            if number:
                self._metrics.retry(service)
            try:
                return await self._send(pod, method, path, headers, body, until - time.monotonic())
            except _UNSENT as error:
                if last:
                    raise NoPodError(f"{service}: pod {pod.pod} at {pod.address} does not answer") from error
            except TimeoutError as error:
                raise NoPodError(f"{service}: no answer within {seconds:g} s", 504) from error
            except aiohttp.ClientError as error:
                if last or method not in ("GET", "HEAD"):
                    found = str(error) or type(error).__name__
                    raise NoPodError(f"{service}: pod {pod.pod} broke off: {found}", 502) from error
        raise AssertionError("the last attempt returns or raises")

    async def _send(
        self, pod: Backend, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> _Answer:
        timeout = aiohttp.ClientTimeout(
            total=max(seconds, 0.001), sock_connect=min(_CONNECT_SECONDS, max(seconds, 0.001))
        )
        async with self._session.request(
            method,
            f"http://{pod.address}{path}",
            headers=headers,
            data=body or None,
            timeout=timeout,
            allow_redirects=False,
        ) as answer:
            return _Answer(answer.status, answer.headers, await answer.read())

    async def _health(self, request: web.Request) -> web.StreamResponse:
        """All five services at once, as users reach them: 200 when each can do its work."""
        found = await asyncio.gather(*(self._health_of(service, request.host) for service in SERVICES))
        services = dict(zip(SERVICES, found, strict=True))
        words = {str(each["status"]) for each in found}
        status = next((word for word in ("failed", "degraded") if word in words), "ok")
        return _json(
            503 if status == "failed" else _OK,
            {"status": status, "region": self._region, "services": services},
        )

    async def _health_of(self, service: str, host: str) -> dict[str, Any]:
        path = f"/{service}-service/health"
        name = self._routes.service(host, path)
        if name is None:
            known = (
                "no ingress routes it" if self._routes.learned else "the Kubernetes API has not answered yet"
            )
            return {"status": "failed", "reason": f"{path}: {known}"}
        try:
            answer = await self._ask(name, "GET", path, {}, b"", _HEALTH_SECONDS)
            body = json.loads(answer.body)
        except NoPodError as error:
            return {"status": "failed", "reason": str(error)}
        except ValueError:
            return {"status": "failed", "reason": "its health answer is no JSON"}
        kept = ("status", "reason", "pod", "instance", "epoch", "version", "database", "redis")
        summary = {key: body.get(key) for key in kept}
        if answer.status != _OK:
            summary["status"] = "failed"
        return summary

    async def _alive(self, _: web.Request) -> web.StreamResponse:
        return _json(
            _OK, {"region": self._region, "learned": self._backends.learned and self._routes.learned}
        )

    async def _targets(self, _: web.Request) -> web.StreamResponse:
        """Prometheus's HTTP service discovery: every pod, with what it is as labels."""
        targets = [
            {
                "targets": [str(pod.address)],
                "labels": {
                    "service": service.removesuffix("-service"),
                    "region": self._region,
                    "pod": pod.pod,
                },
            }
            for service, pods in sorted(self._backends.all().items())
            if service in _NAMES
            for pod in pods
        ]
        return web.json_response(targets)

    async def _metrics_page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )


def _forwarded(headers: CIMultiDictProxy[str] | Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that are passed on."""
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in _HOP:
            kept.add(name, value)
    return kept


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(body).encode() + b"\n", content_type="application/json"
    )
