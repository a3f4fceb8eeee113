"""Single faults: what breaks, and how it is mended, drawn from the seed's dice. They apply; what is made of them is `faults`."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations

from hmsdr.sim.hospital import Hospital
from hmsdr.sim.world import EAST, SITES, WEST, Process

Fault = tuple[str, Callable[[Hospital], None], Callable[[Hospital], None]]
"""What it is called, how it begins, how it ends."""


def wires_of(site: str) -> set[tuple[str, str]]:
    """Every wire from and to `site`."""
    return {(a, b) for a, b in permutations(SITES, 2) if site in (a, b)}


def cutting(wires: set[tuple[str, str]]) -> Callable[[Hospital], None]:
    """Exactly these wires are cut from then on."""
    return lambda hospital: hospital.world.cut_wires(wires)


def _cut(dice: random.Random) -> Fault:
    wires = {wire for wire in permutations(SITES, 2) if dice.random() < dice.choice((0.2, 0.5, 0.9))}
    if dice.random() < 0.5:  # noqa: PLR2004 - a whole site, as often as any wires
        wires = wires_of(dice.choice(SITES))
    return "cut", cutting(wires), cutting(set())


def _die(dice: random.Random) -> Fault:
    site = dice.choice(SITES)
    return f"{site} dies", lambda hospital: hospital.lose(site), lambda hospital: hospital.bring_back(site)


def _crash(dice: random.Random) -> Fault:
    position = dice.randrange(7)

    def begin(hospital: Hospital) -> None:
        hospital.processes()[position].kill()
        hospital.world.say("fault", f"{hospital.processes()[position].name} is killed")

    return "crash", begin, lambda hospital: hospital.processes()[position].start()


def _crash_of_database(dice: random.Random) -> Fault:
    region = dice.choice((EAST, WEST))
    return (
        f"db-{region} crashes",
        lambda hospital: hospital.databases[region].kill(backends=False),
        lambda _: None,
    )


def _start_by_hand(dice: random.Random) -> Fault:
    """Somebody, or the machine's own start script, starts the database around its agent (rule 6)."""
    region = dice.choice((EAST, WEST))

    def begin(hospital: Hospital) -> None:
        hospital.databases[region].launch(follows=True)

    return f"db-{region} is started around its agent", begin, lambda _: None


def _pause(dice: random.Random) -> Fault:
    # Guards are not among them: that one is scheduled within the drift margin is assumed (SAFETY.md).
    # A machine in trouble often cannot be reached either.
    position, alone = dice.randrange(5), dice.random() < 0.6  # noqa: PLR2004

    def process(hospital: Hospital) -> Process:
        return hospital.processes()[2 + position]

    def begin(hospital: Hospital) -> None:
        process(hospital).pause()
        if not alone:
            hospital.world.cut_wires(wires_of(process(hospital).machine.site))
        hospital.world.say("fault", f"{process(hospital).name} is paused")

    def end(hospital: Hospital) -> None:
        hospital.world.say("fault", f"{process(hospital).name} goes on")
        process(hospital).resume()
        if not alone:
            hospital.world.cut_wires(set())

    return "pause", begin, end


def weather(dice: random.Random, *, slow: bool = False) -> Fault:
    """Messages that are lost, doubled or late."""
    loss, duplicates, delay = dice.choice((0, 0.05, 0.4)), dice.choice((0, 0.3)), dice.choice((1, 1, 5, 15))
    if slow:
        loss, delay = 0, 6

    def begin(hospital: Hospital) -> None:
        world = hospital.world
        world.loss, world.duplicates, world.delay = loss, duplicates, delay
        world.say("network", f"loss {loss}, duplicates {duplicates}, delay x {delay}")
        world.notify()

    def end(hospital: Hospital) -> None:
        world = hospital.world
        world.loss, world.duplicates, world.delay = 0.0, 0.0, 1.0
        world.notify()

    return "weather", begin, end


def _member(dice: random.Random) -> Fault:
    site = dice.choice(SITES)
    return (
        f"member {site} dies",
        lambda hospital: hospital.store.set_member(site, up=False),
        lambda hospital: hospital.store.set_member(site, up=True),
    )


def _services(dice: random.Random) -> Fault:
    region = dice.choice((EAST, WEST))

    def begin(hospital: Hospital) -> None:
        hospital.services.set(region, up=False)

    def end(hospital: Hospital) -> None:
        hospital.services.set(region, up=True)

    return f"services of {region} fail", begin, end


def mute(hospital: Hospital) -> None:
    """The interface of the agent of east answers nobody."""
    hospital.agents[EAST].mute = True


def pause_agent(hospital: Hospital) -> None:
    """SIGSTOP."""
    hospital.agents[EAST].pause()


def go_on(hospital: Hospital) -> None:
    """SIGCONT."""
    hospital.agents[EAST].resume()


def deafen(hospital: Hospital) -> None:
    """It reaches neither the store nor its peer, and nobody reaches it."""
    hospital.store.deaf = {"agent@east"}
    hospital.agents[EAST].mute = hospital.agents[EAST].alone = True


def go_on_deaf(hospital: Hospital) -> None:
    """SIGCONT, and it hears nobody."""
    deafen(hospital)
    go_on(hospital)


def hear(hospital: Hospital) -> None:
    """It is joined again."""
    hospital.store.deaf = set()
    hospital.agents[EAST].mute = hospital.agents[EAST].alone = False


KINDS = (
    _cut,
    _cut,
    _die,
    _crash,
    _crash,
    _crash_of_database,
    _start_by_hand,
    _pause,
    _pause,
    weather,
    weather,
    _member,
    _services,
)
