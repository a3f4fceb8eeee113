"""The HTTP face of the strict layer: Route 53's record sets and changes here, everything else to moto behind.

Also the lab's own paths under ``/__lab``: health, the records in sync (for the DNS server), and faults.
"""

from __future__ import annotations

import asyncio
import re
from xml.etree import ElementTree as ET

import aiohttp
from aiohttp import web

from hmsdr.lab.aws.records import InvalidChangeBatchError, defaults
from hmsdr.lab.aws.wire import (
    NAMESPACE,
    MalformedError,
    change_info,
    counted,
    error,
    parse_batch,
    record_list,
)
from hmsdr.lab.aws.zones import Budget, Zones

_ZONE_PATH = r"/2013-04-01/hostedzone/{zone:[A-Z0-9]+}/rrset"
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}
)
_LONG_POLL_SECONDS = 20.0
_MAX_BODY = 1 << 30
_PROCESSING_SECONDS = 0.02
"""How long a change of a zone is worked on; another one of that zone is refused meanwhile."""


class StrictAws:
    """Routes requests; `behind` is moto's base URL."""

    def __init__(self, zones: Zones, budget: Budget, behind: str) -> None:
        self._zones = zones
        self._budget = budget
        self._behind = behind
        self._session: aiohttp.ClientSession | None = None
        self._throttle = 0
        self._fail = 0

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.get("/__lab/healthz", self._health),
                web.get("/__lab/zone", self._served),
                web.post("/__lab/faults", self._faults),
                web.post(_ZONE_PATH + "{slash:/?}", self._change),
                web.get(_ZONE_PATH + "{slash:/?}", self._list),
                web.get("/2013-04-01/change/{change}", self._get_change),
                web.route("*", "/{path:.*}", self._pass),
            ]
        )
        app.cleanup_ctx.append(self._client)
        return app

    async def _client(self, _: web.Application):  # type: ignore[no-untyped-def]  # noqa: ANN202 - aiohttp's context
        self._session = aiohttp.ClientSession(auto_decompress=False)
        yield
        await self._session.close()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _served(self, request: web.Request) -> web.Response:
        """Records in sync; with ``?since=SERIAL`` answers when there is something newer."""
        since = int(request.query.get("since", "0"))
        serial = await self._zones.newer(since, _LONG_POLL_SECONDS)
        records = [
            {
                "name": item.name,
                "type": item.type,
                "ttl": item.ttl,
                "values": item.values,
                "set_identifier": item.set_identifier,
                "weight": item.weight,
            }
            for item in self._zones.served()
        ]
        return web.json_response({"serial": serial, "records": records})

    async def _faults(self, request: web.Request) -> web.Response:
        """``{"throttle": n}`` or ``{"fail": n}``: the next n Route 53 requests."""
        wanted = await request.json()
        self._throttle = int(wanted.get("throttle", 0))
        self._fail = int(wanted.get("fail", 0))
        return web.json_response({"throttle": self._throttle, "fail": self._fail})

    def _refused(self) -> web.Response | None:
        if self._fail > 0:
            self._fail -= 1
            return _xml(error("ServiceUnavailable", "The lab was told to fail"), 503)
        if self._throttle > 0 or not self._budget.take():
            self._throttle = max(0, self._throttle - 1)
            return _xml(error("Throttling", "Rate exceeded"), 400)
        return None

    async def _change(self, request: web.Request) -> web.Response:
        refused = self._refused()
        if refused is not None:
            return refused
        zone = request.match_info["zone"]
        if self._zones.get(zone) is None:
            return _xml(error("NoSuchHostedZone", f"No hosted zone found with ID: {zone}"), 404)
        with self._zones.processing(zone) as alone:
            if not alone:
                why = "The request was rejected because Route 53 was still processing a prior request."
                return _xml(error("PriorRequestNotComplete", why), 400)
            try:
                batch = parse_batch(await request.read())
                await asyncio.sleep(_PROCESSING_SECONDS)
                change = self._zones.change(zone, batch)
            except MalformedError as malformed:
                return _xml(error("InvalidInput", str(malformed)), 400)
            except InvalidChangeBatchError as invalid:
                return _xml(error("InvalidChangeBatch", f"[{', '.join(invalid.messages)}]"), 400)
        status, submitted = self._zones.status(change) or ("PENDING", 0.0)
        return _xml(change_info(change, status, submitted, answer="ChangeResourceRecordSetsResponse"))

    async def _list(self, request: web.Request) -> web.Response:
        refused = self._refused()
        if refused is not None:
            return refused
        zone = self._zones.get(request.match_info["zone"])
        if zone is None:
            return _xml(error("NoSuchHostedZone", "No such hosted zone"), 404)
        ordered = sorted(
            zone.accepted.values(), key=lambda item: (item.name, item.type, item.set_identifier or "")
        )
        return _xml(record_list(ordered))

    async def _get_change(self, request: web.Request) -> web.Response:
        refused = self._refused()
        if refused is not None:
            return refused
        change = request.match_info["change"]
        found = self._zones.status(change)
        if found is None:
            return _xml(error("NoSuchChange", f"Could not find resource with ID: {change}"), 404)
        return _xml(change_info(change, *found, answer="GetChangeResponse"))

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """To moto, and note a hosted zone that it creates."""
        route53 = request.path.startswith("/2013-04-01/")
        refused = self._refused() if route53 else None
        if refused is not None:
            return refused
        if self._session is None:
            return web.Response(status=503)
        deleted = self._deleted(request)
        if deleted is not None and (kept := self._not_empty(deleted)) is not None:
            return kept
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_HEADERS}
        async with self._session.request(
            request.method,
            self._behind + request.raw_path,
            headers=headers,
            data=await request.read(),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=120),
        ) as answer:
            body = await answer.read()
            if route53 and request.method == "POST" and request.path.rstrip("/").endswith("/hostedzone"):
                self._note_zone(body)
            if deleted is not None and answer.ok:
                self._zones.forget(deleted)
            if route53:
                body = counted(body, self._zones.counts())
            passed = [(k, v) for k, v in answer.headers.items() if k.lower() not in _HOP_HEADERS]
            if request.method == "HEAD" and "Content-Length" in answer.headers:
                passed.append(("Content-Length", answer.headers["Content-Length"]))
            encoding = answer.headers.get("Content-Encoding")
            if encoding:
                passed.append(("Content-Encoding", encoding))
            return web.Response(status=answer.status, body=body, headers=_multi(passed))

    def _deleted(self, request: web.Request) -> str | None:
        """Id of the zone whose deletion is asked for."""
        path = re.fullmatch(r"/2013-04-01/hostedzone/([A-Z0-9]+)/?", request.path)
        return path[1] if path is not None and request.method == "DELETE" else None

    def _not_empty(self, zone: str) -> web.Response | None:
        found = self._zones.get(zone)
        if found is None or len(found.accepted) <= len(defaults(found.name, ())):
            return None
        why = "The specified hosted zone contains non-required resource record sets and so cannot be deleted."
        return _xml(error("HostedZoneNotEmpty", why), 400)

    def _note_zone(self, body: bytes) -> None:
        root = ET.fromstring(body)  # noqa: S314 - moto's own answer, on loopback
        zone = root.find(f"{{{NAMESPACE}}}HostedZone")
        if zone is None:
            return
        name, path = zone.findtext(f"{{{NAMESPACE}}}Name"), zone.findtext(f"{{{NAMESPACE}}}Id")
        found = re.fullmatch(r"/?(?:hostedzone/)?([A-Z0-9]+)", path or "")
        if name and found:
            servers = [each.text or "" for each in root.iter(f"{{{NAMESPACE}}}NameServer")]
            self._zones.add(found[1], name, servers)


def _multi(pairs: list[tuple[str, str]]) -> aiohttp.typedefs.LooseHeaders:
    return pairs


def _xml(body: str, status: int = 200) -> web.Response:
    return web.Response(body=body.encode(), status=status, content_type="text/xml")


async def serve(app: web.Application, host: str, port: int) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
