"""The scenario of a hand-over that cannot go forward: who was to receive the right dies, or lacks the end, before it is promoted."""

from __future__ import annotations

import random
from collections.abc import Callable

from hmsdr.decide.authority import Phase
from hmsdr.sim.hospital import Hospital
from hmsdr.sim.kinds import wires_of
from hmsdr.sim.settings import Figures
from hmsdr.sim.world import EAST, WEST, WITNESS

SHARE = 0.3
"""Part of the switchovers that are disturbed so."""
_LOOK = 0.005
"""Seconds between two looks at the record: the moment between hand-over and grant is short."""
_APART = 8.0
"""Seconds for which the regions cannot reach each other, where that is the fault."""
_SILENT_RUN = 30.0
"""Seconds in which a run gives up to grant to a side that does not answer: six attempts, each with a silent question."""
_PAUSE, _ROUNDS, _CALM = 5.0, 6, 10.0

Fault = tuple[float, str, Callable[[Hospital], None]]


def drawn(dice: random.Random, first: float) -> tuple[list[Fault], float, float]:
    """The faults, the first not before `first`, when that is, and when the world is judged."""
    at = first + dice.uniform(1, 4)
    strike = dice.choice((_dies, _is_cut_off, _parts))
    faults: list[Fault] = [
        (at, "switchover wanted", _wanted),
        (at, "who receives is lost when it is its turn", lambda hospital: _watch(hospital, strike)),
    ]
    if dice.random() < 0.4:  # noqa: PLR2004 - some with a leader that dies on the way
        site, when = dice.choice((EAST, WITNESS)), at + dice.uniform(2, 30)
        faults.append((when, f"controller@{site} dies", lambda hospital: hospital.controllers[site].kill()))
        faults.append(
            (when + 1, f"controller@{site} is back", lambda hospital: hospital.controllers[site].start())
        )
    return faults, at, at + bound(Figures()) + _CALM


def bound(figures: Figures) -> float:
    """Within what somebody writes again: two runs that fail, a leader lost with its site or on the way, the pauses, the rounds."""
    slow = 1 + figures.drift_margin
    leaders = 2 * figures.patience * slow
    return 2 * (_SILENT_RUN + _PAUSE) * slow + leaders + _ROUNDS * (figures.interval + figures.timeout)


def _wanted(hospital: Hospital) -> None:
    hospital.person.switches = hospital.store.contents.authority.epoch


def _watch(hospital: Hospital, strike: Callable[[Hospital], None]) -> None:
    record, world = hospital.store.contents.authority, hospital.world
    if record.epoch > 1:
        return  # it was granted between two looks
    turn = Phase.REVOKING if strike is _parts else Phase.HANDING_OVER
    if record.phase is turn:
        hospital.struck_at = world.now
        world.say("fault", "who was to receive the right is lost")
        strike(hospital)
    else:
        world.at(world.now + _LOOK, _watch, hospital, strike)


def _dies(hospital: Hospital) -> None:
    hospital.lose(WEST)


def _is_cut_off(hospital: Hospital) -> None:
    hospital.world.cut_wires(wires_of(WEST))


def _parts(hospital: Hospital) -> None:
    """The last records never arrive."""
    world = hospital.world
    world.cut_wires({(EAST, WEST), (WEST, EAST)})
    world.at(world.now + _APART, world.cut_wires, set())
