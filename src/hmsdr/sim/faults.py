"""Fault schedules: what breaks when, as data drawn from the seed. One random stream of its own; applies, judges nothing.

A scenario is calm, then faults, then calm again. What is demanded at its end depends on the scenario: see `run`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.sim import corruption, handover
from hmsdr.sim.hospital import Hospital
from hmsdr.sim.kinds import (
    KINDS,
    cutting,
    deafen,
    go_on,
    go_on_deaf,
    hear,
    mute,
    pause_agent,
    weather,
    wires_of,
)
from hmsdr.sim.settings import SERVICES_HOLD_DOWN
from hmsdr.sim.world import EAST, SITES, WEST, WITNESS

FIRST = 5.0
"""Seconds of calm before the first fault: the hospital has begun."""
_SHORT = 0.7
"""Part of the hold-down that a short outage lasts at most."""


_MOMENT = "agent@east paused for a moment"

_Timed = tuple[float, str, Callable[[Hospital], None]]
"""When, what it is called, and what it does."""


class Scenario(StrEnum):
    """What kind of trouble a seed brings."""

    STORM = "storm"
    """Anything, in any combination, and planned switchovers in the middle of it."""
    OUTAGE = "outage"
    """The active region dies for good; perhaps one controller as well."""
    FLAPPING = "flapping"
    """The active region cannot be reached, again and again, never for as long as the hold-down."""
    OBSERVERS = "observers"
    """Those who watch are cut off, not the hospital."""
    STORE = "store"
    """Only the store is lost, for longer than a lease."""
    SIEGE = "siege"
    """Neither agent reaches the store, somebody declares the active region lost, the peer's agent begins anew."""
    DECLARED = "declared"
    """Somebody declares the living active region lost; just then, or not, its agent is cut off, paused or unanswered."""
    SWITCHOVER = "switchover"
    """Planned switchovers, disturbed by single faults."""
    SERVICES = "services"
    """The active region answers, and its services do not, for good; now and then they answer for a moment."""
    HANDOVER = "handover"
    """A planned switchover whose other side dies, or lacks the end, before its promotion."""
    DAMAGE = "damage"
    """The active side's data is spoilt: that of its disk alone, or what the standby replays as well."""
    MIRAGE = "mirage"
    """Services seem lost: to one site only, for less than the hold-down, or in both regions at once."""


WEIGHTS = {
    Scenario.STORM: 10,
    Scenario.OUTAGE: 4,
    Scenario.FLAPPING: 2,
    Scenario.OBSERVERS: 2,
    Scenario.STORE: 2,
    Scenario.SIEGE: 2,
    Scenario.DECLARED: 6,
    Scenario.SWITCHOVER: 4,
    Scenario.SERVICES: 3,
    Scenario.MIRAGE: 3,
    Scenario.DAMAGE: 2,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """When what happens, by world time; ``calm`` is when the last fault is healed, ``ends`` when the world is judged."""

    scenario: Scenario
    faults: tuple[_Timed, ...]
    calm: float
    ends: float


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    dice = random.Random(f"{seed}/faults")
    scenario = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if scenario is Scenario.SWITCHOVER and dice.random() < handover.SHARE:
        scenario = Scenario.HANDOVER
    return _DRAWN[scenario](dice)


def _storm(dice: random.Random) -> Schedule:
    faults: list[_Timed] = []
    calm = FIRST + dice.uniform(15, 45)
    for _ in range(dice.randint(2, 9)):
        begins = dice.uniform(FIRST, calm - 1)
        lasts = dice.choice((0.5, 2, 5, 8, 15)) * dice.uniform(0.5, 1.2)
        name, begin, end = dice.choice(KINDS)(dice)
        faults.append((begins, name, begin))
        faults.append((min(calm, begins + lasts), f"end of {name}", end))
    if dice.random() < 0.5:  # noqa: PLR2004 - every other
        faults.append((dice.uniform(FIRST, calm), "switchover wanted", _switch_over))
    return Schedule(Scenario.STORM, _sorted(faults), calm, calm + 30)


def _outage(dice: random.Random) -> Schedule:
    begins = FIRST + dice.uniform(0, 3)
    faults: list[_Timed] = [(begins, "the active region dies", lambda hospital: hospital.lose(EAST))]
    if dice.random() < 0.5:  # noqa: PLR2004 - every other
        site = dice.choice((WEST, WITNESS))
        when = begins + dice.uniform(0, 14)
        faults.append((when, f"controller@{site} dies", lambda hospital: hospital.controllers[site].kill()))
        back = when + dice.uniform(0.2, 2)
        faults.append(
            (back, f"controller@{site} is back", lambda hospital: hospital.controllers[site].start())
        )
    return Schedule(Scenario.OUTAGE, _sorted(faults), begins, begins + 40)


def _flapping(dice: random.Random) -> Schedule:
    faults: list[_Timed] = []
    at = FIRST
    for _ in range(dice.randint(1, 5)):
        at += dice.uniform(3, 8)
        wires = wires_of(EAST)
        if dice.random() < 0.3:  # noqa: PLR2004 - some go one way
            wires = {wire for wire in wires if wire[0] == EAST}
        faults.append((at, "east cannot be reached", cutting(wires)))
        # Clock rates differ, and the first look in vain may come before the cut: a little under the hold-down.
        at += 5.0 * _SHORT * dice.uniform(0.2, 1)
        faults.append((at, "east can be reached", cutting(set())))
    return Schedule(Scenario.FLAPPING, _sorted(faults), at, at + 12)


def _observers(dice: random.Random) -> Schedule:
    begins, lasts = FIRST + dice.uniform(0, 2), dice.uniform(6, 20)
    wires = dice.choice(
        (
            wires_of(WITNESS),
            wires_of(WEST),
            {(WITNESS, EAST), (EAST, WITNESS)},
            {(WEST, WITNESS), (WITNESS, WEST)},
            {(EAST, WITNESS)},
            {(WITNESS, WEST)},
        )
    )
    return Schedule(
        Scenario.OBSERVERS,
        ((begins, "observers cut off", cutting(wires)), (begins + lasts, "healed", cutting(set()))),
        begins + lasts,
        begins + lasts + 15,
    )


def _store(dice: random.Random) -> Schedule:
    begins, lasts = FIRST + dice.uniform(0, 2), dice.uniform(3, 25)
    lost = dice.sample(SITES, dice.choice((1, 2, 3)))

    def lose(hospital: Hospital) -> None:
        for site in lost:
            hospital.store.set_member(site, up=False)

    def back(hospital: Hospital) -> None:
        for site in lost:
            hospital.store.set_member(site, up=True)

    ends = begins + lasts
    return Schedule(
        Scenario.STORE, ((begins, "members die", lose), (ends, "members are back", back)), ends, ends + 15
    )


def _switchovers(dice: random.Random) -> Schedule:
    faults: list[_Timed] = []
    at = FIRST
    if dice.random() < 0.3:  # noqa: PLR2004 - some with requests that arrive twice
        faults.append((at, "weather", _doubling))
    for _ in range(dice.randint(1, 4)):
        at += dice.uniform(0, 4)
        faults.append((at, "switchover wanted", _switch_over))
        if dice.random() < 0.7:  # noqa: PLR2004 - most are disturbed
            name, begin, end = dice.choice(KINDS)(dice)
            begins = at + dice.uniform(0, 4)
            faults.append((begins, name, begin))
            faults.append((begins + dice.uniform(0.3, 8), f"end of {name}", end))
        at += dice.uniform(6, 12)
    calm = max(at, *(fault[0] for fault in faults))
    return Schedule(Scenario.SWITCHOVER, _sorted(faults), calm, calm + 30)


def _siege(dice: random.Random) -> Schedule:
    """The holder lives on its peer's promises while the right is taken away behind their backs."""
    begins = FIRST + dice.uniform(0, 2)
    declared = begins + dice.uniform(-1, 3)
    hears = max(begins, declared) + dice.uniform(9, 18)

    def east_deaf(hospital: Hospital) -> None:
        hospital.store.deaf = {"agent@east"}
        hospital.agents[EAST].mute = True

    def both_deaf(hospital: Hospital) -> None:
        hospital.store.deaf = {"agent@east", "agent@west"}
        hospital.world.cut_wires({(EAST, WITNESS), (WITNESS, EAST)})
        hospital.controllers[EAST].kill()
        hospital.controllers[WEST].kill()

    def west_hears(hospital: Hospital) -> None:
        hospital.store.deaf = {"agent@east"}

    def restart(hospital: Hospital) -> None:
        hospital.agents[WEST].kill()
        hospital.agents[WEST].start()

    def reboot(hospital: Hospital) -> None:
        hospital.lose(WEST)
        hospital.bring_back(WEST)

    faults: list[_Timed] = [
        (begins - dice.choice((0, 0.5, 2)), "the east agent does not reach the store", east_deaf),
        (begins, "neither agent reaches the store", both_deaf),
        (declared, "disaster declared", _declare),
        (hears, "the west agent reaches the store", west_hears),
    ]
    anew = dice.choice((None, restart, reboot))
    if anew is not None:
        faults.append((hears - dice.uniform(0, 0.3), "west begins anew", anew))
    calm = hears + 8
    return Schedule(Scenario.SIEGE, _sorted(faults), calm, calm + 25)


def _declared(dice: random.Random) -> Schedule:
    """What the wait is for: the holder may have renewed a moment before the revocation, and not hear of it."""
    declared = FIRST + dice.uniform(0, 3)
    just_then = dice.random() < 0.6  # noqa: PLR2004 - more often than not
    lost = declared + dice.uniform(0, 9)
    calm = declared + dice.uniform(18, 24)

    kinds: list[tuple[str, Callable[[Hospital], None], Callable[[Hospital], None]]] = [
        ("nothing", lambda _: None, lambda _: None),
        ("east cut off", cutting(wires_of(EAST)), cutting(set())),
        ("agent@east paused", pause_agent, go_on),
        ("agent@east hears nobody", deafen, hear),
        ("agent@east hears nobody", deafen, hear),
        (_MOMENT, pause_agent, hear),
    ]
    name, begin, end = dice.choice(kinds)
    pause = dice.uniform(0.8, 2.8)

    def happens(hospital: Hospital) -> None:
        world = hospital.world
        world.say("fault", name)
        hospital.store.contents.revoked = lambda: None
        begin(hospital)
        if name == _MOMENT:
            # The answer to a renewal waits for it: nobody tells it how old that is, nor what was done since.
            world.at(world.now + pause, go_on_deaf, hospital)

    def waits(hospital: Hospital) -> None:
        """Just as the right is taken away: the agent must not hear of it."""
        hospital.store.contents.revoked = lambda: happens(hospital)

    faults: list[_Timed] = [
        (declared - 0.2, "agent@east does not answer", mute),
        (declared, "disaster declared", _declare),
        (declared, f"{name}, just then", waits) if just_then else (lost, "now", happens),
        (calm, f"end of {name}", end),
    ]
    if dice.random() < (0.8 if "paused" in name else 0.4):
        # An answer on its way for a while is what a pause in the middle of a renewal needs.
        sky, begin_sky, end_sky = weather(dice, slow="paused" in name)
        faults += [(declared - dice.uniform(0, 2), sky, begin_sky), (calm, f"end of {sky}", end_sky)]
    if dice.random() < 0.3:  # noqa: PLR2004 - some
        site = dice.choice(SITES)
        died = declared + dice.uniform(0.3, 9)
        faults.append((died, f"controller@{site} dies", lambda hospital: hospital.controllers[site].kill()))
    return Schedule(Scenario.DECLARED, _sorted(faults), calm, calm + 25)


def _services_lost(dice: random.Random) -> Schedule:
    """For good; in half of the seeds each pod that crashes is started again, and answers for a moment before the next."""
    begins = FIRST + dice.uniform(0, 3)
    down, up = _services(EAST, up=False), _services(EAST, up=True)
    faults: list[_Timed] = [(begins, "services of east fail", down)]
    if dice.random() < 0.5:  # noqa: PLR2004 - every other
        at = begins
        while at < begins + 45:
            at += dice.uniform(3, 6)
            faults.append((at, "a pod answers", up))
            at += dice.uniform(0.2, 0.8)
            faults.append((at, "and crashes", down))
    if dice.random() < 0.3:  # noqa: PLR2004 - some
        site = dice.choice((WEST, WITNESS))
        when = begins + dice.uniform(0, 14)
        faults.append((when, f"controller@{site} dies", lambda hospital: hospital.controllers[site].kill()))
        back = when + dice.uniform(0.2, 2)
        faults.append(
            (back, f"controller@{site} is back", lambda hospital: hospital.controllers[site].start())
        )
    return Schedule(Scenario.SERVICES, _sorted(faults), begins, begins + 45)


def _services(region: str, *, up: bool) -> Callable[[Hospital], None]:
    return lambda hospital: hospital.services.set(region, up=up)


def _mirage(dice: random.Random) -> Schedule:
    """What must not lead to a failover: the hospital is well, or leaving would mend nothing."""
    faults: list[_Timed] = []
    at = FIRST + dice.uniform(0, 3)
    kind = dice.choice(("one site", "short", "both"))
    if kind == "one site":
        site = dice.choice(SITES)
        faults.append((at, f"{site} sees no services", lambda hospital: hospital.services.hide(EAST, site)))
        at += dice.uniform(10, 25)
    elif kind == "both":
        faults += [(at, f"services of {region} fail", _services(region, up=False)) for region in (EAST, WEST)]
        at += dice.uniform(10, 25)
    else:
        for _ in range(dice.randint(1, 4)):
            faults.append((at, "services of east fail", _services(EAST, up=False)))
            at += SERVICES_HOLD_DOWN * _SHORT * dice.uniform(0.2, 1)
            faults.append((at, "services of east answer", _services(EAST, up=True)))
            at += dice.uniform(6, 10)
    faults.append((at, "services are well", lambda hospital: hospital.services.heal()))
    return Schedule(Scenario.MIRAGE, _sorted(faults), at, at + 15)


def _damage(dice: random.Random) -> Schedule:
    """What must never happen: that who has the damage is promoted. Who has it not takes over."""
    faults, spreads, calm = corruption.drawn(dice, FIRST)
    return Schedule(Scenario.DAMAGE, tuple(faults), calm, calm + (5 if spreads else 15))


def _handover(dice: random.Random) -> Schedule:
    faults, struck, ends = handover.drawn(dice, FIRST)
    return Schedule(Scenario.HANDOVER, _sorted(faults), struck, ends)


def heal(hospital: Hospital) -> None:
    """End every fault: wires whole, machines up, everything running."""
    world = hospital.world
    world.loss, world.duplicates, world.delay = 0.0, 0.0, 1.0
    world.cut_wires(set())
    hospital.store.deaf = set()
    hospital.services.heal()
    hospital.store.contents.revoked = lambda: None
    for agent in hospital.agents.values():
        agent.mute = agent.alone = False
    for site in SITES:
        hospital.store.set_member(site, up=True)
        hospital.bring_back(site)
    for process in hospital.processes():
        process.resume()
        process.start()


def _sorted(faults: list[_Timed]) -> tuple[_Timed, ...]:
    return tuple(sorted(faults, key=lambda fault: fault[0]))


def _switch_over(hospital: Hospital) -> None:
    hospital.person.switches = hospital.store.contents.authority.epoch


def _doubling(hospital: Hospital) -> None:
    hospital.world.duplicates = 0.8


def _declare(hospital: Hospital) -> None:
    hospital.person.declares = hospital.store.contents.authority.epoch


_DRAWN = {
    Scenario.STORM: _storm,
    Scenario.OUTAGE: _outage,
    Scenario.FLAPPING: _flapping,
    Scenario.OBSERVERS: _observers,
    Scenario.STORE: _store,
    Scenario.SIEGE: _siege,
    Scenario.DECLARED: _declared,
    Scenario.SWITCHOVER: _switchovers,
    Scenario.SERVICES: _services_lost,
    Scenario.MIRAGE: _mirage,
    Scenario.DAMAGE: _damage,
    Scenario.HANDOVER: _handover,
}
