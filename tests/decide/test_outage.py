"""When a region counts as lost: any sequence of looks against a plain reading of the rule, and its edges by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.outage import Look, Sight, Watch, look

HOLD, GAP = 10, 4
R, U, B = Sight.REACHABLE, Sight.UNREACHABLE, Sight.BLIND
FRESH = Watch(timedelta(seconds=HOLD), longest_gap=timedelta(seconds=GAP))
LOOKS = st.lists(
    st.tuples(st.integers(0, GAP + 2), st.sampled_from([U, U, U, U, U, R, B])), min_size=1, max_size=40
)


def after(seen: list[tuple[int, Sight]]) -> list[Watch]:
    """What is known after each of the looks (time, sight)."""
    watch, known = FRESH, []
    for at, sight in seen:
        watch = look(watch, Look(float(at), sight, {}))
        known.append(watch)
    return known


def stretch(seen: list[tuple[int, Sight]]) -> list[int]:
    """The times of the last unbroken stretch of unreachable looks, read backwards from the end."""
    times: list[int] = []
    for at, sight in reversed(seen):
        if sight is not U or (times and times[0] - at > GAP):
            break
        times.insert(0, at)
    return times


@pytest.mark.req("FA-1")
@given(LOOKS)
def test_lost_is_unreachable_without_a_break_for_the_whole_hold_down(steps: list[tuple[int, Sight]]) -> None:
    seen, now = [], 1_000
    for pause, sight in steps:
        now += pause
        seen.append((now, sight))
    for number, watch in enumerate(after(seen), start=1):
        times = stretch(seen[:number])
        assert watch.since == (times[0] if times else None)
        assert watch.lost == bool(times and times[-1] - times[0] >= HOLD)
        left = watch.remaining(seen[number - 1][0])
        assert (left is None) == (not times)
        assert left is None or left == max(0, HOLD - (times[-1] - times[0]))


@given(LOOKS)
def test_a_clock_that_is_set_back_is_said_each_time(steps: list[tuple[int, Sight]]) -> None:
    now, watch, said = 0, FRESH, 0
    for pause, sight in steps:
        ran, now = watch.since, now + pause
        watch = look(watch, Look(float(now), sight, {}))
        moved = ran is not None and watch.since != ran and sight is not R
        said += moved
        assert watch.restarted == said


@pytest.mark.req("FA-1")
def test_edges() -> None:
    every = [(at, U) for at in range(0, HOLD + 1, 2)]
    assert [watch.lost for watch in after(every)] == [False] * 5 + [True]
    # One answer, however late, and the hold-down begins again.
    assert not after([*every[:-1], (9, R), *((at, U) for at in range(10, 20, 2))])[-1].lost
    assert after([(0, U), (3, B), (4, U), (14, U)])[-1].restarted == 2
    # Two looks that are too far apart prove nothing of the time between them.
    far = after([(0, U), (HOLD, U)])[-1]
    assert (far.lost, far.since, far.restarted) == (False, HOLD, 1)
    assert not FRESH.lost
    assert FRESH.remaining(5.0) is None


def test_a_look_from_before_the_last_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 1\.0 after one from 2\.0"):
        after([(2, U), (1, U)])


@pytest.mark.req("FA-1")
@given(LOOKS, st.integers(1, 6))
def test_with_a_recovery_only_a_stretch_of_answers_sets_the_clock_back(
    steps: list[tuple[int, Sight]], recovery: int
) -> None:
    """The plain reading: the clock runs from the first vain look; it ends with `recovery` of answers, a gap or blindness."""
    watch = replace(FRESH, recovery=timedelta(seconds=recovery))
    now, began, well, last = 0, None, None, None
    for pause, sight in steps:
        now += pause
        if last is not None and now - last > GAP:
            began = well = None
        if sight is B:
            began = well = None
        elif sight is U:
            began, well = now if began is None else began, None
        elif began is not None:
            well = now if well is None else well
            if now - well >= recovery:
                began = well = None
        last = now
        watch = look(watch, Look(float(now), sight, {}))
        assert watch.since == began
        assert watch.lost == (began is not None and sight is U and now - began >= HOLD)


@pytest.mark.req("FA-1")
def test_a_service_that_answers_now_and_then_is_lost_and_one_that_is_back_is_not() -> None:
    def lost(seen: list[tuple[int, Sight]]) -> bool:
        watch = replace(FRESH, recovery=timedelta(seconds=4))
        for at, sight in seen:
            watch = look(watch, Look(float(at), sight, {}))
        return watch.lost

    crashing = [(at, R if at % 6 == 4 else U) for at in range(0, 14, 2)]
    assert lost(crashing)
    assert not lost([*crashing, (14, R)]), "while it answers nobody says that it does not"
    assert not lost([(0, U), (2, R), (4, R), (6, R), (8, U), (10, U), (12, U), (14, U)])
