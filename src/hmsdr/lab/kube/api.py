"""The Kubernetes API over HTTP: discovery, objects, watches, tables, patches and scale.

It reads and changes objects in the store, nothing else: what follows from a change is the controllers' part.
What real Kubernetes has and this has not is refused with "not supported by the lab".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from hmsdr.lab.kube import admission, every, kinds, openapi, patch, protobuf
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.selectors import check_fields, fields_match, labels_match
from hmsdr.lab.kube.status import ApiError, bad_request, internal, invalid, unsupported
from hmsdr.lab.kube.store import Change, Object, Store, key_of
from hmsdr.lab.kube.tables import table

PodHandler = Callable[[web.Request, Object], Awaitable[web.StreamResponse]]
_VERSION = {"major": "1", "minor": "32", "gitVersion": "v1.32.0+hmsdr-lab", "platform": "linux/amd64"}
_LONGEST_WATCH_SECONDS = 600.0
_BODY_BYTES = 4 * 1024 * 1024
_CORE_DEPTH, _GROUP_DEPTH = 2, 3
_MOST_WARNINGS = 10
_HIGHEST_NUMBER = 2**53
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What the path of a request means."""

    kind: Kind
    namespace: str | None
    name: str | None
    subresource: str | None


def parse(path: str) -> Target:
    """Read ``/api/v1/...`` or ``/apis/GROUP/VERSION/...``.

    Raises:
        ApiError: NotFound if nothing is served there.
    """
    steps = path.strip("/").split("/")
    missing = ApiError(404, "NotFound", "the server could not find the requested resource")
    if steps[0] == "api" and len(steps) > _CORE_DEPTH:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[0] == "apis" and len(steps) > _GROUP_DEPTH:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        raise missing
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:  # noqa: PLR2004 - a resource inside of a namespace
        namespace, rest = rest[1], rest[2:]
    kind = kinds.find(group, version, rest[0])
    if kind is None:
        # NotFound, as clients expect that look for what a cluster may lack; its words say that it is the lab's lack.
        raise ApiError(404, "NotFound", f"{missing}: {rest[0]} is not supported by the lab")
    if namespace is not None and not kind.namespaced:
        raise missing
    if kind in kinds.UNSUPPORTED:
        needed = " (and rollout history and undo, which need them)" if kind in kinds.REVISIONS else ""
        raise unsupported(f"{kind.qualified}{needed}")
    padded = [*rest[1:], None, None]
    return Target(kind, namespace, padded[0], padded[1])


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.body(), status=error.code)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:  # whatever one request meets is its own trouble, and answered as a Status
        _log.exception("%s %s", request.method, request.path)
        if request.writer.output_size:  # half an answer is sent: the client must see it break off
            raise
        return _json(internal(error).body(), status=500)


def _json(item: Object, status: int = 200) -> web.Response:
    """An object; as Kubernetes, without a charset in the content type, which clients compare."""
    return web.Response(body=json.dumps(item).encode(), status=status, content_type="application/json")


class Api:
    """The HTTP side of one store.

    Args:
        store: the objects.
        pods: what serves ``log`` and ``exec`` of a pod, by subresource.
    """

    def __init__(self, store: Store, pods: dict[str, PodHandler]) -> None:
        self._store = store
        self._pods = pods

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[_errors], client_max_size=_BODY_BYTES)
        for path in ("/readyz", "/livez", "/healthz"):
            app.router.add_get(path, _fine)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        found = _discover(path)
        if found is not None:
            return _json(found)
        target = parse(path)
        if target.subresource is not None:
            return await self._subresource(request, target)
        if target.name is None:
            return await self._collection(request, target)
        return await self._one(request, target, target.namespace or "", target.name)

    def _for(self, request: web.Request, options: Any = None) -> Store:
        """Where a write goes: the objects, or a copy of them that is thrown away, for a dry run.

        Raises:
            ApiError: it is neither.
        """
        asked: list[Any] = list(request.query.getall("dryRun", []))
        told = options.get("dryRun") if isinstance(options, dict) else None
        asked += told if isinstance(told, list) else [told] if told else []
        if any(each != "All" for each in asked):
            raise invalid(f"dryRun: Unsupported value: {asked!r:.60}: supported values: All")
        return self._store.copy() if asked else self._store

    async def _collection(self, request: web.Request, target: Target) -> web.StreamResponse:
        if request.method == "POST":
            body = await _body(request)
            store = self._for(request)
            made = admission.created(store, target.kind, target.namespace, None, body, _strictness(request))
            item = store.create(target.kind, made.item)
            return _answer(request, target.kind, item, status=201, warnings=made.warnings(target.kind))
        if request.method != "GET":
            raise unsupported(f"{request.method} of all {target.kind.qualified}")
        # Looked at before there is anything to select from: what cannot be read must not select nothing.
        labels_match(request.query.get("labelSelector", ""), {})
        check_fields(request.query.get("fieldSelector", ""), target.kind)
        if request.query.get("watch") in {"1", "true"}:
            return await self._watch(request, target)
        items = [
            item for item in self._store.all(target.kind, target.namespace) if _wanted(request, target, item)
        ]
        revision = str(self._store.revision)
        if _as_table(request):
            return _json(table(target.kind, items, revision))
        return _json(
            {
                "kind": f"{target.kind.kind}List",
                "apiVersion": target.kind.api_version,
                "metadata": {"resourceVersion": revision},
                "items": items,
            }
        )

    async def _one(
        self, request: web.Request, target: Target, namespace: str, name: str
    ) -> web.StreamResponse:
        kind = target.kind
        if request.method == "PATCH" and "apply-patch" in request.content_type:
            raise unsupported("server-side apply (plain `kubectl apply` is)")
        if every.stands_for_all(kind, name) and request.method == "GET":
            return _answer(request, kind, every.representative(self._store, namespace))
        if request.method == "GET":
            return _answer(request, kind, self._store.get(kind, namespace, name))
        if request.method not in {"PUT", "PATCH", "DELETE"}:
            raise unsupported(request.method)
        body = await _body(request) if request.method != "DELETE" or request.can_read_body else {}
        if request.method == "DELETE":
            return self._delete(request, kind, namespace, name, body)
        store = self._for(request)
        if kind.plural in kinds.READ_ONLY:
            raise unsupported(f"writing {kind.qualified} (the controllers alone do)")
        strictness = _strictness(request)
        if request.method == "PUT":
            made = admission.replaced(store, kind, namespace, name, body, strictness)
        elif every.stands_for_all(kind, name):
            patched = partial(admission.patched, request.content_type, kind, validation=strictness)
            return _answer(request, kind, every.patch_each(store, namespace, body, patched))
        else:
            old = store.get(kind, namespace, name)
            made = admission.patched(request.content_type, kind, old, body, strictness)
        return _answer(request, kind, store.replace(kind, made.item), warnings=made.warnings(kind))

    def _delete(
        self, request: web.Request, kind: Kind, namespace: str, name: str, options: Any
    ) -> web.StreamResponse:
        store = self._for(request, options)
        admission.check_deletion(kind, name, options, store.get(kind, namespace, name))
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        seconds = None if grace is None else int(_number(grace, "gracePeriodSeconds"))
        return _json(store.delete(kind, namespace, name, seconds))

    async def _subresource(self, request: web.Request, target: Target) -> web.StreamResponse:
        assert target.name is not None, "a subresource is of a named object"  # noqa: S101
        kind, namespace = target.kind, target.namespace or ""
        item = self._store.get(kind, namespace, target.name)
        if kind is kinds.PODS and target.subresource in self._pods:
            if not item["spec"].get("nodeName"):
                raise bad_request(f"pod {target.name} does not have a host assigned")
            return await self._pods[target.subresource](request, item)
        if target.subresource != "scale" or not kind.scalable:
            raise unsupported(f"{kind.qualified}/{target.subresource}")
        if request.method == "GET":
            return _json(_scale(item))
        change = await _body(request)
        # Read again after the wait for the body: what was read before may be old by now.
        store = self._for(request)
        item = store.get(kind, namespace, target.name)
        if request.method == "PATCH":
            change = patch.apply(request.content_type, _scale(item), change)
        elif request.method != "PUT":
            raise unsupported(f"{request.method} of scale")
        return _json(_scale(store.replace(kind, admission.scaled(item, change))))

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        since = request.query.get("resourceVersion")
        wanted = _number(request.query.get("timeoutSeconds") or _LONGEST_WATCH_SECONDS, "timeoutSeconds")
        seconds = min(wanted, _LONGEST_WATCH_SECONDS)
        start = None if since in {None, "", "0"} else int(_number(since, "resourceVersion"))
        if request.query.get("sendInitialEvents") == "true":
            raise invalid("sendInitialEvents: not supported by the lab")
        with self._store.watching(start) as queue:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(seconds):
                    if start is None:
                        for item in self._store.all(target.kind, target.namespace):
                            if _wanted(request, target, item):
                                await response.write(_event(request, target.kind, "ADDED", item))
                    while True:
                        line = _line(request, target, await queue.get())
                        if line is not None:
                            await response.write(line)
        return response


async def _fine(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _discover(path: str) -> Object | None:
    if path.startswith("/openapi/v3/"):
        return openapi.document(path.removeprefix("/openapi/v3/"))
    if path.startswith("/openapi") and path != "/openapi/v3":
        raise unsupported("openapi v2")
    documents: dict[str, Callable[[], Object]] = {
        "/version": lambda: dict(_VERSION),
        "/openapi/v3": openapi.index,
        "/api": kinds.core_versions,
        "/apis": kinds.group_list,
        "/api/v1": lambda: kinds.resource_list(""),
    }
    for group in kinds.GROUPS:
        documents[f"/apis/{group}"] = partial(kinds.group, group)
        documents[f"/apis/{group}/v1"] = partial(kinds.resource_list, group)
    return documents[path]() if path in documents else None


async def _body(request: web.Request) -> Any:
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.read(await request.read())
    return admission.decode(await request.read())


def _dry(request: web.Request) -> bool:
    """Whether it is only asked if something would be done."""
    wanted = request.query.getall("dryRun", [])
    if wanted not in ([], ["All"]):
        raise bad_request(f"dryRun: Unsupported value: {wanted[0]!r}: supported values: 'All'")
    return bool(wanted)


def _strictness(request: web.Request) -> str:
    return request.query.get("fieldValidation", "")


def _number(value: Any, name: str) -> float:
    """A number that a client sent; never negative.

    Raises:
        ApiError: it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if isinstance(value, bool) or not 0 <= found < _HIGHEST_NUMBER:
        raise bad_request(f"{name}: Invalid value: {str(value)[:40]!r}: must be a number")
    return found


def _as_table(request: web.Request) -> bool:
    return "as=Table" in request.headers.get("Accept", "")


def _answer(
    request: web.Request, kind: Kind, item: Object, *, status: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    if _as_table(request) and request.method == "GET":
        return _json(table(kind, [item], item["metadata"]["resourceVersion"]))
    answer = _json(item, status=status)
    for warning in warnings[:_MOST_WARNINGS]:
        told = json.dumps(warning)  # a name may have any character, and a header may not
        answer.headers.add("Warning", f"299 - {told}")
    return answer


def _wanted(request: web.Request, target: Target, item: Object) -> bool:
    return (
        target.namespace in {None, key_of(item)[0]}
        and labels_match(request.query.get("labelSelector", ""), item["metadata"].get("labels") or {})
        and fields_match(request.query.get("fieldSelector", ""), item)
    )


def _line(request: web.Request, target: Target, change: Change) -> bytes | None:
    if change.plural != target.kind.plural:
        return None
    before = change.old is not None and _wanted(request, target, change.old)
    after = change.new is not None and _wanted(request, target, change.new)
    if after and change.new is not None:
        return _event(request, target.kind, "MODIFIED" if before else "ADDED", change.new)
    if before and change.old is not None:
        gone = change.old | {"metadata": change.old["metadata"] | {"resourceVersion": str(change.revision)}}
        return _event(request, target.kind, "DELETED", gone)
    return None


def _event(request: web.Request, kind: Kind, word: str, item: Object) -> bytes:
    if _as_table(request):
        item = table(kind, [item], item["metadata"]["resourceVersion"])
    return json.dumps({"type": word, "object": item}).encode() + b"\n"


def _scale(item: Object) -> Object:
    metadata = item["metadata"]
    labels = item["spec"].get("selector", {}).get("matchLabels", {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            key: metadata[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in metadata
        },
        "spec": {"replicas": item["spec"].get("replicas", 1)},
        "status": {
            "replicas": item.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in labels.items()),
        },
    }
