"""The pre-checks of switching back as gates (SW-1), beside those of every failover. Pure.

That replication is current, the region whole and a way back ready is judged by the gates of a failover (`hmsdr.decide.gates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hmsdr.decide.gates import Gate, GateName, GateState
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.procedures import Switchback

ANNOUNCED = "switchback.announced"
"""The event of having told the stakeholders; its subject is the region that users go back to."""


@dataclass(frozen=True, slots=True)
class Noted:
    """An event of the log: when, by whom, and what."""

    at: datetime
    actor: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Homegoing:
    """What was seen before switching back. None means that it is not known, and why is in the words beside it."""

    home: str
    other: str
    stable: timedelta | None
    """For how long the present primary has had the right to write."""
    stable_words: str
    moved: bool
    """The right to write has gone home already: this is the rest of a switchback."""
    figures: str
    """Why the guard sees nothing; empty when it sees both regions."""
    shares: Sequence[int]
    """The home region's shares that are still to come."""
    compared: Noted | None
    """The newest comparison of the data."""
    told: Noted | None
    """The newest announcement of this."""


def gates(seen: Homegoing, limits: Switchback, now: datetime) -> tuple[Gate, ...]:
    """All five, in the order of the playbook."""
    return (
        _stable(seen, limits),
        _equal(seen, limits, now),
        _planned(seen, limits),
        _told(seen, limits, now),
        _sees(seen),
    )


def _stable(seen: Homegoing, limits: Switchback) -> Gate:
    limit = f"for {format_duration(limits.stable_for)}"
    if seen.moved:
        return Gate(
            GateName.PRIMARY_STABLE, GateState.PASSED, f"{seen.home} has the right to write already", limit
        )
    if seen.stable is None:
        remedy = f"Find out since when the database of {seen.other} is the primary"
        return Gate(GateName.PRIMARY_STABLE, GateState.UNKNOWN, seen.stable_words, limit, remedy)
    observed = f"{seen.other} has been the primary for {_age(seen.stable)}"
    if seen.stable >= limits.stable_for:
        return Gate(GateName.PRIMARY_STABLE, GateState.PASSED, observed, limit)
    return Gate(
        GateName.PRIMARY_STABLE,
        GateState.FAILED,
        observed,
        limit,
        "Wait: nobody goes home in the midst of trouble",
    )


def _equal(seen: Homegoing, limits: Switchback, now: datetime) -> Gate:
    state, observed, remedy = _compared(seen, limits, now)
    limit = f"found equal within {format_duration(limits.data_equal_age)}"
    return Gate(GateName.DATA_EQUAL, state, observed, limit, "" if state is GateState.PASSED else remedy)


def _compared(seen: Homegoing, limits: Switchback, now: datetime) -> tuple[GateState, str, str]:
    """What the newest comparison is worth now, in words, and what to do."""
    again = "`hmsdr compare`"
    if seen.moved:
        return GateState.PASSED, "the right to write has moved already", ""
    event = seen.compared
    if event is None:
        return (
            GateState.UNKNOWN,
            f"the data of {seen.home} were never compared with those of {seen.other}",
            again,
        )
    age = now - event.at
    observed = (
        f"{event.data['tables']} tables, {event.data['rows']} rows at {event.data['lsn']}, {_age(age)} ago"
    )
    state = GateState.PASSED
    if event.data.get("primary") != seen.other:
        state, observed = GateState.UNKNOWN, f"{observed}, with {event.data.get('primary')} as the primary"
    elif not event.data["equal"]:
        observed = f"NOT equal: {', '.join(event.data['different'])}; {observed}"
        state, again = GateState.FAILED, f"Make {seen.home} a standby anew; docs/switchback.md, 'Not equal'"
    elif age < timedelta(minutes=-5):
        state, observed = GateState.UNKNOWN, f"{observed}: its time is in the future"
    elif age > limits.data_equal_age:
        state = GateState.FAILED
    elif seen.stable is not None and age > seen.stable:
        state, observed = GateState.FAILED, f"{observed}: before {seen.other} became the primary"
    return state, observed, again


def _planned(seen: Homegoing, limits: Switchback) -> Gate:
    limit = "steps of the playbook that end at 100 %"
    if not seen.shares or seen.shares[-1] != 100:  # noqa: PLR2004 - all of them
        return Gate(
            GateName.STEPS_PLANNED,
            GateState.FAILED,
            "no steps",
            limit,
            "See `procedures.switchback.home_shares`",
        )
    shares = ", ".join(map(str, seen.shares))
    observed = f"{shares} % of users to {seen.home}, {format_duration(limits.hold)} each after the TTL"
    return Gate(GateName.STEPS_PLANNED, GateState.PASSED, observed, limit)


def _told(seen: Homegoing, limits: Switchback, now: datetime) -> Gate:
    limit = f"told within {format_duration(limits.told_age)}"
    remedy = f"`hmsdr plan switchback {seen.home} --announce --by NAME`"
    if seen.told is None:
        return Gate(GateName.STAKEHOLDERS_TOLD, GateState.FAILED, "nobody was told", limit, remedy)
    age = now - seen.told.at
    observed = f"{seen.told.data.get('channel')}, by {seen.told.actor}, {_age(age)} ago"
    if timedelta(minutes=-5) <= age <= limits.told_age:
        return Gate(GateName.STAKEHOLDERS_TOLD, GateState.PASSED, observed, limit)
    return Gate(GateName.STAKEHOLDERS_TOLD, GateState.FAILED, observed, limit, remedy)


def _sees(seen: Homegoing) -> Gate:
    limit = "Prometheus has fresh figures of both regions"
    if seen.figures:
        remedy = "Mend the monitoring first: without it no step would ever be judged good"
        return Gate(GateName.GUARD_SEES, GateState.UNKNOWN, seen.figures, limit, remedy)
    return Gate(GateName.GUARD_SEES, GateState.PASSED, "it has", limit)


def _age(age: timedelta) -> str:
    seconds = age.total_seconds()
    if seconds < 120:  # noqa: PLR2004 - in seconds up to two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
