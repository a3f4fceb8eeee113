"""`kubectl logs`: the output of a pod's container, of its last life too, and what it writes while one follows. Read only."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import IO

from aiohttp import web

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.kubelet import Kubelet
from hmsdr.lab.kube.podstatus import check_container
from hmsdr.lab.kube.status import bad_request, unsupported
from hmsdr.lab.kube.store import Object, key_of

_FOLLOW_SECONDS = 0.2
_TRUE = {"1", "true"}
_UNSUPPORTED = ("sinceSeconds", "sinceTime", "timestamps", "limitBytes")


class PodLogs:
    """Serves ``pods/NAME/log``."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    async def serve(self, request: web.Request, pod: Object) -> web.StreamResponse:
        """The whole log, or its last `tailLines`; with `follow`, until the container has ended."""
        query = request.query
        check_container(pod, query.get("container"))
        for option in _UNSUPPORTED:
            if query.get(option, "false") != "false":
                raise unsupported(f"logs with {option}")
        previous = query.get("previous") in _TRUE
        path = self._kubelet.log_file(pod, previous=previous)
        if previous and not path.exists():
            name = pod["spec"]["containers"][0]["name"]
            raise bad_request(f'previous terminated container "{name}" in pod "{key_of(pod)[1]}" not found')
        if query.get("follow") not in _TRUE:
            content = path.read_bytes() if path.exists() else b""
            return web.Response(body=_tail(content, query.get("tailLines")), content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, FileNotFoundError), path.open("rb") as log:
            await response.write(_tail(log.read(), query.get("tailLines")))
            while _still(path, log) and self._kubelet.store.find(kinds.PODS, *key_of(pod)) is not None:
                if content := log.read():
                    await response.write(content)
                await asyncio.sleep(_FOLLOW_SECONDS)
            await response.write(log.read())
        return response


def _tail(content: bytes, lines: str | None) -> bytes:
    if lines is None:
        return content
    if not lines.isdecimal():
        raise bad_request(f"tailLines: {lines!r} is not a number of lines")
    return b"".join(content.splitlines(keepends=True)[-int(lines) :]) if int(lines) else b""


def _still(path: Path, log: IO[bytes]) -> bool:
    """Is `log` still the log of the container's present life?"""
    try:
        return path.stat().st_ino == os.fstat(log.fileno()).st_ino
    except FileNotFoundError:
        return False
