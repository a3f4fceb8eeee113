"""Which sessions of a database talk to nobody any more, from the kernel's table of sockets beside what the server says of them.

A server that waits for the answer of a client that is gone keeps its transaction and its locks. Silence alone is no proof: a
person may think for long. Proof is what the kernel knows: the peer has hung up, there is no connection any more, or the peer
has left unanswered what was sent to it again and again. Pure: text in, verdicts out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_ESTABLISHED = "01"
_CLOSE_WAIT = "08"
_UNANSWERED = 3
"""So many times in a row something was sent to it in vain: on a network that loses packets, less is an accident."""
_FIELDS = 9
_IPV6_DIGITS = 32


class Peer(StrEnum):
    """What is known of the other end."""

    ALIVE = "alive"
    """Connected, and it has answered what was sent to it. One that died without a word is this, until the kernel asks it."""
    DEAD = "dead"
    UNKNOWN = "unknown"
    """The kernel's table cannot be read."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One connection as the kernel has it: its state in hex, and how often it was asked in vain since it last answered."""

    state: str
    unanswered: int


@dataclass(frozen=True, slots=True)
class Session:
    """One client's session that holds a transaction; no text of a query, for that is patients' data.

    ``began`` is when its process did, as the server writes it: with the pid it is unique.
    """

    pid: int
    began: str
    application: str
    address: str
    port: int
    state: str
    waits_for: str
    seconds: float
    """Since its state changed."""


def sockets(*tables: str) -> Mapping[tuple[str, int], Socket]:
    """The far ends in the text of ``/proc/net/tcp`` and ``/proc/net/tcp6``; lines that are no sockets are passed over."""
    found: dict[tuple[str, int], Socket] = {}
    for line in (line for table in tables for line in table.splitlines()):
        fields = line.split()
        if len(fields) < _FIELDS or ":" not in fields[2]:
            continue
        address, _, port = fields[2].partition(":")
        try:
            end = (_address(address), int(port, 16))
            # retransmissions, and probes of a silent or a full peer
            socket = Socket(fields[3], max(int(fields[6], 16), int(fields[8])))
        except ValueError:
            continue
        found[end] = socket
    return found


def _address(text: str) -> str:
    """The kernel writes words of four bytes in the machine's own order: little-endian on everything that this runs on."""
    raw = bytes.fromhex(text)
    turned = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if len(text) < _IPV6_DIGITS:
        return str(ipaddress.IPv4Address(turned))
    address = ipaddress.IPv6Address(turned)
    return str(address.ipv4_mapped or address)


def peers(
    sessions: Sequence[Session], known: Mapping[tuple[str, int], Socket] | None
) -> tuple[tuple[Session, Peer], ...]:
    """What each session's far end is; `known` must have been read after the sessions, None when it cannot be."""
    return tuple((session, _peer(session, known)) for session in sessions)


def _peer(session: Session, known: Mapping[tuple[str, int], Socket] | None) -> Peer:
    # An empty table cannot be the one of the network that the sessions came through.
    if not known:
        return Peer.UNKNOWN
    socket = known.get((session.address, session.port))
    if socket is None or socket.state == _CLOSE_WAIT or socket.unanswered >= _UNANSWERED:
        return Peer.DEAD
    return Peer.ALIVE if socket.state == _ESTABLISHED else Peer.DEAD
