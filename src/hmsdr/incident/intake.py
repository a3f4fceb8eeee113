"""``POST /v1/alerts``: where Alertmanager's webhook sends, with a key. What it takes is in the log before it is answered; else it is sent again."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence

from aiohttp import web

from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.incident.alertmanager import news, read
from hmsdr.incident.desk import Desk
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog

_LOG_SECONDS = 8.0
"""Alertmanager waits 10 s."""


def add_routes(app: web.Application, desk: Desk, log: EventLog, key: str, lock: asyncio.Lock) -> None:
    """The way in.

    Args:
        app: where it is served.
        desk: of the log; used by one request at a time.
        log: where alerts go.
        key: what Alertmanager shows as its bearer token.
        lock: held while the desk is used.
    """

    async def alerts(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, key.encode()):
            return web.Response(status=401, text="the key is wrong\n")
        try:
            found = read(await request.read())
        except RefusedError as error:
            return web.Response(status=400, text=f"{error}\n")

        async def fresh() -> Sequence[NewEvent]:
            return news(await desk.book(), found, "alertmanager")

        try:
            async with lock, asyncio.timeout(_LOG_SECONDS):
                await append_after(log, fresh, doing="recording alerts")
        except HmsdrError as error:
            # Alertmanager sends it again.
            return web.Response(status=503, text=f"{error}\n")
        except TimeoutError:
            return web.Response(status=503, text=f"the log did not take it within {_LOG_SECONDS:g} s\n")
        return web.json_response({"alerts": len(found)})

    app.router.add_post("/v1/alerts", alerts)
