"""Choosing a lab's three loopback networks and its ports, so that several labs run side by side. Decides addresses only.

A network belongs to a lab as long as somebody holds its claim, a socket with an abstract name, which the kernel
gives back however the holder went: while the lab comes up its bringer, afterwards its supervisor.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hmsdr.errors import RefusedError
from hmsdr.lab.layout import REGIONS, WITNESS, Endpoint, Layout, RegionLayout

FIRST, LAST = ipaddress.IPv4Address("127.64.0.0"), ipaddress.IPv4Address("127.127.255.0")
_NETS = 3
_STRIDE = 4 * 256
_CHOICES = (int(LAST) - int(FIRST) + 256) // _STRIDE
_LISTEN = "0A"
_BOUND = "07"
_TRIES_UPWARDS = 50
_TOLD = 3
"""Programs in the way that a refusal names."""
_ETCD, _CONTROLLER = 70, 71

PORTS = {
    "postgres": (5432, 15432),
    "redis": (6379, 16379),
    "kubernetes": (6443, 16443),
    "agent": (8300, 18300),
    "http": (80, 8080),
    "https": (443, 8443),
    "dns": (53, 5353),
    "aws": (4566, 14566),
    "moto": (4567, 14567),
    "prometheus": (443, 19090),
    "channels": (8600, 18600),
    "mail": (25, 10025),
    "etcd": (2379, 12379),
    "etcd-peer": (2380, 12380),
    "controller": (7444, 17444),
}
"""Name to standard port, and the port to go on from when the standard one cannot be had."""

SHARED = ("dns", "aws", "moto", "prometheus", "channels", "mail")
EVERYWHERE = ("etcd", "etcd-peer", "controller")
"""At each of the three sites."""
_UDP = ("dns",)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens: protocol, local address and who has it, where that could be found out."""

    protocol: str
    host: str
    port: int
    inode: str

    @property
    def everywhere(self) -> bool:
        """Whether it listens on all addresses."""
        return self.host in ("0.0.0.0", "::")

    def owner(self) -> str:
        """Pid and command of the process that holds it, or an honest phrase."""
        for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - cheap names
            with suppress(OSError):
                for handle in os.listdir(f"/proc/{name}/fd"):  # noqa: PTH208
                    if os.readlink(f"/proc/{name}/fd/{handle}") == f"socket:[{self.inode}]":  # noqa: PTH115
                        command = Path(f"/proc/{name}/comm").read_text().strip()
                        return f"process {name} ({command})"
        return "a process that this user may not see"


@dataclass(frozen=True, slots=True)
class Networks:
    """Three networks in a row and the sockets that claim them."""

    first: ipaddress.IPv4Address
    claims: tuple[socket.socket, ...]

    def prefix(self, number: int) -> str:
        """First three octets of network `number` (0 shared, 1 and 2 the regions)."""
        return str(self.first + 256 * number).rpartition(".")[0]

    def close(self) -> None:
        """Give this process's hold on them back; whoever inherited the sockets keeps its own."""
        for claim in self.claims:
            claim.close()


def claim_networks(directory: Path, address: str | None) -> Networks:
    """Claim three networks: those at `address`, or free ones found from a hash of the directory's path.

    Raises:
        RefusedError: `address` cannot be used, or is taken, or nothing is free.
    """
    found = [listener for listener in listeners() if not listener.everywhere]
    if address is not None:
        return _claim_asked(address, found)
    taken = {listener.host for listener in found}
    start = int.from_bytes(hashlib.sha256(os.fsencode(directory)).digest()[:8], "big")
    for number in range(_CHOICES):
        first = FIRST + ((start + number) % _CHOICES) * _STRIDE
        if taken & _hosts(first):
            continue
        claims = _claim(first)
        if claims:
            return Networks(first, claims)
    raise RefusedError(
        "looking for free loopback networks", f"all between {FIRST} and {LAST} are taken", "Stop a lab"
    )


def _claim_asked(address: str, found: list[Listener]) -> Networks:
    """The networks at `address`, or a refusal that says who is there, a lab or some other program."""
    first = _check_address(address)
    hosts = _hosts(first)
    busy = sorted((each for each in found if each.host in hosts), key=lambda each: (each.host, each.port))
    claims = _claim(first)
    if claims and not busy:
        return Networks(first, claims)
    for claim in claims:
        claim.close()
    told = [f"{each.owner()} listens on {each.host}:{each.port}/{each.protocol}" for each in busy[:_TOLD]]
    if len(busy) > _TOLD:
        told.append(f"{len(busy) - _TOLD} more")
    why = "; ".join(told)
    if not claims:
        first_told = f" ({told[0]})" if told else ""
        why = f"another lab has at least one of them{first_told}"
    raise RefusedError(
        f"claiming the networks from {address}",
        why,
        "`hmsdr lab down` there, or choose another --address, or none to have free ones found"
        if not claims
        else "Stop it, or choose another --address, or none to have free ones found",
    )


def choose_ports(networks: Networks, asked: Mapping[str, int]) -> dict[str, int]:
    """A port for each name in `PORTS`: as asked, else the standard one, else the next that is free.

    A name's port is the same in both regions, so it must be free in both networks.

    Raises:
        RefusedError: an unknown name, or an asked port that is taken or not allowed; the text says by whom.
    """
    unknown = sorted(set(asked) - set(PORTS))
    if unknown:
        raise RefusedError(
            f"reading --port {unknown[0]}", "there is no such port", f"Known: {', '.join(PORTS)}"
        )
    chosen: dict[str, int] = {}
    for name, (standard, upwards) in PORTS.items():
        hosts = _addresses(networks, name)
        if name in asked:
            why = _obstacle(name, hosts, asked[name], chosen)
            if why:
                raise RefusedError(
                    f"taking port {asked[name]} for {name}",
                    why,
                    f"Stop it, or choose another --port {name}=N",
                )
            chosen[name] = asked[name]
            continue
        for port in (standard, *range(upwards, upwards + _TRIES_UPWARDS)):
            if not _obstacle(name, hosts, port, chosen):
                chosen[name] = port
                break
        else:
            raise RefusedError(
                f"looking for a port for {name}",
                f"{standard} and {upwards} to {upwards + _TRIES_UPWARDS - 1} are taken on {hosts[0]}",
                f"Name a free one with --port {name}=N",
            )
    return chosen


def lay_out(
    directory: Path,
    lab_id: str,
    user: str | None,
    networks: Networks,
    ports: Mapping[str, int],
    *,
    ha: bool = False,
    namespaces: bool = False,
) -> Layout:
    """The layout of a lab in those networks; with `ha`, with etcd and controllers at three sites.

    With `namespaces`, the witness has a network of its own, the fourth; else it shares the first.
    """
    shared = networks.prefix(0)
    regions = {}
    for number, name in enumerate(REGIONS, start=1):
        net = networks.prefix(number)
        regions[name] = RegionLayout(
            name=name,
            ordinal_name="primary" if number == 1 else "secondary",
            directory=directory / "regions" / name,
            pod_network=net,
            ingress_http=Endpoint(f"{net}.10", ports["http"]),
            ingress_https=Endpoint(f"{net}.10", ports["https"]),
            kubernetes=Endpoint(f"{net}.2", ports["kubernetes"]),
            postgres=Endpoint(f"{net}.20", ports["postgres"]),
            redis=Endpoint(f"{net}.30", ports["redis"]),
            agent=Endpoint(f"{net}.21", ports["agent"]),
        )
    return Layout(
        lab_id=lab_id,
        directory=directory,
        user=user,
        regions=regions,
        aws=Endpoint(f"{shared}.4", ports["aws"]),
        moto=Endpoint(f"{shared}.5", ports["moto"]),
        dns=Endpoint(f"{shared}.53", ports["dns"]),
        prometheus=Endpoint(f"{shared}.90", ports["prometheus"]),
        channels=Endpoint(f"{shared}.86", ports["channels"]),
        mail=Endpoint(f"{shared}.86", ports["mail"]),
        sites={
            name: {
                "etcd": Endpoint(f"{networks.prefix(number)}.{_ETCD}", ports["etcd"]),
                "etcd_peer": Endpoint(f"{networks.prefix(number)}.{_ETCD}", ports["etcd-peer"]),
                "controller": Endpoint(f"{networks.prefix(number)}.{_CONTROLLER}", ports["controller"]),
            }
            for number, name in (*enumerate(REGIONS, start=1), (_NETS if namespaces else 0, WITNESS))
        },
        witness=WITNESS if ha else None,
        namespaces=namespaces,
    )


def listeners() -> list[Listener]:
    """Every TCP listener and bound UDP socket of this network namespace."""
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
                parts = line.split()
                if parts[3] not in (_LISTEN, _BOUND) or (protocol.startswith("tcp") and parts[3] != _LISTEN):
                    continue
                host, _, port = parts[1].partition(":")
                found.append(Listener(protocol[:3], _decode(host), int(port, 16), parts[9]))
    return found


def listens(pid: int, where: Endpoint) -> bool:
    """Does this very process listen on `where` over TCP?"""
    sockets = {
        f"socket:[{each.inode}]"
        for each in listeners()
        if (each.protocol, each.host, each.port) == ("tcp", where.host, where.port)
    }
    with suppress(OSError):
        for handle in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - cheap names
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{handle}") in sockets:  # noqa: PTH115
                    return True
    return False


def _obstacle(name: str, hosts: list[str], port: int, chosen: Mapping[str, int]) -> str | None:
    """Why `port` cannot be had on `hosts`, or None."""
    for other, taken in chosen.items():
        if taken == port and (other in SHARED) == (name in SHARED) and name not in EVERYWHERE:
            return f"it is already this lab's port for {other}"
    for host in hosts:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) if name in _UDP else (socket.SOCK_STREAM,):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    return _explain(error, host, port, "udp" if kind == socket.SOCK_DGRAM else "tcp")
                except OverflowError:
                    return f"{port} is not a port (1 to 65535)"
    return None


def _explain(error: OSError, host: str, port: int, protocol: str) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not bind port {port} (below the unprivileged range)"
    if error.errno == errno.EADDRINUSE:
        for listener in listeners():
            theirs = listener.port == port and listener.protocol == protocol
            if theirs and (listener.everywhere or listener.host == host):
                return f"{listener.owner()} listens on {listener.host}:{port}/{protocol}"
        return f"{host}:{port}/{protocol} is in use"
    return f"{host}:{port} cannot be bound: {error.strerror}"


def _addresses(networks: Networks, name: str) -> list[str]:
    """The addresses a port of that name is bound on."""
    last = {
        "postgres": 20, "redis": 30, "kubernetes": 2, "agent": 21, "http": 10, "https": 10,
        "dns": 53, "aws": 4, "moto": 5, "prometheus": 90, "channels": 86, "mail": 86,
        "etcd": _ETCD, "etcd-peer": _ETCD, "controller": _CONTROLLER,
    }[name]  # fmt: skip
    nets = (0,) if name in SHARED else range(_NETS) if name in EVERYWHERE else range(1, _NETS)
    return [f"{networks.prefix(number)}.{last}" for number in nets]


def _check_address(text: str) -> ipaddress.IPv4Address:
    try:
        first = ipaddress.IPv4Address(text)
    except ValueError:
        first = ipaddress.IPv4Address(0)
    if not FIRST <= first <= LAST - 256 * (_NETS - 1) or int(first) % 256:
        raise RefusedError(
            f"reading --address {text}",
            f"it is not the first address of a /24 network between {FIRST} and {LAST - 256 * (_NETS - 1)}",
            "Give one such as 127.77.0.0; the lab takes it and the two networks after it",
        )
    return first


def _claim(first: ipaddress.IPv4Address) -> tuple[socket.socket, ...]:
    """Hold all three networks by their abstract names; empty when somebody has one of them."""
    held: list[socket.socket] = []
    for number in range(_NETS):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        held.append(holder)
        try:
            holder.bind(f"\0hmsdr-lab-network/{first + 256 * number}")
        except OSError:
            for each in held:
                each.close()
            return ()
    return tuple(held)


def _hosts(first: ipaddress.IPv4Address) -> set[str]:
    return {str(first + offset) for offset in range(256 * _NETS)}


def _decode(text: str) -> str:
    """An address of /proc/net: hexadecimal, in host byte order, four octets at a time."""
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(words))
