"""Whether a record's name and values are such as Route 53 takes. Pure; wording follows the service's.

What is taken must be what a DNS server can answer: so each value is also read by the library that answers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"(?:[ \t]+"(?:[^"\\]|\\.)*")*')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LONGEST_STRING = 255
_SINGLE = ("CNAME", "SOA")


def bad_name(name: str) -> str | None:
    """What is wrong with a name, or None. A star may only be the whole of its first label."""
    try:
        labels = dns.name.from_text(name).labels
    except (dns.exception.DNSException, ValueError) as error:
        return f"Invalid Resource Record: 'FATAL problem: {type(error).__name__} encountered with '{name}''"
    if any(b"*" in label for label in labels[1:]) or (b"*" in labels[0] and labels[0] != b"*"):
        return f"FATAL problem: InvalidDomainName (wildcard must be the first label, alone) encountered with '{name}'"
    return None


def bad_values(kind: str, values: Sequence[str]) -> str | None:
    """What is wrong with the values of a record of this type, or None."""
    if len(set(values)) != len(values):
        return f"Duplicate Resource Record: '{next(v for v in values if values.count(v) > 1)}'"
    if kind in _SINGLE and len(values) > 1:
        return f"Invalid Resource Record: a {kind} record has one value, not {len(values)}"
    for value in values:
        try:
            found = _RULES.get(kind, _any)(value)
            dns.rdata.from_text(dns.rdataclass.IN, kind if kind != "SPF" else "TXT", value)
        except (dns.exception.DNSException, ValueError) as error:
            found = found or f"{kind}RDATAInvalid ({error})"
        if found is not None:
            return f"Invalid Resource Record: 'FATAL problem: {found} encountered with '{value}''"
    return None


def _any(_: str) -> str | None:
    return None


def _a(value: str) -> str | None:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return "ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)"
    return None


def _aaaa(value: str) -> str | None:
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        return "AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address)"
    return None


def _text(value: str) -> str | None:
    if not _STRINGS.fullmatch(value):
        return "InvalidCharacterString (Value should be enclosed in quotation marks)"
    if any(len(part) > _LONGEST_STRING for part in _STRING.findall(value)):
        return "CharacterStringTooLong (Value is too long)"
    return None


_RULES: dict[str, Callable[[str], str | None]] = {"A": _a, "AAAA": _aaaa, "TXT": _text, "SPF": _text}
