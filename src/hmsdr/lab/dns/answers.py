"""What to answer a DNS question from a set of records. Pure but for the random number it is given.

Route 53's rules: of a weighted group one record set is answered, chosen by weight; weight 0 is never chosen, unless
all are 0, when each is as likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


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
        self._zones = tuple(dns.name.from_text(zone) for zone in zones)
        self._records: dict[str, dict[str, list[Record]]] = {}
        for record in records:
            self._records.setdefault(record.name, {}).setdefault(record.type, []).append(record)

    def answer(self, query: dns.message.Message, random: float) -> dns.message.Message:
        """The response to `query`; `random` in [0, 1) picks among weights."""
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
            return response
        question = query.question[0]
        if not any(question.name.is_subdomain(zone) for zone in self._zones):
            response.set_rcode(dns.rcode.REFUSED)
            return response
        name = question.name.canonicalize().to_text()
        kind = dns.rdatatype.to_text(question.rdtype)
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            types: Mapping[str, list[Record]] = self._records.get(name, {})
            if not types:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if kind not in types and "CNAME" in types:
                chosen = choose(types["CNAME"], random)
                response.answer.append(_rrset(name, chosen))
                name = dns.name.from_text(chosen.values[0]).canonicalize().to_text()
                if not any(dns.name.from_text(name).is_subdomain(zone) for zone in self._zones):
                    break
                continue
            if kind in types:
                response.answer.append(_rrset(name, choose(types[kind], random)))
            break
        return response


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


def _rrset(name: str, record: Record) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, record.ttl, dns.rdataclass.IN, record.type, list(record.values))
