"""What to answer a DNS question from a set of records. Pure but for the random number it is given.

Route 53's rules: of a weighted group one record set is answered, chosen by weight; weight 0 is never chosen, unless
all are 0, when each is as likely. A name that is not there is answered by the wildcard beside its nearest ancestor (RFC
4592); a name that has only names below it is there, with nothing to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_Types = Mapping[str, Sequence["Record"]]
_STAR = dns.name.Name([b"*"])


@dataclass(frozen=True, slots=True)
class Record:
    """One record set; `weight` None for simple ones. Names are lower case with the final dot; `ttl` in seconds."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]
    weight: int | None = None


class Answers:
    """Records by name and type."""

    def __init__(self, records: Sequence[Record], zones: Sequence[str]) -> None:
        self._zones = tuple(dns.name.from_text(zone).canonicalize() for zone in zones)
        self._records: dict[dns.name.Name, dict[str, list[Record]]] = {}
        self._there: set[dns.name.Name] = set(self._zones)
        for record in records:
            name = dns.name.from_text(record.name).canonicalize()
            self._records.setdefault(name, {}).setdefault(record.type, []).append(record)
            while name not in self._there and self._zone(name) is not None:
                self._there.add(name)
                name = name.parent()

    def answer(self, query: dns.message.Message, random: float) -> dns.message.Message:
        """The response to `query`; `random` in [0, 1) picks among weights."""
        response = dns.message.make_response(query)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
            return response
        if len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return response
        question = query.question[0]
        name = question.name.canonicalize()
        if self._zone(name) is None:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        response.flags |= dns.flags.AA
        self._follow(response, name, dns.rdatatype.to_text(question.rdtype), random)
        return response

    def _follow(self, response: dns.message.Message, name: dns.name.Name, kind: str, random: float) -> None:
        """Put what `name` has into the response, along aliases as far as they stay here."""
        seen: set[dns.name.Name] = set()
        while name not in seen and (zone := self._zone(name)) is not None:
            seen.add(name)
            types = self._types(name)
            if types is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
            elif kind in types:
                response.answer.append(_rrset(name, choose(types[kind], random)))
                return
            elif "CNAME" in types:
                chosen = choose(types["CNAME"], random)
                response.answer.append(_rrset(name, chosen))
                name = dns.name.from_text(chosen.values[0]).canonicalize()
                continue
            for authority in self._records.get(zone, {}).get("SOA", ()):
                response.authority.append(_rrset(zone, authority))
            return

    def _types(self, name: dns.name.Name) -> _Types | None:
        """What is to be told of `name` by type; None if there is no such name."""
        if name in self._there:
            return self._records.get(name, {})
        while name not in self._there:
            name = name.parent()
        return self._records.get(_STAR.concatenate(name))

    def _zone(self, name: dns.name.Name) -> dns.name.Name | None:
        return next((zone for zone in self._zones if name.is_subdomain(zone)), None)


def choose(records: Sequence[Record], random: float) -> Record:
    """One of a group by weight; simple records are groups of one."""
    weights = [0 if record.weight is None else record.weight for record in records]
    total = sum(weights)
    if total == 0:
        return records[int(random * len(records))]
    point = random * total
    for record, weight in zip(records, weights, strict=True):
        if point < weight:
            return record
        point -= weight
    return records[-1]


def _rrset(name: dns.name.Name, record: Record) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, record.ttl, dns.rdataclass.IN, record.type, list(record.values))
