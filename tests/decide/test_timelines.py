"""Where two histories part: PostgreSQL's own rules, by example and by any two that share a beginning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.timelines import Stretch, fork, history

THIRD = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n"


def test_a_history_file_is_read_with_its_comments() -> None:
    assert history(1, "") == (Stretch(1, 0, None),)
    assert history(3, "# by hand\n" + THIRD) == (
        Stretch(1, 0, 0x3000148),
        Stretch(2, 0x3000148, 0x5000000),
        Stretch(3, 0x5000000, None),
    )


@pytest.mark.parametrize("text", ["1", "1\tnowhere\tx", "2\t0/1\tx\n1\t0/2\tx", "7\t0/1\tx", "x\t0/1\tx"])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        history(3, text)


def test_the_old_primary_parts_where_the_new_timeline_begins() -> None:
    assert fork(history(1, ""), history(2, "1\t0/3000148\tx")) == 0x3000148


def test_a_standby_that_was_promoted_around_its_agent_parts_where_its_own_begins() -> None:
    assert fork(history(2, "1\t0/3000148\tx"), history(1, "")) == 0x3000148


def test_two_timelines_of_one_number_are_not_one() -> None:
    assert fork(history(2, "1\t0/3000\tx"), history(2, "1\t0/2000\tx")) == 0x2000


def test_on_one_timeline_they_have_not_parted() -> None:
    assert fork(history(3, THIRD), history(3, THIRD)) is None


def test_histories_without_a_common_beginning_are_refused() -> None:
    with pytest.raises(ValueError, match="no timeline in common"):
        fork((Stretch(4, 0, None),), (Stretch(5, 0, None),))


@given(
    st.lists(st.integers(1, 1 << 40), unique=True, min_size=1, max_size=6).map(sorted),
    st.lists(st.integers(1, 1 << 40), unique=True, max_size=6).map(sorted),
    st.integers(0, 6),
)
def test_both_have_all_that_lies_before_the_fork(
    common: list[int], more: list[int], first_number: int
) -> None:
    """Theirs goes on from where ours was left; whatever came later there, the fork is that place."""
    numbers = range(1, len(common) + 1)
    ours = history(len(common), _text(zip(numbers, common[:-1], strict=False)))
    later = [common[-1] + each for each in more]
    new = [*numbers, *range(len(common) + 1 + first_number, len(common) + 1 + first_number + len(later))]
    theirs = history(max(new) + 1, _text(zip(new, [*common, *later], strict=True)))
    assert fork(ours, theirs) == fork(theirs, ours) == common[-1]


def _text(switches: object) -> str:
    return "".join(f"{number}\t{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}\tx\n" for number, lsn in switches)  # type: ignore[attr-defined]
