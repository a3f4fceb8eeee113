"""The agent's HTTP interface: checks the key, reads the order, gives the answer or the refusal. A face only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from hmsdr.control import byhand, telling
from hmsdr.control.agent import Agent
from hmsdr.control.follow import Word
from hmsdr.control.logs import log
from hmsdr.control.metrics import exposition
from hmsdr.control.recovering import Order
from hmsdr.control.state import Upstream
from hmsdr.control.survey import survey
from hmsdr.decide.authority import AuthorityRefused, Holder
from hmsdr.decide.recovery import Path
from hmsdr.drivers.agent_auth import (
    LIFE,
    NONCE,
    OTHER_LIFE,
    SCHEME,
    SIGNATURE,
    Seen,
    same,
    sign_answer,
    sign_request,
)
from hmsdr.errors import HmsdrError, RefusedError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LIMIT = 64 * 1024
_OPEN = ("/healthz", "/readyz", "/metrics")
"""Asked by probes and by Prometheus, which have no key; they tell and change nothing."""


class _BadRequest(Exception):  # noqa: N818 - an answer
    """The order cannot be read."""


def application(agent: Agent) -> web.Application:
    """The application that serves `agent`."""
    key, life = agent.config.key, agent.holder.incarnation
    app = web.Application(
        middlewares=[_signed(key, life), _errors, _authenticated(key, life)], client_max_size=_LIMIT
    )
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz(agent)),
            web.get("/metrics", _metrics(agent)),
            web.get("/v1/lost/{file}/{offset}", _lost_part(agent)),
            *(web.route(method, path, _on(agent, handle)) for (method, path), handle in ORDERS.items()),
        ]
    )
    return app


def _on(agent: Agent, handle: Callable[[Agent, dict[str, Any]], Awaitable[dict[str, Any]]]) -> _Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        order = await _order(request) if request.method == "POST" else {}
        # An order, once begun, is carried out even when who gave it hangs up: half a fence helps nobody.
        return web.json_response(await asyncio.shield(asyncio.ensure_future(handle(agent, order))))

    return handler


def _metrics(agent: Agent) -> _Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=exposition(await telling.status(agent)),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    return handler


def _readyz(agent: Agent) -> _Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        why = telling.not_ready(agent)
        return web.json_response({"ready": not why, "why": why}, status=503 if why else 200)

    return handler


async def _healthz(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


async def _status(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    return await telling.status(agent)


async def _fence(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    epoch, clean = _epoch(order), order.get("clean", False)
    if not isinstance(clean, bool):
        raise _BadRequest(f"expected clean to be true or false, found {clean!r}")
    reason = f"{order.get('reason', '')} ({order.get('run', '')})"
    return asdict(await agent.fence(epoch, clean=clean, reason=reason))


async def _promote(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    min_lsn = order.get("min_lsn")
    if min_lsn is not None and (not isinstance(min_lsn, int) or isinstance(min_lsn, bool) or min_lsn < 0):
        raise _BadRequest(f"expected min_lsn to be bytes of WAL or null, found {min_lsn!r}")
    promotion, already = await agent.promote(_epoch(order), min_lsn)
    return {**asdict(promotion), "already": already}


async def _follow(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    host, port, slot = order.get("primary_host"), order.get("primary_port"), order.get("slot")
    if not (isinstance(host, str) and host and isinstance(port, int) and isinstance(slot, str) and slot):
        raise _BadRequest("expected primary_host (text), primary_port (number) and slot (text)")
    word = order.get("without_lost_rows")
    upstream = Upstream(host, port, slot)
    agent.recovering.refuse_another(f"following {host}:{port}")
    return await agent.rejoining.follow(_epoch(order), upstream, None if word is None else _word(word))


async def _recover(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    host, port, slot = order.get("primary_host"), order.get("primary_port"), order.get("slot")
    if not (isinstance(host, str) and host and isinstance(port, int) and isinstance(slot, str) and slot):
        raise _BadRequest("expected primary_host (text), primary_port (number) and slot (text)")
    path, backup, run = order.get("path"), order.get("backup"), order.get("run")
    if path not in set(Path) or not (isinstance(run, str) and run):
        raise _BadRequest(f"expected path to be one of {', '.join(Path)}, and run (text)")
    if backup is not None and not (isinstance(backup, str) and backup):
        raise _BadRequest("expected backup to be a backup's id or null")
    word = order.get("without_lost_rows")
    given = None if word is None else _word(word)
    upstream = Upstream(host, port, slot)
    return await agent.recovering.order(Order(run, _epoch(order), upstream, Path(path), backup, given))


async def _data(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    found = await survey(agent.database)
    state = agent.memory.state
    return {**found, "broken": state.rewind_failed, "rates": dict(agent.recovering.rates)}


async def _damage(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    return {**agent.inspection.told(), "clearing": agent.clearing.told()}


async def _clear_damage(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    word = _word(order, "the order")
    await agent.clearing.order(word.by, word.reason)
    return await _damage(agent, {})


def _word(word: Any, what: str = "without_lost_rows") -> Word:
    by, reason = (word.get("by"), word.get("reason")) if isinstance(word, dict) else (None, None)
    if not (isinstance(by, str) and by.strip() and isinstance(reason, str) and reason.strip()):
        raise _BadRequest(f"expected {what} to say by whom (by) and why (reason)")
    return Word(by, reason)


async def _reconcile(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    host, port = order.get("primary_host"), order.get("primary_port")
    if not (isinstance(host, str) and host and isinstance(port, int)):
        raise _BadRequest("expected primary_host (text) and primary_port (number)")
    slot = agent.database.upstream.slot
    lost = await agent.rejoining.reconcile(_epoch(order), Upstream(host, port, slot))
    return {"lost": None if lost is None else lost.as_json()}


async def _lost(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    kept = agent.rejoining.kept
    found = await asyncio.to_thread(kept.all)
    return {"directory": str(kept.directory), "lost": [lost.as_json() for lost in found]}


def _lost_part(agent: Agent) -> _Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        offset = request.match_info["offset"]
        if not offset.isdecimal():
            raise _BadRequest(f"expected an offset in bytes, found {offset!r}")
        kept = agent.rejoining.kept
        return web.json_response(await asyncio.to_thread(kept.part, request.match_info["file"], int(offset)))

    return handler


async def _relay(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    instance, incarnation = order.get("instance"), order.get("incarnation")
    if not (isinstance(instance, str) and instance and isinstance(incarnation, str) and incarnation):
        raise _BadRequest("expected instance (text) and incarnation (text) of the holder")
    if instance == agent.holder.instance:
        raise _BadRequest("that is this instance: nobody is its own peer")
    return await agent.relay(_epoch(order), Holder(instance, incarnation))


async def _manual_stop(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    return await byhand.stop(agent)


async def _manual_promote(agent: Agent, _: dict[str, Any]) -> dict[str, Any]:
    return await byhand.promote(agent)


ORDERS: Mapping[tuple[str, str], Callable[[Agent, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    ("GET", "/v1/status"): _status,
    ("POST", "/v1/fence"): _fence,
    ("POST", "/v1/promote"): _promote,
    ("POST", "/v1/follow"): _follow,
    ("POST", "/v1/recover"): _recover,
    ("GET", "/v1/data"): _data,
    ("POST", "/v1/reconcile"): _reconcile,
    ("GET", "/v1/lost"): _lost,
    ("GET", "/v1/damage"): _damage,
    ("POST", "/v1/damage/clear"): _clear_damage,
    ("POST", "/v1/relay"): _relay,
    ("POST", "/v1/manual/stop"): _manual_stop,
    ("POST", "/v1/manual/promote"): _manual_promote,
}
"""What is asked of an agent and what it is told to do: method, path, and who carries it out, the agent and the body given."""


async def _order(request: web.Request) -> dict[str, Any]:
    content = await request.read()
    if not content:
        return {}
    try:
        order = json.loads(content)
    except ValueError as error:
        raise _BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(order, dict):
        raise _BadRequest("expected a JSON object")
    return order


def _epoch(order: dict[str, Any]) -> int:
    epoch = order.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise _BadRequest(f"expected epoch to be a number from 1, found {epoch!r}")
    return epoch


def _authenticated(key: str, life: str) -> Any:
    seen = Seen()

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if request.path in _OPEN or same(f"Bearer {key}", given):
            return await handler(request)
        nonce, meant = request.headers.get(NONCE, ""), request.headers.get(LIFE, "")
        expected = sign_request(key, request.method, request.path, nonce, meant, await request.read())
        if not same(SCHEME + expected, given):
            return _problem(
                401, request.path, "the key is missing or wrong", "Use the key of this region's agent"
            )
        if request.method != "GET":
            if meant != life:
                return _problem(OTHER_LIFE, request.path, "the order is for an earlier life", "Order again")
            if not seen.first_time(nonce):
                return _problem(401, request.path, "this very order was given before", "Order again")
        return await handler(request)

    return check


def _signed(key: str, life: str) -> Any:
    @web.middleware
    async def sign(request: web.Request, handler: _Handler) -> web.StreamResponse:
        response = await handler(request)
        nonce = request.headers.get(NONCE, "")
        if nonce and isinstance(response, web.Response):
            body = response.body if isinstance(response.body, bytes) else b""
            response.headers[LIFE] = life
            response.headers[SIGNATURE] = sign_answer(key, nonce, life, response.status, body)
        return response

    return sign


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _problem(error.status, request.path, error.reason, "See docs/agent.md for the orders")
    except Exception as error:  # noqa: BLE001 - no traceback to the caller; the database is watched elsewhere
        return _problem(*refusal(request.path, error))


def refusal(path: str, error: Exception) -> tuple[int, str, str, str]:
    """What is answered when an order was not carried out: HTTP status, what was being done, what was found, what to do."""
    match error:
        case _BadRequest():
            return 400, f"reading {path}", str(error), "See docs/agent.md for the orders"
        case AuthorityRefused():
            return 409, path, str(error), "Look at `hmsdr authority show`"
        case HmsdrError():
            log("order.not_done", level="warning", path=path, found=str(error))
            status = 409 if isinstance(error, RefusedError) else 503
            return status, error.doing, error.found, error.remedy
    log("order.broken", level="error", path=path, found=f"{type(error).__name__}: {error}")
    return 500, path, f"{type(error).__name__}: {error}", "See the agent's log; report it"


def _problem(status: int, doing: str, found: str, remedy: str) -> web.Response:
    return web.json_response(problem(doing, found, remedy), status=status)


def problem(doing: str, found: str, remedy: str) -> dict[str, Any]:
    """An error as it is sent."""
    return {"error": {"doing": doing, "found": found, "remedy": remedy}}
