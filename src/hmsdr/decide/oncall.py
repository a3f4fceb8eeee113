"""Who is on call: rotations, exceptions, time zones, clocks that change (CO-1, CO-3). Pure: the instant is a parameter.

Turns begin at wall-clock times of the schedule's zone. A time that a spring night leaves out is that much after the gap; one that an
autumn night has twice is the first of the two. So at every instant exactly one person holds a role, whatever the clocks do.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hmsdr.playbook.model import Playbook
from hmsdr.playbook.oncall import Duty, OnCall, QuietHours, Rotation

COMMANDER = "incident-commander"
_DAY = timedelta(days=1)


def reach(playbook: Playbook, role: str, now: datetime) -> tuple[str, ...]:
    """Who is called for `role`, in this order: whoever is on call, then those who stand in. Nobody twice.

    Args:
        playbook: with its schedule.
        role: a role of the playbook; an unknown one has nobody.
        now: an instant (aware).
    """
    held = playbook.roles.get(role)
    if held is None:
        return ()
    duty = playbook.on_call.roles.get(role, Duty())
    first, others = _turn(playbook.on_call, duty, now)
    order = [first, held.backup, held.primary, *others] if first else [held.primary, held.backup, *others]
    return tuple(dict.fromkeys(name for name in order if name is not None))


def assigned(playbook: Playbook, now: datetime) -> dict[str, tuple[str, ...]]:
    """`reach` of every role."""
    return {role: reach(playbook, role, now) for role in playbook.roles}


def turn_begins(rotation: Rotation, zone: ZoneInfo, number: int) -> datetime:
    """The instant (UTC) at which turn `number` begins, counted from 0."""
    return instant(rotation.starts + number * rotation.days * _DAY, zone)


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The instant (UTC) of a wall clock's time: what a gap leaves out is after it, what comes twice is the first."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def awake(on_call: OnCall, at: datetime) -> datetime:
    """`at`, or the end of the quiet hours in which it lies (UTC)."""
    quiet = on_call.quiet_hours
    if quiet is None:
        return at
    zone = ZoneInfo(quiet.time_zone or on_call.time_zone)
    today = at.astimezone(zone).date()
    # Quiet hours of one night may begin yesterday; on a night without that hour they begin later, or not at all.
    for day in (today - _DAY, today):
        begins, ends = _night(quiet, zone, datetime.combine(day, time()))
        if begins <= at < ends:
            return ends
    return at


def _night(quiet: QuietHours, zone: ZoneInfo, day: datetime) -> tuple[datetime, datetime]:
    end = day if quiet.ends > quiet.begins else day + _DAY
    begins = instant(datetime.combine(day.date(), quiet.begins), zone)
    return begins, instant(datetime.combine(end.date(), quiet.ends), zone)


def _turn(on_call: OnCall, duty: Duty, now: datetime) -> tuple[str | None, tuple[str, ...]]:
    """Who has the turn, None when the schedule says nothing; and the others of the rotation, next first."""
    zone = ZoneInfo(duty.time_zone or on_call.time_zone)
    people = () if duty.rotation is None else duty.rotation.people
    number = 0 if duty.rotation is None else _number(duty.rotation, zone, now)
    begun = duty.rotation is not None and number >= 0
    turn = people[number % len(people)] if begun else None
    after = [people[(number + 1 + each) % len(people)] for each in range(len(people))] if begun else [*people]
    for each in reversed(duty.overrides):
        if instant(each.begins, zone) <= now < instant(each.ends, zone):
            return each.person, (*([turn] if turn else []), *after)
    return turn, tuple(after)


def _number(rotation: Rotation, zone: ZoneInfo, now: datetime) -> int:
    """The number of the turn in which `now` lies; negative before the first."""
    local = now.astimezone(zone).replace(tzinfo=None)
    number = (local - rotation.starts) // (rotation.days * _DAY)
    # The wall clock may have been set back since the turn began, or be about to jump to its beginning.
    if turn_begins(rotation, zone, number) > now:
        return number - 1
    return number + 1 if turn_begins(rotation, zone, number + 1) <= now else number
