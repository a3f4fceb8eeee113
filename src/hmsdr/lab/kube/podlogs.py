"""`kubectl logs`: the output of a pod's container, of its last life too, and what it writes while one follows. Read only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from aiohttp import web

from hmsdr.lab.kube import kinds, logtimes
from hmsdr.lab.kube.kubelet import Kubelet
from hmsdr.lab.kube.podstatus import check_container
from hmsdr.lab.kube.status import bad_request, invalid
from hmsdr.lab.kube.store import Object, key_of

_FOLLOW_SECONDS = 0.2
_TRUE = {"1", "true"}


@dataclass(slots=True)
class Wanted:
    """What of a log is asked for: lines seen since then (Unix seconds), the last of them, with times, so many bytes."""

    since: float | None = None
    tail: int | None = None
    stamped: bool = False
    left: int | None = None

    def first(self, log: Path, content: bytes) -> bytes:
        """Of what is there: the chosen lines."""
        found = list(logtimes.lines(log, content))
        if self.since is not None:
            found = [(seen, line) for seen, line in found if seen >= self.since]
        if self.tail is not None:
            found = found[-self.tail :] if self.tail else []
        return self._told(found)

    def more(self, log: Path, content: bytes, offset: int) -> bytes:
        """Of what came since, which stands at `offset`: all of it."""
        return self._told(list(logtimes.lines(log, content, offset)))

    def _told(self, lines: list[tuple[float, bytes]]) -> bytes:
        told = b"".join((_stamp(seen) if self.stamped else b"") + line for seen, line in lines)
        if self.left is not None:
            told = told[: self.left]
            self.left -= len(told)
        return told


def wanted(query: Mapping[str, str]) -> Wanted:
    """Read the options of a request.

    Raises:
        ApiError: one makes no sense, or two exclude each other.
    """
    seconds, moment = _count(query, "sinceSeconds", 1), query.get("sinceTime")
    if seconds is not None and moment:
        raise invalid(
            "sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        )
    since = None if seconds is None else time.time() - seconds
    if moment:
        try:
            since = datetime.fromisoformat(moment).timestamp()
        except ValueError as error:
            raise bad_request(
                f"sinceTime: {moment[:40]!r} is no time such as 2026-01-31T12:00:00Z"
            ) from error
    return Wanted(
        since=since,
        tail=_count(query, "tailLines", 0),
        stamped=query.get("timestamps") in _TRUE,
        left=_count(query, "limitBytes", 1),
    )


class PodLogs:
    """Serves ``pods/NAME/log``."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

    async def serve(self, request: web.Request, pod: Object) -> web.StreamResponse:
        """What is wanted of the log; with `follow`, until the container has ended or no more is wanted."""
        query = request.query
        check_container(pod, query.get("container"))
        asked = wanted(query)
        previous = query.get("previous") in _TRUE
        path = self._kubelet.log_file(pod, previous=previous)
        if previous and not path.exists():
            name = pod["spec"]["containers"][0]["name"]
            raise bad_request(f'previous terminated container "{name}" in pod "{key_of(pod)[1]}" not found')
        if query.get("follow") not in _TRUE:
            content = path.read_bytes() if path.exists() else b""
            return web.Response(body=asked.first(path, content), content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, FileNotFoundError), path.open("rb") as log:
            content, offset = _whole(log.read(), asked), 0
            await response.write(asked.first(path, content))
            offset += len(content)
            log.seek(offset)
            while asked.left != 0 and self._living(path, log, pod):
                if content := _whole(log.read(), asked):
                    await response.write(asked.more(path, content, offset))
                    offset += len(content)
                log.seek(offset)
                await asyncio.sleep(_FOLLOW_SECONDS)
            if rest := log.read():
                await response.write(asked.more(path, rest, offset))
        return response

    def _living(self, path: Path, log: IO[bytes], pod: Object) -> bool:
        return _still(path, log) and self._kubelet.store.find(kinds.PODS, *key_of(pod)) is not None


def _count(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_request(f"{name}: {text[:40]!r} is not a number")
    if int(text) < least:
        raise invalid(f"{name}: Invalid value: {int(text)}: must be greater than or equal to {least}")
    return int(text)


def _whole(content: bytes, asked: Wanted) -> bytes:
    """Without a line that has no end yet, if each line gets its time."""
    return content[: content.rfind(b"\n") + 1] if asked.stamped else content


def _stamp(seconds: float) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ} ".encode()


def _still(path: Path, log: IO[bytes]) -> bool:
    """Is `log` still the log of the container's present life?"""
    try:
        return path.stat().st_ino == os.fstat(log.fileno()).st_ino
    except FileNotFoundError:
        return False
