"""One clinic's way to the hospital: the public name, a connection that is never old, and what came of a request.

It resolves as clients do: an answer is kept for its TTL and no longer, and a failure does not shorten it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import aiohttp.abc
from yarl import URL

from hmsdr.lab.hms.clinics.workload import Request
from hmsdr.lab.hms.names import Names, UnresolvedError

REQUEST_SECONDS = 2.0
CONNECTION_SECONDS = 2.0
"""How old a connection may become: users must not stay with a region that the name has left."""

_CLASSES = {404: "missing", 409: "conflict"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a clinic was told."""

    status: int | None
    error: str | None
    region: str | None = None
    instance: str | None = None
    epoch: int | None = None

    @property
    def ok(self) -> bool:
        """Done, and said so."""
        return self.error is None


class Clinic:
    """One user with keep-alive connections of its own.

    Args:
        url: scheme, public name and port.
        names: resolver with its cache.
        trust: certificate authority.
    """

    def __init__(self, url: str, names: Names, trust: ssl.SSLContext) -> None:
        self._url = url
        self._name = URL(url).host or ""
        self._names = names
        self._trust = trust
        self._line: _Line | None = None

    async def send(self, request: Request) -> Outcome:
        """Send it once; every failure is an outcome."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._send(request)
        except TimeoutError:
            error = "timeout"
        except UnresolvedError:
            error = "dns"
        except (aiohttp.ClientSSLError, ssl.SSLError):
            error = "tls"
        except (aiohttp.ClientError, OSError) as failure:
            number = failure.errno if isinstance(failure, OSError) else None
            error = "refused" if number == errno.ECONNREFUSED else "reset"
        await self.close()
        return Outcome(None, error)

    async def healthy(self, path: str) -> bool:
        """Whether a health path answers 200."""
        outcome = await self.send(Request("read", "", "", path))
        return outcome.status == 200  # noqa: PLR2004 - HTTP's OK

    async def close(self) -> None:
        """Hang up as soon as nothing is under way any more."""
        line, self._line = self._line, None
        if line is not None:
            await line.retire()

    async def _send(self, request: Request) -> Outcome:
        async with self._connected() as session:
            method = "POST" if request.kind == "write" else "GET"
            data = json.dumps(request.body).encode() if request.body is not None else None
            async with session.request(method, self._url + request.path, data=data) as answer:
                return _judge(request, answer.status, await answer.read(), answer.headers.get("X-HMS-Region"))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        address = await self._names.address(self._name, deadline=REQUEST_SECONDS)
        line = self._line
        if line is None or line.address != address or time.monotonic() - line.opened > CONNECTION_SECONDS:
            await self.close()
            line = self._line = _Line(address, self._trust)
        line.users += 1
        try:
            yield line.session
        finally:
            line.users -= 1
            if line.retired and line.users == 0:
                await line.session.close()


class _Line:
    """Connections to one address, given up together."""

    def __init__(self, address: str, trust: ssl.SSLContext) -> None:
        self.address = address
        self.opened = time.monotonic()
        self.users = 0
        self.retired = False
        connector = aiohttp.TCPConnector(
            resolver=_Fixed(address),
            use_dns_cache=False,
            ssl=trust,
            limit=0,
            keepalive_timeout=CONNECTION_SECONDS,
        )
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json"},
        )

    async def retire(self) -> None:
        self.retired = True
        if self.users == 0:
            await self.session.close()


class _Fixed(aiohttp.abc.AbstractResolver):
    """The address that was resolved already."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[aiohttp.abc.ResolveResult]:
        return [
            aiohttp.abc.ResolveResult(
                hostname=host, host=self._address, port=port, family=int(family), proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _judge(request: Request, status: int, body: bytes, region: str | None) -> Outcome:
    """An answer counts only when it says what was asked for."""
    if status not in (200, 201):
        return Outcome(status, _CLASSES.get(status, f"http_{status}"), region)
    try:
        answer = json.loads(body)
        if request.kind == "read":
            error = None if answer.get("id", "") == request.id else "bad_answer"
            return Outcome(status, error, region)
        if answer["id"] != request.id:
            return Outcome(status, "bad_answer", region)
        return Outcome(status, None, answer["region"], str(answer["instance"]), int(answer["epoch"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Outcome(status, "bad_answer", region)
