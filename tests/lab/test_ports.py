"""Networks and ports of a lab: free ones are found, taken ones are refused by name."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from hmsdr.errors import RefusedError
from hmsdr.lab.layout import Layout
from hmsdr.lab.ports import PORTS, choose_ports, claim_networks, lay_out


def test_two_labs_get_networks_of_their_own(tmp_path: Path) -> None:
    first = claim_networks(tmp_path, None)
    second = claim_networks(tmp_path, None)  # the same hash: it must probe on
    try:
        assert not {first.prefix(n) for n in range(3)} & {second.prefix(n) for n in range(3)}
    finally:
        first.close()
        second.close()


def test_a_claim_ends_with_its_holder(tmp_path: Path) -> None:
    first = claim_networks(tmp_path, "127.99.7.0")
    with pytest.raises(RefusedError, match="another lab has at least one of them"):
        claim_networks(tmp_path, "127.99.8.0")  # overlaps
    first.close()
    claim_networks(tmp_path, "127.99.8.0").close()


def test_an_address_in_use_is_refused_by_name(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.98.1.9", 0)),
        pytest.raises(RefusedError, match=r"listens on 127\.98\.1\.9:\d+/tcp"),
    ):
        claim_networks(tmp_path, "127.98.0.0")


def test_who_is_in_the_way_is_told_with_port_and_process_and_never_in_long_lists(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for last in range(4, 9):
            stack.enter_context(socket.create_server((f"127.80.3.{last}", 4566)))
        with pytest.raises(RefusedError) as caught:
            claim_networks(tmp_path, "127.80.3.0")
        me = f"process {os.getpid()}"
        assert me in caught.value.found
        assert "listens on 127.80.3.4:4566/tcp" in caught.value.found
        assert caught.value.found.endswith("; 2 more")
    claimed = claim_networks(tmp_path, "127.80.3.0")  # a refusal keeps nothing
    try:
        with pytest.raises(RefusedError, match="another lab has at least one of them"):
            claim_networks(tmp_path, "127.80.4.0")
    finally:
        claimed.close()


@pytest.mark.parametrize("address", ["127.0.0.0", "10.0.0.0", "127.77.0.1", "127.127.255.0", "nonsense", ""])
def test_an_impossible_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(RefusedError, match=r"such as 127\.77\.0\.0"):
        claim_networks(tmp_path, address)


def test_a_port_under_a_wildcard_listener(tmp_path: Path) -> None:
    networks = claim_networks(tmp_path, None)
    try:
        with socket.create_server(("0.0.0.0", 0)) as listener:
            taken = listener.getsockname()[1]
            with pytest.raises(
                RefusedError, match=rf"process {os.getpid()} \(.+\) listens on 0\.0\.0\.0:{taken}"
            ):
                choose_ports(networks, {"postgres": taken})
        assert choose_ports(networks, {"postgres": taken})["postgres"] == taken
    finally:
        networks.close()


def test_a_standard_port_that_is_taken_gives_way(tmp_path: Path) -> None:
    networks = claim_networks(tmp_path, None)
    try:
        with socket.create_server((f"{networks.prefix(2)}.30", 6379)):
            chosen = choose_ports(networks, {})
        assert chosen["redis"] == PORTS["redis"][1]
        assert chosen["kubernetes"] == PORTS["kubernetes"][0]
    finally:
        networks.close()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"postgre": 1}, "no such port"),
        ({"http": 9999, "https": 9999}, "already this lab's port for http"),
        ({"redis": 70000}, "not a port"),
    ],
)
def test_a_wrong_port_is_refused(tmp_path: Path, asked: dict[str, int], found: str) -> None:
    networks = claim_networks(tmp_path, None)
    try:
        with pytest.raises(RefusedError, match=found):
            choose_ports(networks, asked)
    finally:
        networks.close()


def test_a_layout_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    networks = claim_networks(tmp_path, None)
    layout = lay_out(tmp_path, "lab-x", None, networks, choose_ports(networks, {}))
    networks.close()
    layout.save()
    assert Layout.load(tmp_path) == layout
    hosts = {endpoint.host for endpoint in (layout.aws, layout.moto, layout.dns, layout.prometheus)}
    assert len(hosts) == 4
