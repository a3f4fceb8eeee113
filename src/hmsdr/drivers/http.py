"""HTTP as a user's browser does it: one question, one fresh connection, and an exact word for how it ended.

A probe is evidence, so nothing that the network does is an exception here: each way of not answering has its
own outcome. It follows no redirect, uses no proxy, keeps no connection and no DNS answer, and never tries again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult

from hmsdr.drivers.errors import PermanentError

BODY_BYTES = 64 * 1024
_DNS_TRY_SECONDS = 0.5


class Outcome(StrEnum):
    """How a probe ended."""

    ANSWERED = "answered"
    """An HTTP answer came, with whatever status."""
    REFUSED = "refused"
    """No connection: refused, or no route."""
    TIMEOUT = "timeout"
    """No connection within the deadline, or an answer that began and did not end within it."""
    TLS = "tls"
    """The certificate is not for this name or not from our authority, or TLS failed in another way."""
    DNS = "dns"
    """The name has no address, or no DNS server said so in time."""
    HALF_OPEN = "half_open"
    """The connection stands, and not one byte of an answer came: a frozen server, or a cut path."""
    RESET = "reset"
    """The connection broke before the answer was complete, or what came is not HTTP."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What one probe saw. ``seconds`` is from the question to the end, DNS included."""

    url: str
    outcome: Outcome
    seconds: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """As HTTP has them: the case of their names does not matter."""
    body: bytes = b""
    """At most `BODY_BYTES`; the rest is not read."""
    address: str | None = None
    """Who was asked, once it was connected."""
    found: str = ""
    """For people: the reason, when there was no answer."""


class DnsResolver(AbstractResolver):
    """Addresses of names, asked of given DNS servers every time: neither /etc/hosts nor any cache answers.

    Args:
        servers: "ip:port" or "ip".
    """

    def __init__(self, servers: tuple[str, ...]) -> None:
        self._servers = [_server(item) for item in servers]

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp's interface has it
    ) -> list[ResolveResult]:
        """A records, or AAAA records where the name has only those.

        Raises:
            OSError: the name has no address, or no server said so; what aiohttp expects of a resolver.
        """
        addresses, _ = await self.addresses(host, deadline=10.0)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def addresses(self, host: str, *, deadline: float) -> tuple[list[str], int]:
        """The name's addresses in the server's order, and their TTL in seconds.

        Raises:
            OSError: the name has no address, or no server said so within `deadline` seconds.
        """
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = list(self._servers)
        resolver.timeout = _DNS_TRY_SECONDS
        resolver.lifetime = deadline
        try:
            try:
                answer = await resolver.resolve(host, "A", search=False)
            except dns.resolver.NoAnswer:
                answer = await resolver.resolve(host, "AAAA", search=False)
        except (dns.exception.DNSException, ValueError) as error:
            raise OSError(f"{host}: {error}") from error
        return [item.address for item in answer], int(answer.rrset.ttl if answer.rrset is not None else 0)

    async def close(self) -> None:
        """Nothing is kept."""


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "53")
    return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))


class _Attempt:
    """Follows one probe down to its socket, to tell a connection that never came from one that is silent."""

    def __init__(self) -> None:
        self.resolving = False
        self.response: aiohttp.ClientResponse | None = None
        self._sockets: list[socket.socket] = []

    def socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A new socket, of which a duplicate is kept: aiohttp closes its own before we can look."""
        made = socket.socket(info[0], info[1], info[2])
        self._sockets.append(made.dup())
        return made

    def peer(self) -> str | None:
        """Address of the connection that was made; None when there is none."""
        for item in self._sockets:
            try:
                return str(item.getpeername()[0])
            except OSError:
                continue
        return None

    def trace(self) -> aiohttp.TraceConfig:
        """Notes when the name is being resolved."""
        trace = aiohttp.TraceConfig()

        async def start(*_: object) -> None:
            self.resolving = True

        async def end(*_: object) -> None:
            self.resolving = False

        trace.on_dns_resolvehost_start.append(start)
        trace.on_dns_resolvehost_end.append(end)
        return trace

    def close(self) -> None:
        """Let go of the sockets, and so of the connection."""
        for item in self._sockets:
            item.close()

    def after_deadline(self) -> tuple[Outcome, str]:
        """What the deadline found us at."""
        if self.resolving:
            return Outcome.DNS, "no DNS server answered in time"
        if self.response is not None:
            return Outcome.TIMEOUT, "the answer began and did not end in time"
        if self.peer() is not None:
            return Outcome.HALF_OPEN, "connected, and not one byte came back"
        return Outcome.TIMEOUT, "no connection in time"


class HttpProbe:
    """Asks URLs as a user would.

    Args:
        resolvers: DNS servers as "ip:port"; empty means what the system uses.
        ca_file: certificates of the authorities to trust; None means the system's.

    Raises:
        PermanentError: `ca_file` cannot be read.
    """

    def __init__(self, resolvers: tuple[str, ...] = (), ca_file: str | None = None) -> None:
        self._resolver: AbstractResolver | None = DnsResolver(resolvers) if resolvers else None
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise PermanentError(
                f"reading the certificate authority {ca_file}", str(error), "Correct traffic.ca_file."
            ) from error

    async def close(self) -> None:
        """Nothing is kept between probes."""

    async def get(self, url: str, *, deadline: float) -> HttpAnswer:
        """One GET; comes back within `deadline` seconds whatever happens.

        Raises:
            PermanentError: `url` is not an HTTP URL.
        """
        attempt = _Attempt()
        started = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                body = await self._read(url, attempt)
            outcome, found = Outcome.ANSWERED, ""
        except TimeoutError:
            body, (outcome, found) = b"", attempt.after_deadline()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise PermanentError(f"asking {url}", "this is not an HTTP URL", "Correct it.") from error
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            body, outcome, found = b"", _outcome(error), str(error) or type(error).__name__
        finally:
            address = attempt.peer()
            attempt.close()
        response = attempt.response
        return HttpAnswer(
            url=url,
            outcome=outcome,
            seconds=time.monotonic() - started,
            status=response.status if response is not None and outcome is Outcome.ANSWERED else None,
            headers=response.headers if response is not None else MappingProxyType({}),
            body=body,
            address=address,
            found=found,
        )

    async def _read(self, url: str, attempt: _Attempt) -> bytes:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver or aiohttp.ThreadedResolver(),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls,
            socket_factory=attempt.socket,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trace_configs=[attempt.trace()],
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            attempt.response = response
            body = b""
            while len(body) < BODY_BYTES and (part := await response.content.read(BODY_BYTES - len(body))):
                body += part
            return body


def _outcome(error: Exception) -> Outcome:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Outcome.DNS
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return Outcome.TLS
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome.RESET if isinstance(error.os_error, ConnectionResetError) else Outcome.REFUSED
    return Outcome.RESET
