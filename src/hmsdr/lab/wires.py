"""A lab whose sites stand in network namespaces of their own, joined by a bridge whose wires can be cut. Needs no root.

`enter` runs this very command again in a world of its own (user, network and mount namespaces), which ends with it; in it,
`lay` makes a namespace for each site. Clinics and what belongs to neither region stay in the world itself. Cutting and losing
drop packets as a real network does: nobody is told. It decides nothing.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab import binaries, delaying
from hmsdr.lab.layout import REGIONS, WITNESS
from hmsdr.lab.ports import PORTS, Networks
from hmsdr.lab.processes import DIE_WITH_PARENT

WORLD = "world"
"""Where the clinics are."""
PLACES = (WORLD, *REGIONS, WITNESS)
"""In the order of their networks."""
_ENTERED = "HMSDR_LAB_WORLD"
_FIRST = ipaddress.IPv4Address("10.77.0.0")
_BRIDGE = "10.77.255"
_SECONDS = 20.0
_TABLE = "hmsdr"
_RELAY_PORT = 7777
_relays: list[subprocess.Popen[bytes]] = []
"""The delays of this process."""


def why_not() -> str | None:
    """Why sites cannot stand in namespaces here; None when they can."""
    try:
        for program in ("unshare", "nsenter", "ip", "nft"):
            binaries.find(program)
    except RefusedError as error:
        return str(error)
    probe = "mount -t tmpfs t /run && ip link add br0 type bridge && ip netns add n && nft add table inet t"
    done = subprocess.run(
        [*_unshare(), "sh", "-c", probe], capture_output=True, text=True, timeout=_SECONDS, check=False,
        env={**os.environ, "PATH": binaries.search_path()},
    )  # fmt: skip
    return None if done.returncode == 0 else f"the kernel forbids it: {done.stderr.strip()[:200]}"


def entered() -> bool:
    """Whether this process is in a world of its own."""
    return _ENTERED in os.environ


def enter(command: Sequence[str]) -> NoReturn:
    """Run ``python COMMAND`` in the place of this process, in a world of its own.

    Raises:
        RefusedError: the kernel forbids it, or a program is missing.
    """
    if (why := why_not()) is not None:
        raise RefusedError(
            "making a network for each site", why, "User namespaces must be allowed, or run it as root"
        )
    os.environ[_ENTERED] = "1"
    os.environ["PATH"] = binaries.search_path()
    os.execvp("unshare", [*_unshare(), sys.executable, *command])  # noqa: S606 - no shell is wanted


def lay() -> None:
    """Make the namespaces of all sites and join them.

    Raises:
        FailedError: the kernel refused a part of it.
    """
    _run(["mount", "-t", "tmpfs", "t", "/run"])
    _ip("link set lo up")
    _ip("link add hmsdr type bridge")
    _ip(f"address add {_BRIDGE}.254/24 dev hmsdr")
    _ip("link set hmsdr up")
    _ip(f"route add local {net(WORLD)} dev lo")
    for number, place in enumerate(PLACES[1:], start=1):
        _ip(f"netns add {place}")
        _ip(f"link add w{number} type veth peer name wire netns {place}")
        _ip(f"link set w{number} master hmsdr up")
        inside = ["-n", place]
        _ip("link set lo up", *inside)
        _ip(f"address add {_BRIDGE}.{number}/24 dev wire", *inside)
        _ip("link set wire up", *inside)
        _ip(f"route add local {net(place)} dev lo", *inside)
        for other in PLACES:
            if other != place:
                _ip(f"route add {net(other)} via {_gate(other)} src {_host(place)}", *inside)
        _ip(f"route add {net(place)} via {_gate(place)} src {_host(WORLD)}")


def net(place: str) -> str:
    """The network of a place."""
    return f"{_FIRST + 256 * PLACES.index(place)}/24"


def networks() -> Networks:
    """Of this world: nobody else is in it, so nothing has to be claimed."""
    return Networks(_FIRST, ())


def standard_ports() -> dict[str, int]:
    """Of this world: nobody else is in it, so all are free."""
    return {name: standard for name, (standard, _) in PORTS.items()}


def prefix(place: str | None) -> tuple[str, ...]:
    """What comes before a command that runs at `place`."""
    if place is None or place == WORLD:
        return ()
    return ("nsenter", f"--net=/run/netns/{place}", "--")


def cut(source: str, target: str) -> None:
    """Drop every packet from `source` to `target`; the way back stays.

    Raises:
        FailedError: no such place, or the kernel refused it.
    """
    _rule(target, f"ip saddr {{ {net(source)}, {_gate(source)} }} drop")


def lose(target: str, percent: int) -> None:
    """Drop `percent` of the packets that come to `target` from elsewhere, at random."""
    _rule(target, f"iifname != lo numgen random mod 100 < {percent} drop")


def delay(place: str, milliseconds: float) -> None:
    """From now on, what programs at `place` connect to elsewhere takes so much longer, each way; older connections are reset.

    Raises:
        FailedError: no such place, or the relay does not come up.
    """
    _known(place)
    elsewhere = ", ".join(net(other) for other in PLACES if other != place)
    which = f"ip daddr {{ {elsewhere} }} meta mark != {delaying.MARK} meta l4proto tcp"
    command = [*DIE_WITH_PARENT, *prefix(place), sys.executable, "-m", delaying.__name__]
    _relays.append(subprocess.Popen([*command, str(_RELAY_PORT), f"{milliseconds:g}"]))
    ends = time.monotonic() + _SECONDS
    while f":{_RELAY_PORT} " not in _run([*prefix(place), "ss", "-Hltn"]):
        if _relays[-1].poll() is not None or time.monotonic() > ends:
            raise FailedError(
                f"delaying what leaves {place}", "its relay does not come up", "See its message"
            )
        time.sleep(0.05)
    late = f"chain late {{ type nat hook output priority -100; {which} redirect to :{_RELAY_PORT}; }};"
    old = f"chain old {{ type filter hook output priority 0; {which} ct direction original reject with tcp reset; }};"
    _run([*prefix(place), "nft", "-f", "-"], given=f"table inet {_TABLE} {{ {late} {old} }}")


def join() -> None:
    """Take back every cut, every loss and every delay."""
    for place in PLACES:
        _run([*prefix(place), "nft", "delete", "table", "inet", _TABLE], may_fail=True)
    while _relays:
        relay = _relays.pop()
        relay.kill()
        relay.wait(_SECONDS)


def _known(place: str) -> None:
    if place not in PLACES:
        raise FailedError(
            f"cutting wires at {place}", "there is no such place", f"Places: {', '.join(PLACES)}"
        )


def _rule(place: str, rule: str) -> None:
    _known(place)
    base = f"table inet {_TABLE} {{ chain cut {{ type filter hook input priority 0; policy accept; }}; }}"
    _run([*prefix(place), "nft", "-f", "-"], given=base)
    _run([*prefix(place), "nft", "add", "rule", "inet", _TABLE, "cut", *rule.split()])


def _gate(place: str) -> str:
    number = PLACES.index(place)
    return f"{_BRIDGE}.{number or 254}"


def _host(place: str) -> str:
    return net(place).replace(".0/24", ".1")


def _unshare() -> tuple[str, ...]:
    return ("unshare", "--user", "--map-root-user", "--net", "--mount", "--")


def _ip(words: str, *options: str) -> None:
    _run(["ip", *options, *words.split()])


def _run(command: Sequence[str], *, given: str | None = None, may_fail: bool = False) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0 and not may_fail:
        raise FailedError(
            f"`{' '.join(command)}`",
            done.stderr.strip() or f"exit status {done.returncode}",
            "See the message",
        )
    return done.stdout


def database_rules() -> str:
    """Lines of pg_hba.conf that let this world's networks in."""
    first = f"{_FIRST}/16"
    return f"host all all {first} trust\nhost replication all {first} trust\n"
