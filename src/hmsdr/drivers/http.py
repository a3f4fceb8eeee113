"""HTTP as a user or a vantage point sees it: one GET, and what became of it. The network's failures are answers here.

It observes and judges nothing: whether a 503, a slow answer or a refused connection means that a region is lost is
decided elsewhere. Names are resolved for every request at the given servers, never at a cache of this machine.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import aiohttp
import aiohttp.abc
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from hmsdr.drivers.errors import PermanentError

BODY_LIMIT = 64 * 1024
"""Bytes of an answer's body that are read."""

_DNS_PORT = 53
_ESTABLISHED = 1
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
"""Where Linux's tcp_info says how many bytes came (since 4.1)."""


class HttpOutcome(StrEnum):
    """What became of a request.

    ``timeout``: no connection, or no whole answer, within the deadline. ``half_open``: a connection was accepted and
    then not one byte came over it, not even of TLS: what a stopped process or a dead machine behind a live address
    looks like. ``refused`` includes a network that says there is no way.
    """

    ANSWERED = "answered"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    TLS = "tls"
    DNS = "dns"
    HALF_OPEN = "half_open"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One observation. ``status`` and ``body`` belong to an answer; ``found`` says in words why there is none.

    ``seconds`` is how long it took, resolving included; ``address`` is whom it went to, None before that was known.
    """

    outcome: HttpOutcome
    seconds: float
    address: str | None = None
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=CIMultiDict)
    """Names in any case."""
    found: str = ""


class HttpProbe:
    """Asks URLs.

    Args:
        resolvers: DNS servers, ``address`` or ``address:port``; empty means the system's.
        ca_file: certificate authority to trust; None means the system's store.
    """

    def __init__(self, resolvers: Sequence[str] = (), ca_file: str | Path | None = None) -> None:
        self._resolvers = tuple(_server(text) for text in resolvers)
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._kept: dict[str, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the connections that were kept for reuse."""
        kept, self._kept = self._kept, {}
        for session in kept.values():
            await session.close()

    async def get(
        self,
        url: str,
        deadline: float,
        *,
        via: str | None = None,
        headers: Mapping[str, str] | None = None,
        reuse: bool = False,
    ) -> HttpAnswer:
        """GET `url` once, following no redirect.

        Args:
            url: its name is what the certificate must be for, wherever the request goes.
            deadline: seconds for everything.
            via: go to this ``address`` or ``address:port`` instead of resolving the name.
            headers: more headers.
            reuse: use a connection that is open already, where there is one to the same address; what is
                silent is then a ``timeout``, for such a connection has been heard before.

        Raises:
            PermanentError: the certificate authority's file cannot be read.
        """
        began = time.monotonic()
        target = URL(url)
        if target.scheme == "https":
            self._trust()
        try:
            async with asyncio.timeout(deadline):
                address, port = await self._locate(target, via, deadline)
        except TimeoutError:
            return HttpAnswer(
                HttpOutcome.DNS, time.monotonic() - began, found=f"no DNS answer within {deadline:g} s"
            )
        except (dns.exception.DNSException, OSError) as error:
            return HttpAnswer(HttpOutcome.DNS, time.monotonic() - began, found=_text(error))
        route = _Route(address, port)
        session = self._session(route, reuse=reuse)
        request = asyncio.create_task(_read(session, target, headers))
        try:
            # Not a cancelling timeout: the socket is looked at before anything closes it.
            await asyncio.wait({request}, timeout=max(deadline - (time.monotonic() - began), 0.001))
            seconds = time.monotonic() - began
            if not request.done():
                silent = not reuse and route.silent()
                found = "connected, and not one byte came" if silent else "no whole answer"
                outcome = HttpOutcome.HALF_OPEN if silent else HttpOutcome.TIMEOUT
                return HttpAnswer(outcome, seconds, address, found=f"{found} within {deadline:g} s")
            status, received, body = request.result()
            return HttpAnswer(HttpOutcome.ANSWERED, seconds, address, status, body, received)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return HttpAnswer(_outcome(error), time.monotonic() - began, address, found=_text(error))
        finally:
            if not request.done():
                request.cancel()
                await asyncio.wait({request})
            if not reuse:
                await session.close()

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise PermanentError(
                    f"reading the certificate authority {self._ca_file}",
                    error.strerror or str(error),
                    "Name a readable PEM file in traffic.ca_file",
                ) from error
        return self._context

    async def _locate(self, target: URL, via: str | None, deadline: float) -> tuple[str, int]:
        """Where the request goes: address and port."""
        if via is not None:
            host, port = _split(via, target.port or 0)
            return host, port
        host, port = target.host or "", target.port or 0
        with suppress(ValueError):
            return str(ipaddress.ip_address(host)), port
        if not self._resolvers:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return str(infos[0][4][0]), port
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(self._resolvers)
        resolver.timeout = deadline / len(self._resolvers)
        resolver.lifetime = deadline
        answer = await resolver.resolve(host, dns.rdatatype.A, search=False)
        return str(answer[0].to_text()), port

    def _session(self, route: _Route, *, reuse: bool) -> aiohttp.ClientSession:
        key = f"{route.address}:{route.port}"
        if reuse and key in self._kept:
            return self._kept[key]
        connector = aiohttp.TCPConnector(
            resolver=route,
            use_dns_cache=False,
            ssl=self._context or True,
            force_close=not reuse,
            socket_factory=route.socket,
        )
        timeout = aiohttp.ClientTimeout(total=None)
        session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        )
        if reuse:
            self._kept[key] = session
        return session


class _Route(aiohttp.abc.AbstractResolver):
    """Sends everything to one address, and remembers the socket to tell how far it came."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self._socket: socket.socket | None = None

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the address says it
    ) -> list[aiohttp.abc.ResolveResult]:
        own = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=self.address,
                port=self.port or port,
                family=own,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A new socket, kept in sight."""
        self._socket = socket.socket(info[0], info[1], info[2])
        return self._socket

    def silent(self) -> bool:
        """Whether the connection stands and nothing has ever come over it."""
        if self._socket is None:
            return False
        try:
            raw = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            return False
        if not raw or raw[0] != _ESTABLISHED or len(raw) < _BYTES_RECEIVED_AT + _BYTES_RECEIVED.size:
            return False
        (received,) = _BYTES_RECEIVED.unpack_from(raw, _BYTES_RECEIVED_AT)
        return bool(received == 0)


async def _read(
    session: aiohttp.ClientSession, target: URL, headers: Mapping[str, str] | None
) -> tuple[int, CIMultiDictProxy[str], bytes]:
    async with session.get(target, headers=headers, allow_redirects=False) as answer:
        body = bytearray()
        while len(body) < BODY_LIMIT:
            part = await answer.content.read(BODY_LIMIT - len(body))
            if not part:
                break
            body += part
        return answer.status, answer.headers, bytes(body)


def _outcome(error: BaseException) -> HttpOutcome:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return HttpOutcome.TLS
    refused = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)
    if isinstance(error, OSError) and error.errno in refused:
        return HttpOutcome.REFUSED
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
        return HttpOutcome.TIMEOUT
    return HttpOutcome.RESET


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    host, port = _split(text, _DNS_PORT)
    return dns.nameserver.Do53Nameserver(host, port)


def _split(text: str, port: int) -> tuple[str, int]:
    """``address``, ``address:port`` or ``[address]:port`` in two."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(text)), port
    host, _, number = text.rpartition(":")
    return host.strip("[]"), int(number)


def _text(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno is not None:
        return f"{os.strerror(error.errno).lower()} at {error.host}:{error.port}"
    return str(error) or type(error).__name__
