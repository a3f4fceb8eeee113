"""What is seen before the hospital goes home (SW-1): asked of both sides, of Prometheus and of the log. Judging is decide/'s part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hmsdr.decide.equality import COMPARED
from hmsdr.decide.gates import Gate
from hmsdr.decide.homegoing import ANNOUNCED, Homegoing, Noted, gates
from hmsdr.decide.shifting import Moment, Reading, Verdict, judge
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import RefusedError
from hmsdr.log.events import Event
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.signals import readings
from hmsdr.runbook.systems import Systems

WEIGH = "traffic.weigh"
"""The action that sends a share of users elsewhere: a plan with it is one of going home."""
_ASK_SECONDS = 3.0
_LOOK_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Across:
    """What writing from one region into the other costs: one way there and back, in seconds, as replication measures it now.

    ``latency`` is what users feel now, in seconds, by percentile; empty where nobody measures it.
    """

    seconds: float | None
    found: str
    latency: dict[str, float | None]


async def share_reached(systems: Systems, home: str) -> int:
    """The share of users, in per cent, that the public record sends to `home`; 0 when that cannot be asked."""
    try:
        weights = await systems.dns().weights(deadline=_ASK_SECONDS)
    except DriverError:
        return 0
    whole = sum(item.weight for item in weights.values())
    return round(100 * weights[home].weight / whole) if whole and home in weights else 0


async def home_gates(systems: Systems, plan: Plan, events: Sequence[Event]) -> tuple[Gate, ...]:
    """The gates of going home, for a plan with parameters ``from`` and ``to``.

    Raises:
        RefusedError: the region to be left cannot hand over.
    """
    home, other = plan.parameters["to"], plan.parameters["from"]
    if plan.mode != "planned":
        raise RefusedError(
            f"planning to switch back to {home}",
            f"the database of {other} does not write, or its agent does not answer: it cannot hand over",
            f"Switching back is for calm times. If {other} is lost: `hmsdr failover {other} {home}`",
        )
    (stable, words), figures = await asyncio.gather(_stable(systems, other), _figures(systems, home, other))
    shares = [int(step.arguments["share"]) for step in plan.steps() if step.action == WEIGH]
    seen = Homegoing(
        home=home,
        other=other,
        stable=stable,
        stable_words=words,
        moved=plan.granted,
        figures=figures,
        shares=shares,
        compared=_newest(events, COMPARED, home),
        told=_newest(events, ANNOUNCED, home),
    )
    return gates(seen, systems.playbook.procedures.switchback, datetime.now(UTC))


async def across(systems: Systems, home: str, other: str) -> Across:
    """What writing from `other` into `home` will cost while users are split, as far as it can be known beforehand."""
    seconds, found = await _round_trip(systems, other)
    _, reading = await readings(
        systems, home, other, systems.playbook.procedures.switchback.hold.total_seconds()
    )
    return Across(seconds, found, dict(reading.latency) if isinstance(reading, Reading) else {})


def _newest(events: Sequence[Event], kind: str, subject: str) -> Noted | None:
    found = (each for each in reversed(events) if each.kind == kind and each.subject == subject)
    event = next(found, None)
    return None if event is None else Noted(event.at, event.actor, event.data)


async def _round_trip(systems: Systems, region: str) -> tuple[float | None, str]:
    """The shortest of a few: PostgreSQL forgets it while nothing is written, and a heartbeat is, each second."""
    clock = asyncio.get_running_loop().time
    ends, known = clock() + _LOOK_SECONDS, []
    while clock() < ends:
        try:
            lags = await systems.postgres(region).write_lags(deadline=_ASK_SECONDS)
        except DriverError as error:
            return None, error.found
        if not lags:
            return None, f"nothing streams from {region}"
        known += [each for each in lags if each is not None]
        if len(known) >= _LOOKS:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return min(
        known, default=None
    ), "" if known else f"nothing was written in {region} for {_LOOK_SECONDS:g} s"


async def _stable(systems: Systems, region: str) -> tuple[timedelta | None, str]:
    """For how long the region's database has written under the present epoch."""
    try:
        since, now = await systems.postgres(region).epoch_since(deadline=_ASK_SECONDS)
    except DriverError as error:
        return None, error.found
    if since is None:
        return None, f"the database of {region} does not tell since when it writes"
    return now - since, ""


async def _figures(systems: Systems, home: str, other: str) -> str:
    """Why the guard could judge nothing; empty when it could."""
    playbook = systems.playbook
    limits = playbook.procedures.switchback
    first, second = await readings(systems, home, other, limits.hold.total_seconds())
    now = datetime.now(UTC).timestamp()
    judged = judge(
        first,
        second,
        Moment(home, other, 0, now, 0.0),
        limits,
        fresh=playbook.prometheus.fresh.total_seconds(),
        baseline=None,
    )
    return "; ".join(judged.reasons) if judged.verdict in (Verdict.HOLD, Verdict.BAD) else ""
