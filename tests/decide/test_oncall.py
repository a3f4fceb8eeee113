"""Who is on call at any instant, whatever the zone's clocks do; who is called next; when the night ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.oncall import COMMANDER, assigned, awake, instant, reach, turn_begins
from hmsdr.playbook.load import load
from hmsdr.playbook.oncall import Duty, OnCall, Override, QuietHours, Rotation

BOOK = load("hms", environ={}, secrets=False)
NEW_YORK = ZoneInfo("America/New_York")
# Half an hour of summer time; a zone that changes at midnight; one that left out a whole day; one without changes.
ZONES = (
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Apia",
    "UTC",
)
instants = st.datetimes(datetime(2011, 6, 1), datetime(2031, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
starts = st.datetimes(datetime(2011, 1, 1), datetime(2027, 1, 1)).map(  # noqa: DTZ001
    lambda at: at.replace(second=0, microsecond=0)
)
rotations = st.builds(
    Rotation,
    people=st.lists(st.sampled_from([person.name for person in BOOK.people]), min_size=1, max_size=5),
    starts=starts,
    days=st.integers(1, 30),
)


def with_duty(duty: Duty, zone: str = "America/New_York"):
    return BOOK.model_copy(update={"on_call": OnCall(time_zone=zone, roles={COMMANDER: duty})})


@pytest.mark.req("CO-1")
@given(rotation=rotations, zone=st.sampled_from(ZONES), now=instants)
def test_at_every_instant_the_turn_in_which_it_lies_has_the_role(rotation, zone, now):
    book = with_duty(Duty(rotation=rotation), zone)
    where = ZoneInfo(zone)
    holder = reach(book, COMMANDER, now)[0]
    if now < turn_begins(rotation, where, 0):
        assert holder == BOOK.roles[COMMANDER].primary
        return
    # Found by walking instead of by division.
    near = (now - turn_begins(rotation, where, 0)) // timedelta(days=rotation.days)
    (number,) = [
        each
        for each in range(max(0, near - 2), near + 3)
        if turn_begins(rotation, where, each) <= now < turn_begins(rotation, where, each + 1)
    ]
    assert holder == rotation.people[number % len(rotation.people)]


@given(rotation=rotations, zone=st.sampled_from(ZONES), number=st.integers(0, 2000))
def test_turns_follow_one_another_without_gap_and_begin_at_the_same_wall_clock_time(rotation, zone, number):
    where = ZoneInfo(zone)
    begins = turn_begins(rotation, where, number)
    assert begins < turn_begins(rotation, where, number + 1)
    local = begins.astimezone(where).replace(tzinfo=None)
    wanted = rotation.starts + number * rotation.days * timedelta(days=1)
    there = instant(wanted, where).astimezone(where).replace(tzinfo=None) == wanted
    assert local == wanted if there else local > wanted


def test_a_turn_is_an_hour_shorter_when_the_clocks_go_forward():
    rotation = Rotation(people=("Ada Quill",), starts=datetime(2026, 3, 7, 8, 0), days=1)  # noqa: DTZ001
    assert turn_begins(rotation, NEW_YORK, 1) - turn_begins(rotation, NEW_YORK, 0) == timedelta(hours=23)
    autumn = Rotation(people=("Ada Quill",), starts=datetime(2026, 10, 31, 8, 0), days=1)  # noqa: DTZ001
    assert turn_begins(autumn, NEW_YORK, 1) - turn_begins(autumn, NEW_YORK, 0) == timedelta(hours=25)


@pytest.mark.req("CO-3")
def test_whoever_is_on_call_is_called_first_then_who_stands_in():
    at = datetime(2026, 1, 12, 13, 0, tzinfo=UTC)  # 08:00 in New York: the second one's turn begins
    assert reach(BOOK, COMMANDER, at - timedelta(seconds=1)) == ("Ada Quill", "Edda Thorne")
    assert reach(BOOK, COMMANDER, at) == ("Edda Thorne", "Ada Quill")
    assert reach(BOOK, "technical-lead", datetime(2026, 12, 25, tzinfo=UTC))[0] == "Faris Oakley"
    assert reach(BOOK, "technical-lead", datetime(2026, 12, 27, 13, 0, tzinfo=UTC))[0] == "Bram Fennick"
    assert reach(BOOK, "cook", at) == ()


@given(rotation=rotations, now=instants)
def test_the_last_override_counts_and_nobody_is_called_twice(rotation, now):
    begins = now.astimezone(NEW_YORK).replace(tzinfo=None, second=0, microsecond=0) - timedelta(days=2)
    overrides = tuple(
        Override(person=name, begins=begins, ends=begins + timedelta(days=4))
        for name in ("Celia Marsh", "Dov Larkspur")
    )
    order = reach(with_duty(Duty(rotation=rotation, overrides=overrides)), COMMANDER, now)
    assert order[0] == "Dov Larkspur"
    assert len(set(order)) == len(order)
    assert {"Ada Quill", "Edda Thorne", *rotation.people} <= set(order)


@given(now=instants)
def test_every_role_has_somebody(now):
    assert all(assigned(BOOK, now).values())


quiet_hours = (
    st.tuples(st.times(), st.times())
    .map(lambda pair: tuple(each.replace(second=0, microsecond=0) for each in pair))
    .filter(lambda pair: pair[0] != pair[1])
)


@given(hours=quiet_hours, zone=st.sampled_from(ZONES), at=instants)
def test_who_waits_for_the_morning_wakes_once_and_never_earlier(hours, zone, at):
    on_call = OnCall(time_zone=zone, quiet_hours=QuietHours(begins=hours[0], ends=hours[1]))
    woken = awake(on_call, at)
    assert at <= woken <= at + timedelta(hours=26)
    assert awake(on_call, woken) == woken or zone != "UTC"
    local = at.astimezone(ZoneInfo(zone)).time()
    begins, ends = hours
    quiet = begins <= local < ends if begins < ends else (local >= begins or local < ends)
    if zone == "UTC":
        assert (woken > at) is quiet


@pytest.mark.parametrize(
    ("day", "woken"), [(date(2026, 3, 8), 10), (date(2026, 11, 1), 11), (date(2026, 7, 1), 10)]
)
def test_the_night_ends_at_six_also_when_it_is_shorter_or_longer(day, woken):
    asleep = instant(datetime.combine(day - timedelta(days=1), time(23, 30)), NEW_YORK)
    assert awake(BOOK.on_call, asleep) == datetime.combine(day, time(woken), tzinfo=UTC)


def test_without_quiet_hours_nobody_waits():
    at = datetime(2026, 1, 1, 4, tzinfo=UTC)
    assert awake(OnCall(), at) == at
