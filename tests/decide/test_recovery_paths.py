"""How a lost database comes back: whatever is seen, no path does harm, each that is passed over has a reason, and the fastest is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.recovery import (
    MARGIN,
    SAFE,
    BackupFound,
    Condition,
    DatabaseSeen,
    LocalData,
    Path,
    PrimarySeen,
    SlotSeen,
    cannot_follow_slot,
    plan,
)
from hmsdr.decide.recoverytime import Rates

MIB = 1 << 20
FORK = 0x3000000
LOCAL = LocalData(
    exists=True,
    system_identifier=7,
    state="in production",
    timeline=1,
    ends=FORK,
    size=64 * MIB,
    free=1 << 40,
)
PRIMARY = PrimarySeen(
    writes=True,
    system_identifier=7,
    timeline=2,
    history=f"1\t{format_lsn(FORK)}\tno reason\n",
    lsn=FORK + 40 * MIB,
    size=80 * MIB,
    oldest_wal=FORK - MIB,
)
BACKUP = BackupFound(
    id="20261125T010203",
    bucket="b",
    unpacked=60 * MIB,
    wal_files=2,
    wal_bytes=32 * MIB,
    reaches=FORK,
    room=400 * MIB,
)
SEEN = DatabaseSeen(LOCAL, PRIMARY, BACKUP)


def seen(**local: object) -> DatabaseSeen:
    return replace(SEEN, local=replace(LOCAL, **local))  # type: ignore[arg-type]


@pytest.mark.req("RC-1", "RC-2")
@pytest.mark.parametrize(
    ("found", "condition", "picked"),
    [
        (SEEN, Condition.INTACT, Path.FOLLOW),
        (replace(SEEN, streaming=True), Condition.INTACT, Path.FOLLOW),
        (seen(ends=FORK + 1), Condition.DIVERGED, Path.REWIND),
        (seen(ends=None), Condition.DIVERGED, Path.REWIND),
        (seen(rewinding=True), Condition.DIVERGED, Path.REWIND),
        (seen(broken="could not read"), Condition.CORRUPT, Path.RESTORE),
        (seen(problem="invalid checksum"), Condition.CORRUPT, Path.RESTORE),
        (seen(system_identifier=8), Condition.CORRUPT, Path.RESTORE),
        (replace(SEEN, signs=("page 3",)), Condition.CORRUPT, Path.RESTORE),
        (replace(SEEN, signs=("page 3",), streaming=True), Condition.CORRUPT, Path.RESTORE),
        (seen(exists=False), Condition.GONE, Path.RESTORE),
        (replace(seen(exists=False), backup=BackupFound("there is none")), Condition.GONE, Path.BASEBACKUP),
        (
            replace(seen(ends=FORK + 1), primary=replace(PRIMARY, oldest_wal=FORK + 2)),
            Condition.DIVERGED,
            Path.BASEBACKUP,
        ),
        (seen(exists=False, free=MARGIN + 80 * MIB), Condition.GONE, Path.BASEBACKUP),
        (seen(exists=False, free=MARGIN), Condition.GONE, None),
        (seen(exists=False, mount_point=True), Condition.GONE, None),
        (replace(SEEN, local=None, found="silent"), Condition.UNKNOWN, None),
        (replace(SEEN, primary=PrimarySeen(False, "silent")), Condition.UNKNOWN, None),
        (replace(SEEN, primary=replace(PRIMARY, history="rubbish")), Condition.CORRUPT, Path.RESTORE),
        (replace(SEEN, primary=replace(PRIMARY, history=None, found="none")), Condition.UNKNOWN, None),
    ],
)
def test_each_state_has_its_path(found: DatabaseSeen, condition: Condition, picked: Path | None) -> None:
    decided = plan(found)
    assert (decided.component.condition, decided.picked) == (condition, picked)
    assert decided.component.evidence


LSN = st.integers(FORK - 64 * MIB, FORK + 64 * MIB)
ROOM = st.integers(0, 1 << 40)
LOCALS = st.none() | st.builds(
    LocalData,
    exists=st.booleans(),
    problem=st.sampled_from(["", "unreadable"]),
    system_identifier=st.sampled_from([7, 8]),
    timeline=st.sampled_from([1, 2]),
    history=st.sampled_from(["", PRIMARY.history or "", "rubbish"]),
    ends=st.none() | LSN,
    size=ROOM,
    free=ROOM,
    mount_point=st.booleans(),
    rewinding=st.booleans(),
    broken=st.sampled_from(["", "failed"]),
    rates=st.builds(Rates, link=st.none() | st.floats(1, 1e9), disk=st.none() | st.floats(1, 1e9)),
)
PRIMARIES = st.builds(
    PrimarySeen,
    writes=st.booleans(),
    found=st.just("words"),
    system_identifier=st.none() | st.just(7),
    timeline=st.none() | st.just(2),
    history=st.none() | st.sampled_from(["", PRIMARY.history]),
    lsn=st.none() | LSN,
    size=ROOM,
    oldest_wal=st.none() | LSN,
)
BACKUPS = st.builds(
    BackupFound,
    problem=st.sampled_from(["", "none"]),
    unpacked=ROOM,
    wal_bytes=ROOM,
    reaches=LSN,
    room=ROOM,
    trial_seconds=st.none() | st.floats(0, 1e6),
)


@pytest.mark.req("RC-2")
@given(
    st.builds(
        DatabaseSeen,
        local=LOCALS,
        primary=PRIMARIES,
        backup=BACKUPS,
        found=st.just("silent"),
        streaming=st.booleans(),
        signs=st.sampled_from([(), ("page 3",)]),
    )
)
def test_no_path_does_harm_and_none_is_passed_over_without_a_reason(found: DatabaseSeen) -> None:
    decided = plan(found)
    condition = decided.component.condition
    assert [option.path for option in decided.options] == list(Path)
    for option in decided.options:
        assert bool(option.why_not) == (option.path is not decided.picked)
        if option.time is not None:
            assert option.time.seconds > 0
            assert option.time.how
    possible = [option.path for option in decided.options if not option.obstacle]
    assert decided.picked == (possible[0] if possible else None)
    if decided.picked is None:
        return
    local = found.local
    assert local is not None
    assert found.primary.writes, "nobody is followed who does not write"
    assert decided.picked in SAFE[condition]
    if decided.picked in (Path.FOLLOW, Path.REWIND):
        assert not found.signs
        assert not local.broken
        assert not local.problem
        assert local.exists
    if decided.picked is Path.FOLLOW and not found.streaming:
        assert not local.rewinding
        assert decided.parted_at is None or (local.ends or 0) <= decided.parted_at, (
            "it has what the primary lacks"
        )
    if decided.picked is Path.RESTORE:
        assert not found.backup.problem
        assert local.free >= found.backup.room
    if decided.picked is Path.BASEBACKUP:
        assert local.free >= found.primary.size + MARGIN
        assert decided.option(Path.RESTORE).obstacle, "the primary is spared where a backup leads to it"


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 30))
def test_more_to_do_never_takes_less_time(wal: int, more: int) -> None:
    less, longer = (
        plan(replace(SEEN, primary=replace(PRIMARY, lsn=FORK + size, oldest_wal=0)))
        for size in (wal, wal + more)
    )
    for path in (Path.FOLLOW, Path.RESTORE):
        one, other = less.option(path).time, longer.option(path).time
        assert one is not None
        assert other is not None
        assert one.seconds < other.seconds


def test_a_speed_that_nobody_measured_is_said_to_be_assumed() -> None:
    time = plan(SEEN).option(Path.BASEBACKUP).time
    assert time is not None
    assert "assumed" in time.how
    measured = plan(seen(rates=Rates(link=10.0 * MIB, disk=20.0 * MIB))).option(Path.BASEBACKUP).time
    assert measured is not None
    assert (measured.how, round(measured.seconds)) == (
        "80 MiB at 10 MiB/s (link, measured), verified at 20 MiB/s (disk, measured)",
        14,
    )


@pytest.mark.parametrize(
    ("primary", "words"),
    [
        (PRIMARY, ""),
        (replace(PRIMARY, slots=10, slots_at_most=10), "all 10 slots of the primary are in use"),
        (replace(PRIMARY, slot=SlotSeen("logical", False, False)), "is a logical one"),
        (replace(PRIMARY, slot=SlotSeen("physical", True, True)), "somebody uses it"),
        (replace(PRIMARY, slot=SlotSeen("physical", False, True)), ""),
        (replace(PRIMARY, slot=SlotSeen("physical", False, False), slots=10, slots_at_most=10), ""),
    ],
)
def test_a_slot_that_is_there_or_full(primary: PrimarySeen, words: str) -> None:
    found = cannot_follow_slot(primary, "us_east_1_slot")
    assert words in found
    assert bool(found) == bool(words)
