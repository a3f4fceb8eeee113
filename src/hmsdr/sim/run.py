"""One seed from calm to calm, and what was found: safety all the time, liveness once the faults are over."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

from hmsdr.decide.leading import Cause
from hmsdr.sim import faults, handover
from hmsdr.sim.checkers import Checkers, Violation
from hmsdr.sim.faults import Scenario, Schedule
from hmsdr.sim.hospital import Hospital
from hmsdr.sim.settings import Figures
from hmsdr.sim.store import LONGEST_ELECTION
from hmsdr.sim.world import EAST, WEST, World

FIGURES = Figures()
"""The playbook's figures that every seed runs with."""
_UNHEALED = (Scenario.OUTAGE, Scenario.STORE, Scenario.SERVICES, Scenario.DAMAGE, Scenario.HANDOVER)
_STEP = 0.5
_QUIET = 8.0
"""Seconds of calm after which nothing more is expected."""
_GLIMPSES = 4.0
"""Seconds for which sites may disagree, because one of them saw a crashing service answer."""
_ROUNDS = 6
"""Rounds of a controller from the first look in vain to the promotion, beyond hold-down and lease."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed.

    ``seconds`` is the computing time, ``failed_over`` the simulated seconds from an outage to the first commit on the
    other side; None where there was none to wait for.
    """

    seed: int
    scenario: Scenario
    violations: tuple[Violation, ...]
    events: int
    seconds: float
    epochs: int
    failed_over: float | None
    history: tuple[str, ...]


def bound(figures: Figures, *, hold_down: float | None = None, successors: int = 0) -> float:
    """Within what an outage is failed over while a majority of sites lives: hold-down, lease, and the stated rest.

    The rest: the store's election, the leader's lease when it was lost with its site, and rounds that may time out. Each
    successor, of a leader that dies in the middle, takes its time to lead and waits the lease out afresh.
    """
    slow = 1 + figures.drift_margin
    lease = figures.lease * slow * slow
    rounds = _ROUNDS * (figures.interval + figures.timeout)
    once = (
        (figures.hold_down if hold_down is None else hold_down) * slow
        + lease
        + figures.patience * slow
        + LONGEST_ELECTION
        + rounds
    )
    return once + successors * (figures.patience * slow + lease + 2 * (figures.interval + figures.timeout))


def simulate(seed: int, *, tell: bool = False) -> Outcome:
    """Let the hospital of `seed` live through its faults."""
    began = time.process_time()
    world = World(seed, tell=tell)
    schedule = faults.draw(seed)
    world.say("seed", f"{seed}: {schedule.scenario}")
    checkers = Checkers(world)
    figures = FIGURES
    hospital = Hospital(world, figures, checkers)
    checkers.hospital = hospital
    hospital.begin()
    for when, name, act in schedule.faults:
        world.at(when, _happen, hospital, name, act)
    if schedule.scenario not in _UNHEALED:
        world.at(schedule.calm, _happen, hospital, "calm", faults.heal)
    was = gc.isenabled()
    gc.disable()  # what is left behind is collected when the seed is over
    try:
        at = quiet = 0.0
        while at < schedule.ends:
            at += _STEP
            world.run(min(at, schedule.ends))
            checkers.settled()
            if (
                at > schedule.calm
                and (quiet := quiet + _STEP if _is_quiet(schedule, hospital) else 0.0) >= _QUIET
            ):
                break
        failed_over = _demands(schedule, hospital, checkers)
    finally:
        world.end()
        if was:
            gc.enable()
    return Outcome(
        seed,
        schedule.scenario,
        tuple(checkers.violations),
        world.events,
        time.process_time() - began,
        hospital.store.contents.authority.epoch,
        failed_over,
        tuple(world.history or ()),
    )


def _is_quiet(schedule: Schedule, hospital: Hospital) -> bool:
    """Whether all that is demanded at the end is so already; what must *not* happen is waited for to the end."""
    active = {
        Scenario.OUTAGE: (WEST,),
        Scenario.SERVICES: (WEST,),
        Scenario.STORM: (EAST, WEST),
        Scenario.SWITCHOVER: (EAST, WEST),
        Scenario.SIEGE: (EAST, WEST),
        Scenario.DECLARED: (EAST, WEST),
        Scenario.HANDOVER: (EAST, WEST) if _struck_and_over(hospital) else (),
    }.get(schedule.scenario, ())
    able = [region for region, database in hospital.databases.items() if database.able]
    return len(able) == 1 and able[0] in active and hospital.dns.traffic[0] == able[0]


def _struck_and_over(hospital: Hospital) -> bool:
    return hospital.struck_at is not None or hospital.store.contents.authority.epoch > 1


def _happen(hospital: Hospital, name: str, act: object) -> None:
    hospital.world.say("fault", name)
    act(hospital)  # type: ignore[operator]


def _demands(schedule: Schedule, hospital: Hospital, checkers: Checkers) -> float | None:
    """What the scenario asks for at its end; gives how long an outage's failover took."""
    took = None
    match schedule.scenario:
        case Scenario.OUTAGE:
            took = _outage_left(schedule, hospital, checkers)
        case Scenario.SERVICES:
            _services_left(schedule, hospital, checkers)
        case Scenario.FLAPPING | Scenario.OBSERVERS | Scenario.MIRAGE:
            if checkers.decisions:
                checkers.found("needless-failover", f"{schedule.scenario}: {checkers.decisions[0][1]}")
            _one_writer(hospital, checkers)
        case Scenario.STORE:
            if hospital.store.contents.authority.epoch > 1:
                checkers.found("needless-failover", "only the store was lost")
            if checkers.starts[EAST] != 1 or not hospital.databases[EAST].able:
                checkers.found(
                    "store-stops-hospital", "the writer was stopped, although only the store was lost"
                )
        case Scenario.DAMAGE:
            _damage_left(hospital, checkers)
        case Scenario.STORM | Scenario.SWITCHOVER | Scenario.SIEGE | Scenario.DECLARED | Scenario.HANDOVER:
            _handed_back(hospital, checkers)
            _one_writer(hospital, checkers)
    return took


def _outage_left(schedule: Schedule, hospital: Hospital, checkers: Checkers) -> float | None:
    west = checkers.acknowledged[WEST]
    allowed = bound(hospital.figures, successors=len(schedule.faults) // 2)
    if not west:
        checkers.found("not-failed-over", f"east was lost at {schedule.calm:.1f}; west never wrote")
        return None
    took = west[0][0] - schedule.calm
    if took > allowed:
        checkers.found("failed-over-late", f"after {took:.1f} s, allowed are {allowed:.1f} s")
    return took


def _services_left(schedule: Schedule, hospital: Hospital, checkers: Checkers) -> None:
    figures, west = hospital.figures, checkers.acknowledged[WEST]
    allowed = bound(figures, hold_down=figures.services_hold_down, successors=1) + _GLIMPSES
    decided = any(each.cause is Cause.SERVICES for _, each in checkers.decisions)
    if not decided or not west:
        checkers.found("not-failed-over", f"services were lost at {schedule.calm:.1f}; east was not left")
    elif west[0][0] - schedule.calm > allowed:
        took = west[0][0] - schedule.calm
        checkers.found("failed-over-late", f"services: after {took:.1f} s, allowed are {allowed:.1f} s")


def _damage_left(hospital: Hospital, checkers: Checkers) -> None:
    """A standby that has not the damage takes over; what was promoted although damaged, a checker has seen."""
    if not hospital.databases[WEST].damaged and not checkers.acknowledged[WEST]:
        checkers.found("not-failed-over", "east is damaged, west is not, and never wrote")


def _handed_back(hospital: Hospital, checkers: Checkers) -> None:
    """Who gave writes again within the bound, or the hand-over went forward before anything was lost."""
    struck, allowed = hospital.struck_at, handover.bound(hospital.figures)
    if struck is None:
        return
    wrote = [at for region in (EAST, WEST) for at, row in checkers.acknowledged[region] if row[0] > 1]
    if not wrote:
        checkers.found("not-handed-back", f"the hand-over was stuck at {struck:.1f}; nobody ever wrote again")
    elif min(wrote) - struck > allowed:
        took = min(wrote) - struck
        checkers.found("handed-back-late", f"after {took:.1f} s, allowed are {allowed:.1f} s")


def _one_writer(hospital: Hospital, checkers: Checkers) -> None:
    able = [database.instance for database in hospital.databases.values() if database.able]
    if len(able) != 1:
        checkers.found("no-writer", f"at the end {' and '.join(able) or 'nobody'} can write")
        return
    writer = able[0].removeprefix("db-")
    # Where a hand-over was given back nothing moved, and the record keeps its epoch.
    if hospital.dns.traffic[0] != writer:
        checkers.found("wrong-way", f"the public record leads to {hospital.dns.traffic}")
