"""The rules of `hmsdr.decide.corruption`: no damaged copy is an answer, nothing is restored beside a sound one, no point in the damage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.backups import BackupRecord, Trial
from hmsdr.decide.corruption import (
    Answer,
    Before,
    Clean,
    Condition,
    Copy,
    PointRefused,
    backup_condition,
    clean_moments,
    diagnose,
    first_lsn,
    not_archived,
    point,
)
from hmsdr.decide.soundness import DamageKind, Health, Sign

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def sign(kind: DamageKind = DamageKind.PAGE, where: str = "base/5/16384", minutes: int = 0) -> Sign:
    return Sign(kind, where, at(minutes).isoformat(), "broken", 80)


def copy(*signs: Sign, primary: bool, checked: int | None = 90, **more: bool) -> Copy:
    name = "us-east-1" if primary else "us-west-2"
    return Copy(name, primary, Health(signs, checked), 100, at(-60), **more)


SOUND_PRIMARY, SOUND_STANDBY = copy(primary=True), copy(primary=False)
SILENT = Copy("us-west-2", primary=False, found="no answer within 10 s")
INDEX = sign(DamageKind.INDEX, "patients_pkey")


@pytest.mark.parametrize(
    ("primary", "standby", "answer"),
    [
        (SOUND_PRIMARY, SOUND_STANDBY, Answer.NOTHING),
        (copy(primary=True, checked=None), SOUND_STANDBY, Answer.UNDECIDED),
        # On one copy only, and the other did not replay it: nothing is restored.
        (copy(sign(), primary=True), SOUND_STANDBY, Answer.FAILOVER),
        (SOUND_PRIMARY, copy(sign(), primary=False), Answer.STANDBY),
        # In both.
        (copy(sign(), primary=True), copy(sign(), primary=False), Answer.RESTORE),
        # Who was not checked since, or does not answer, is not sound, and not proven damaged.
        (copy(sign(), primary=True), copy(primary=False, checked=79), Answer.UNDECIDED),
        (copy(sign(), primary=True), copy(primary=False, checked=None), Answer.UNDECIDED),
        (copy(sign(), primary=True), SILENT, Answer.UNDECIDED),
        (copy(primary=True, checked=None), copy(sign(), primary=False), Answer.UNDECIDED),
        (replace(SILENT, primary=True), copy(sign(), primary=False), Answer.UNDECIDED),
        # Indexes alone, over a heap that the same check looked at.
        (copy(INDEX, primary=True, whole=True), SOUND_STANDBY, Answer.REINDEX),
        (copy(INDEX, primary=True, whole=True), copy(INDEX, primary=False, whole=True), Answer.REINDEX),
        (copy(INDEX, primary=True, whole=True), SILENT, Answer.REINDEX),
        (copy(INDEX, primary=True, whole=False), SOUND_STANDBY, Answer.FAILOVER),
        (copy(INDEX, primary=True, whole=False), copy(INDEX, primary=False, whole=True), Answer.RESTORE),
        (copy(INDEX, primary=True, whole=True), copy(INDEX, primary=False, whole=False), Answer.RESTORE),
        (
            copy(INDEX, sign(), primary=True, whole=True),
            copy(INDEX, primary=False, whole=True),
            Answer.RESTORE,
        ),
        (
            copy(sign(DamageKind.INDEX, "unnamed"), primary=True, whole=True),
            copy(INDEX, primary=False, whole=True),
            Answer.RESTORE,
        ),
        # The server's log tells of what the check found, too, without its name.
        (
            copy(INDEX, sign(DamageKind.INDEX, "unnamed"), primary=True, whole=True),
            copy(INDEX, primary=False, whole=True),
            Answer.REINDEX,
        ),
        (
            copy(INDEX, sign(DamageKind.HEAP, "patients"), primary=True, whole=True),
            SOUND_STANDBY,
            Answer.FAILOVER,
        ),
    ],
)
def test_the_answer_fits_what_is_known(primary: Copy, standby: Copy, answer: Answer) -> None:
    found = diagnose(primary, standby)
    assert found.answer is answer
    assert found.why
    if answer is Answer.UNDECIDED:
        assert found.remedy, "who is told to wait is told what for"


HEALTH = st.none() | st.builds(
    Health,
    st.lists(
        st.builds(
            sign,
            st.sampled_from(list(DamageKind)),
            st.sampled_from(["patients_pkey", "unnamed", "base/5/16384"]),
        ),
        max_size=2,
    ).map(tuple),
    st.none() | st.integers(70, 110),
)


@given(HEALTH, HEALTH, st.booleans(), st.booleans(), st.integers(70, 110))
def test_a_copy_that_may_have_the_damage_never_gets_the_right_to_write(
    ours: Health | None, theirs: Health | None, whole: bool, whole_too: bool, replayed: int
) -> None:
    primary = Copy("us-east-1", True, ours, 100, None, whole, "silent")
    standby = Copy("us-west-2", False, theirs, replayed, None, whole_too, "silent")
    found = diagnose(primary, standby)
    if found.answer is Answer.FAILOVER:
        assert theirs is not None
        assert not theirs.signs
        assert theirs.checked_lsn is not None
        assert theirs.checked_lsn >= min(80, replayed), (
            "checked since it replayed what was written until then"
        )
    if found.answer is Answer.RESTORE:
        assert all(each.condition is Condition.DAMAGED for each in found.copies), "nothing beside a sound one"
    if found.answer is Answer.REINDEX:
        assert whole
        assert all(each.kind is DamageKind.INDEX for each in (*primary.signs, *standby.signs))
    for each in found.copies:
        if each.copy.health is None:
            assert each.condition is Condition.UNKNOWN


def test_wrong_rows_are_in_every_copy_that_went_past_the_moment_that_a_person_names() -> None:
    found = diagnose(SOUND_PRIMARY, SOUND_STANDBY, Before(time=at(-5)))
    assert found.answer is Answer.RESTORE
    assert [each.condition for each in found.copies] == [Condition.DAMAGED, Condition.DAMAGED]
    behind = diagnose(SOUND_PRIMARY, replace(SOUND_STANDBY, replayed=50), Before(lsn=60))
    assert behind.answer is Answer.RESTORE
    assert behind.copies[1].condition is Condition.DOUBTED
    assert diagnose(SOUND_PRIMARY, SILENT, Before(lsn=60)).copies[1].condition is Condition.UNKNOWN


CLEAN = (Clean(at(30), "too late"), Clean(at(-60), "a check"), Clean(at(-600), "a backup"))


def test_the_point_is_the_last_moment_that_is_known_to_be_clean_before_the_first_sign() -> None:
    found = point(NOON, CLEAN, None)
    assert found.time == at(-60)
    assert found.proven
    assert "a check" in found.reason


def test_without_proof_no_moment_is_proposed() -> None:
    with pytest.raises(PointRefused, match="nothing shows") as refused:
        point(NOON, CLEAN[:1], None)
    assert "--before" in refused.value.remedy


def test_a_named_moment_in_the_damaged_span_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(PointRefused, match="damaged span") as refused:
        point(NOON, CLEAN, Before(time=at(1)))
    assert "2026-01-01T11:00:00Z" in refused.value.remedy


def test_a_named_position_in_the_damaged_span_is_refused() -> None:
    copies = (copy(sign(), primary=True), SOUND_STANDBY)
    assert first_lsn(copies) == 80
    with pytest.raises(PointRefused, match="damaged span"):
        point(NOON, CLEAN, Before(lsn=81), seen_lsn=80)
    assert point(NOON, CLEAN, Before(lsn=80), seen_lsn=80).lsn == 80, (
        "what ended there was there before it was seen"
    )


def test_what_was_committed_in_the_named_moment_is_not_brought_back() -> None:
    named = point(NOON, CLEAN, Before(time=at(-70)))
    assert named.time is not None
    assert named.time < at(-70)
    assert not named.proven
    assert "a check" in named.reason
    assert point(NOON, CLEAN, Before(lsn=77)).lsn == 77


@given(st.integers(-700, 60), st.lists(st.integers(-700, 60), max_size=4), st.none() | st.integers(-700, 60))
def test_no_point_is_in_the_damaged_span(first: int, cleans: list[int], named: int | None) -> None:
    moments = sorted((Clean(at(each), "a check") for each in cleans), key=lambda each: each.at, reverse=True)
    try:
        found = point(at(first), moments, None if named is None else Before(time=at(named)))
    except PointRefused as refused:
        assert refused.found
        assert refused.remedy
        return
    assert found.time is not None
    assert found.time < at(first)
    if found.proven:
        assert found.time in {each.at for each in moments}


def record(name: str, minutes: int) -> BackupRecord:
    ended = at(minutes)
    return BackupRecord(
        name,
        "hms",
        "us-east-1",
        7,
        18,
        1,
        1 << 24,
        "0" * 24,
        10,
        20,
        ended - timedelta(minutes=1),
        ended,
        1,
        (),
    )


def test_a_backup_counts_as_clean_where_it_was_tried_out_or_ended_before_a_clean_check() -> None:
    old, late = record("old", -120), record("late", 5)
    tried = Trial(at(-30), "late", good=True, seconds=1.0)
    assert clean_moments((), tried, (old, late)) == (
        Clean(at(5), "backup late ended, which was restored and checked since"),
    )
    assert clean_moments((), replace(tried, good=False), (old, late)) == ()
    checked = clean_moments((SOUND_PRIMARY, replace(SOUND_STANDBY, checked_at=at(-1))), None, ())
    assert [each.at for each in checked] == [at(-60)], (
        "a standby that lags was checked as of an earlier moment"
    )
    assert backup_condition(old, NOON, CLEAN, None)[0] is Condition.SOUND
    assert backup_condition(late, NOON, CLEAN, None)[0] is Condition.DOUBTED, (
        "a check after the damage proves nothing"
    )
    assert backup_condition(record("between", -10), NOON, CLEAN, None)[0] is Condition.UNKNOWN
    assert backup_condition(late, NOON, CLEAN, tried)[0] is Condition.SOUND


def test_a_point_past_the_end_of_the_archive_is_told() -> None:
    wanted = point(NOON, CLEAN, None)
    assert not_archived(wanted, at(-60)) == ""
    assert "got its last file" in not_archived(wanted, at(-61))
    assert "no WAL" in not_archived(wanted, None)
