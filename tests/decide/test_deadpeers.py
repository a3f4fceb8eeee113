"""Dead peers, from lines as Linux writes them: hung up, gone, unanswered; silence alone is no proof."""

from __future__ import annotations

import pytest

from hmsdr.decide.deadpeers import Peer, Session, Socket, peers, sockets

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(remote: str, state: str = "01", retransmits: str = "00000000", probes: int = 0) -> str:
    return f"   0: 0100007F:1538 {remote} {state} 00000000:00000000 02:000006D6 {retransmits}   105        {probes} 81 2 0000000000000000\n"


def session(address: str, port: int) -> Session:
    return Session(7, "2026-01-01", "hms", address, port, "idle in transaction", "Client:ClientRead", 60.0)


@pytest.mark.req("AP-3")
@pytest.mark.parametrize(
    ("rest", "verdict"),
    [
        ({}, Peer.ALIVE),
        ({"state": "08"}, Peer.DEAD),
        ({"retransmits": "00000002"}, Peer.ALIVE),
        ({"retransmits": "00000003"}, Peer.DEAD),
        ({"probes": 2}, Peer.ALIVE),
        ({"probes": 3}, Peer.DEAD),
    ],
)
def test_a_peer_is_dead_when_the_kernel_knows_it(rest: dict[str, object], verdict: Peer) -> None:
    table = sockets(HEAD + line("0200000A:D431", **rest))  # type: ignore[arg-type]
    found = peers([session("10.0.0.2", 0xD431)], table)
    assert [each for _, each in found] == [verdict]


@pytest.mark.req("AP-3")
def test_who_has_no_connection_is_dead_and_without_a_table_nothing_is_known() -> None:
    table = sockets(HEAD + line("0200000A:D431"))
    assert peers([session("10.0.0.3", 0xD431)], table)[0][1] is Peer.DEAD
    assert peers([session("10.0.0.2", 1)], table)[0][1] is Peer.DEAD
    for nothing in (None, {}, sockets(HEAD), sockets("nonsense\n: : : : : : : : :\n")):
        assert peers([session("10.0.0.2", 0xD431)], nothing)[0][1] is Peer.UNKNOWN


def test_addresses_of_both_kinds_are_read() -> None:
    mapped = "0000000000000000FFFF00000200000A:0050"
    six = "B80D0120000000000000000001000000:0051"
    assert sockets(line(mapped), line(six)) == {
        ("10.0.0.2", 80): Socket("01", 0),
        ("2001:db8::1", 81): Socket("01", 0),
    }
