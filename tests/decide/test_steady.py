"""What is believed changes only after so many equal looks in a row, for any row of looks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.steady import Steady, look


@given(st.lists(st.sampled_from(["well", "silent", "wrong"]), max_size=60), st.integers(1, 5))
def test_what_is_believed_was_seen_so_many_times_in_a_row(seen: list[str], confirm: int) -> None:
    known, believed = Steady(), None
    for number, what in enumerate(seen):
        known = look(known, what, float(number), confirm)
        row = 0
        while row <= number and seen[number - row] == what:
            row += 1
        believed = what if row >= confirm else believed
        assert known.told == believed
        assert known.seen == what
        assert known.since == number - row + 1


def test_one_bad_answer_in_between_is_no_news() -> None:
    known = Steady()
    for number, what in enumerate(["well", "well", "silent", "well", "silent", "well"]):
        known = look(known, what, float(number), 2)
        assert known.told in (None, "well")
