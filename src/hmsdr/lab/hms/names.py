"""Names to addresses through the lab's DNS server, kept exactly as long as the answer allows. Retries nothing."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype

from hmsdr.lab.layout import Endpoint


class UnresolvedError(OSError):
    """A name has no address now: no such name, or the name server does not answer."""


@dataclass(frozen=True, slots=True)
class _Kept:
    address: str
    until: float


class Names:
    """A resolver for A records at one server, with a cache that honours the TTL."""

    def __init__(self, server: Endpoint) -> None:
        self._server = server
        self._kept: dict[str, _Kept] = {}

    async def address(self, name: str, *, deadline: float) -> str:
        """The IPv4 address of `name`; an address is its own answer.

        Args:
            name: with or without the final dot.
            deadline: seconds.

        Raises:
            UnresolvedError: there is none, or no answer in time.
        """
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            pass
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(name)
        if kept is not None and now < kept.until:
            return kept.address
        question = dns.message.make_query(name, dns.rdatatype.A)
        try:
            async with asyncio.timeout(deadline):
                answer, _ = await dns.asyncquery.udp_with_fallback(
                    question, self._server.host, timeout=deadline, port=self._server.port
                )
        except (dns.exception.DNSException, OSError, TimeoutError, EOFError) as error:
            found = str(error) or type(error).__name__
            raise UnresolvedError(f"{name}: no answer from {self._server}: {found}") from error
        for rrset in answer.answer:
            if rrset.rdtype == dns.rdatatype.A:
                found = str(rrset[0].to_text())
                self._kept[name] = _Kept(found, now + rrset.ttl)
                return found
        raise UnresolvedError(f"{name}: {self._server} knows no address of it")

    def forget(self, name: str) -> None:
        """Ask again next time, whatever the TTL says: for clients inside the cluster, whose peer is gone."""
        self._kept.pop(name, None)
