"""Name servers, asked one by one: which a zone has, and what each answers for a name and for how long. It only asks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from hmsdr.drivers.errors import TemporaryError

_PORT = 53


@dataclass(frozen=True, slots=True)
class NameAnswer:
    """What one server answers: the values, and for how many seconds they may be kept. ``found`` says why there are none."""

    server: str
    values: tuple[str, ...] = ()
    ttl: int = 0
    found: str = ""


async def servers_of(zone: str, resolvers: Sequence[str], *, deadline: float) -> tuple[str, ...]:
    """Addresses of the zone's name servers, as the resolvers know them; none when the zone names none.

    Raises:
        TemporaryError: no resolver answers.
    """
    resolver = _resolver(resolvers, deadline / 2)
    found: list[str] = []
    try:
        names = [str(each.target) for each in await resolver.resolve(zone, "NS", search=False)]
        for name in names:
            with suppress(dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
                found += [each.address for each in await resolver.resolve(name, "A", search=False)]
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return ()
    except (dns.exception.DNSException, OSError) as error:
        raise TemporaryError(
            f"asking for the name servers of {zone}", _words(error), "Check traffic.resolvers"
        ) from error
    return tuple(sorted(set(found)))


async def ask(server: str | None, name: str, kind: str, *, deadline: float) -> NameAnswer:
    """Ask `server` (``address`` or ``address:port``; None: the system's resolver) for `name`; whatever goes wrong is in the answer."""
    shown = server or "the system's resolver"
    try:
        answer = await _resolver(() if server is None else (server,), deadline).resolve(
            name, kind, search=False
        )
    except (dns.exception.DNSException, OSError) as error:
        return NameAnswer(shown, found=_words(error))
    ttl = 0 if answer.rrset is None else answer.rrset.ttl
    return NameAnswer(shown, tuple(sorted(each.to_text().rstrip(".") for each in answer)), ttl)


def _resolver(servers: Sequence[str], deadline: float) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [_server(text) for text in servers]
    resolver.timeout = deadline / max(1, len(servers))
    resolver.lifetime = deadline
    return resolver


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    with suppress(ValueError):
        return dns.nameserver.Do53Nameserver(str(ip_address(text)), _PORT)
    host, _, port = text.rpartition(":")
    return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
