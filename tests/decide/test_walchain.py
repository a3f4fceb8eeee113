"""The chain of WAL from a backup to a target: complete or not, over timelines, never with a gap that nobody mentions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.restoretime import Took, estimate, worst
from hmsdr.decide.walchain import Broken, Start, chain, segment_name, segment_number

SIZE = 1 << 24
START = Start(timeline=1, begin_lsn=3 * SIZE + 0x28, consistent_lsn=4 * SIZE + 0x100, segment=SIZE)


def files(timeline: int, *numbers: int) -> set[str]:
    return {segment_name(timeline, number, SIZE) for number in numbers}


def forked(timeline: int, *switches: tuple[int, int]) -> dict[int, str]:
    return {timeline: "".join(f"{old}\t{format_lsn(lsn)}\tno recovery target\n" for old, lsn in switches)}


@given(st.integers(0, 1 << 40), st.sampled_from([1 << 20, 1 << 24, 1 << 30]), st.integers(1, 1 << 31))
def test_a_name_and_its_number_are_the_same(number: int, size: int, timeline: int) -> None:
    number %= (1 << 60) // size
    assert segment_number(segment_name(timeline, number, size), size) == number


def test_it_goes_as_far_as_there_are_files() -> None:
    found = chain(START, files(1, 2, 3, 4, 5, 6), {})
    assert not found.problems
    assert found.files == tuple(sorted(files(1, 3, 4, 5, 6)))
    assert found.reaches == 7 * SIZE


def test_it_ends_where_the_target_is() -> None:
    found = chain(START, files(1, 3, 4, 5, 6), {}, target_lsn=5 * SIZE + 8)
    assert found.files[-1] == segment_name(1, 5, SIZE)
    assert not found.problems


@given(st.sets(st.integers(3, 12)))
def test_whatever_is_missing_is_told_and_never_replayed_over(numbers: set[int]) -> None:
    found = chain(START, files(1, *numbers), {})
    replayed = [segment_number(name, SIZE) for name in found.files]
    assert replayed == list(range(3, 3 + len(replayed)))
    complete = numbers == set(range(3, max(numbers, default=2) + 1))
    assert any(problem.kind is Broken.GAP for problem in found.problems) == (not complete or not numbers)
    assert any(problem.kind is Broken.SHORT for problem in found.problems) == (not {3, 4} <= numbers)


def test_a_target_beyond_the_archive_is_told() -> None:
    found = chain(START, files(1, 3, 4), {}, target_lsn=9 * SIZE)
    assert [problem.kind for problem in found.problems] == [Broken.BEYOND]


def test_what_a_lost_primary_archived_after_it_was_left_is_no_gap_of_the_new_history() -> None:
    """It went on for hours, cut off, and archived more than the new primary has by now."""
    have = files(1, 3, 4, 5, 6, 7, 8, 9) | files(2, 5, 6)
    found = chain(START, have, forked(2, (1, 5 * SIZE + 0x500)))
    assert not found.problems
    assert found.files == (*sorted(files(1, 3, 4)), *sorted(files(2, 5, 6)))
    # Nothing of the new timeline is archived yet: what both have is all there is.
    early = chain(START, files(1, 3, 4, 5, 6, 7), forked(2, (1, 5 * SIZE + 0x500)))
    assert not early.problems
    assert early.files == tuple(sorted(files(1, 3, 4)))


def test_where_a_timeline_was_left_the_newer_file_is_taken() -> None:
    have = files(1, 3, 4, 5, 6) | files(2, 5, 6, 7)
    found = chain(START, have, forked(2, (1, 5 * SIZE + 0x500)))
    assert found.files == (*sorted(files(1, 3, 4)), *sorted(files(2, 5, 6, 7)))
    assert found.histories == ("00000002.history",)
    assert not found.problems


def test_more_than_one_failover_is_followed() -> None:
    have = files(1, 3, 4) | files(2, 4, 5) | files(3, 5, 6)
    found = chain(START, have, forked(3, (1, 4 * SIZE + 0x500), (2, 5 * SIZE + 0x100)))
    assert [name[:8] for name in found.files] == ["00000001", "00000002", "00000003", "00000003"]
    assert found.histories == ("00000002.history", "00000003.history")
    assert not found.problems


def test_a_missing_or_damaged_history_is_told() -> None:
    have = files(1, 3, 4) | files(2, 4, 5)
    assert [each.kind for each in chain(START, have, {}).problems] == [Broken.HISTORY]
    assert [each.kind for each in chain(START, have, {2: "hello\n"}).problems] == [Broken.HISTORY]


def test_a_backup_of_a_history_that_was_left_is_told() -> None:
    have = files(1, 3, 4, 5) | files(2, 4, 5)
    early = chain(START, have, forked(2, (1, 4 * SIZE + 0x20)))
    other = chain(START, have | files(3, 5), forked(3, (2, 4 * SIZE + 0x20)))
    assert [each.kind for each in early.problems] == [Broken.PARTED]
    assert [each.kind for each in other.problems] == [Broken.PARTED]


def test_the_lost_side_can_still_be_asked_for() -> None:
    have = files(1, 3, 4, 5) | files(2, 4, 5)
    found = chain(START, have, forked(2, (1, 4 * SIZE + 0x20)), timeline=1)
    assert found.files == tuple(sorted(files(1, 3, 4, 5)))
    assert not found.problems


def test_a_restore_takes_longer_with_more_to_do_and_never_less_than_it_took() -> None:
    from datetime import timedelta

    took = Took(unpacked=1000, unpack_seconds=10, wal_files=5, replay_seconds=5)
    assert estimate(took, unpacked=1000, wal_files=5) == timedelta(seconds=15)
    assert estimate(took, unpacked=2000, wal_files=1) == timedelta(seconds=25)
    assert worst(took, every=timedelta(hours=1), wal_every=timedelta(minutes=1)) == timedelta(seconds=70)
