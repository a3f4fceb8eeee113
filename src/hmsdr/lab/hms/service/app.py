"""The HTTP face of one service: its entities, its health, its metrics. Decides nothing about failover."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg
from aiohttp import web

from hmsdr.lab.hms import VERSION
from hmsdr.lab.hms.entities import Entity, of_service
from hmsdr.lab.hms.names import Names
from hmsdr.lab.hms.service import health
from hmsdr.lab.hms.service.cache import Cache, counter_of, key_of
from hmsdr.lab.hms.service.connecting import DatabaseDownError, Target
from hmsdr.lab.hms.service.database import Pool
from hmsdr.lab.hms.service.metrics import Metrics
from hmsdr.lab.hms.service.primary import Primary
from hmsdr.lab.hms.service.settings import Settings

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REQUEST_SECONDS = 1.5
"""For the database, a wait for its primary included: less than users wait, so that they hear what is wrong rather than nothing."""
_FIRST_LOOK_SECONDS = 0.5
"""A pod serves from then on, whatever was found: there may be no primary yet."""
_LARGEST_BODY = 64 * 1024
_POOL = 3
_NEWEST = 20
_MOST = 200
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Service:
    """One pod's service. Health has a turn of its own, so that a busy service still says how it is."""

    def __init__(self, settings: Settings, note: Callable[[str], None]) -> None:
        self._settings = settings
        names = Names(settings.dns)
        target = Target(
            settings.databases,
            settings.database_name,
            settings.database_user,
            f"{settings.service}-service/{settings.pod}",
        )
        self._primary = Primary(target, names, note)
        self._pool = Pool(self._primary, size=_POOL, keep=_POOL - 1)
        self._health_pool = Pool(self._primary, size=1, keep=0)
        self._cache = Cache(settings.redis, names, settings.pod)
        self._metrics = Metrics(settings.service, settings.region)
        self._entities = of_service(settings.service)
        self._ready = False
        self._leaving = False

    def app(self) -> web.Application:
        """The application with all routes."""
        app = web.Application(middlewares=[self._measure], client_max_size=_LARGEST_BODY)
        prefix = self._settings.prefix
        for path in ("", prefix):
            app.router.add_get(f"{path}/health", self._health)
            app.router.add_get(f"{path}/ready", self._readiness)
        app.router.add_get("/metrics", self._metrics_page)
        for entity in self._entities:
            root = f"{prefix}/{entity.path}"
            app.router.add_post(root, self._create(entity))
            app.router.add_get(root, self._list(entity))
            app.router.add_get(root + "/{id}", self._get(entity))
        return app

    async def start(self) -> None:
        """Look for the primary, and be ready whatever came of it.

        Pods of a standby region start before the database that they will use takes writes.
        """
        await self._primary.first_look(patience=_FIRST_LOOK_SECONDS)
        self._ready = True

    async def watch(self) -> None:
        """Watch the databases, until cancelled; ends only by an error that nobody thought of."""
        await self._primary.watch()

    def leave(self) -> None:
        """Be ready no more, and end each connection with its next answer; requests are served on meanwhile."""
        self._ready, self._leaving = False, True

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._health_pool.close()
        await self._cache.close()

    @web.middleware
    async def _measure(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        began = time.monotonic()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        try:
            response = await handler(request)
        except DatabaseDownError as error:
            self._metrics.database_error(error.kind)
            response = _answer(503, {"error": error.found, "kind": error.kind, **self._where()})
            response.headers["Retry-After"] = "1"
        except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
            found = (error.diag.message_detail or error.diag.message_primary or str(error)).strip()
            status = 409 if isinstance(error, psycopg.errors.IntegrityError) else 400
            response = _answer(status, {"error": found, **self._where()})
        except web.HTTPException as error:
            response = _answer(error.status, {"error": error.reason, **self._where()})
        if self._leaving:
            response.force_close()
        self._metrics.request(request.method, route, response.status, time.monotonic() - began)
        return response

    def _create(self, entity: Entity) -> _Handler:
        async def create(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            try:
                row_id, values = entity.read(json.loads(body))
            except ValueError as error:
                return _answer(400, {"error": str(error), **self._where()})
            rows = await self._pool.run(entity.insert, (row_id, *values), deadline=_REQUEST_SECONDS)
            inserted, instance, epoch, committed_at = rows[0]
            await self._cache.keep(
                key_of("last", entity.table), str(row_id).encode(), count=counter_of(self._settings.service)
            )
            return _answer(
                201 if inserted else 200,
                {
                    "id": row_id,
                    "existed": not inserted,
                    "instance": instance,
                    "epoch": epoch,
                    "committed_at": committed_at,
                    **self._where(),
                },
            )

        return create

    def _get(self, entity: Entity) -> _Handler:
        async def get(request: web.Request) -> web.StreamResponse:
            row_id = request.match_info["id"]
            if not _IDENTIFIER.fullmatch(row_id):
                return _answer(400, {"error": "id: a UUID in lower case is required", **self._where()})
            key = key_of(entity.table, row_id)
            kept = await self._cache.get(key)
            if kept is not None:
                return web.Response(body=kept, content_type="application/json", headers={"X-Cache": "hit"})
            rows = await self._pool.run(entity.select, (row_id,), deadline=_REQUEST_SECONDS)
            if not rows:
                return _answer(404, {"error": f"no {entity.path} with id {row_id}", **self._where()})
            body = _encode(dict(zip(entity.columns, rows[0], strict=True)))
            await self._cache.keep(key, body)
            return web.Response(body=body, content_type="application/json", headers={"X-Cache": "miss"})

        return get

    def _list(self, entity: Entity) -> _Handler:
        async def newest(request: web.Request) -> web.StreamResponse:
            limit = request.query.get("limit", str(_NEWEST))
            if not limit.isdecimal() or not 1 <= int(limit) <= _MOST:
                return _answer(400, {"error": f"limit: a number from 1 to {_MOST}", **self._where()})
            rows = await self._pool.run(entity.newest, (int(limit),), deadline=_REQUEST_SECONDS)
            return _answer(200, {entity.path: [dict(zip(entity.columns, row, strict=True)) for row in rows]})

        return newest

    async def _health(self, _: web.Request) -> web.StreamResponse:
        found = await health.check(self._health_pool, self._primary, self._cache, self._entities[0].table)
        database = found.database
        self._metrics.health(can_write=database.can_write, degraded=found.cache.degraded)
        if not database.can_write:
            self._metrics.database_error("health")
        return _answer(
            503 if found.status == "failed" else 200,
            {
                "status": found.status,
                "reason": database.found or found.cache.found,
                **self._where(),
                "version": VERSION,
                "instance": database.instance,
                "epoch": database.epoch,
                "database": {
                    "host": str(self._settings.databases[0]),
                    "address": self._primary.address,
                    "role": database.role,
                    "in_recovery": database.in_recovery,
                    "can_write": database.can_write,
                    "found": database.found,
                },
                "redis": {"host": str(self._settings.redis), **found.cache.as_json()},
                "milliseconds": round(found.seconds * 1000, 2),
            },
        )

    async def _readiness(self, _: web.Request) -> web.StreamResponse:
        return _answer(200 if self._ready else 503, {"ready": self._ready, **self._where()})

    async def _metrics_page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self._metrics.text(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    def _where(self) -> dict[str, str]:
        return {
            "service": self._settings.service,
            "region": self._settings.region,
            "pod": self._settings.pod,
        }


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=_encode(body), content_type="application/json")


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, default=_plain).encode() + b"\n"


def _plain(value: object) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
