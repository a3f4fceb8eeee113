"""What the ledger counts, on cases told by hand and on any ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.lab.hms import ledger
from hmsdr.lab.hms.ledger import Entry

EAST, WEST = "postgres-primary-0@us-east-1", "postgres-secondary-0@us-west-2"


def write(
    number: int, at: float, *, ok: bool = True, by: str = EAST, epoch: int = 1, existed: bool = False
) -> Entry:
    return Entry(
        f"w{number}",
        ledger.WRITE,
        "patient",
        at,
        at + 0.1,
        ok,
        201 if ok else None,
        "" if ok else "refused",
        by if ok else None,
        epoch if ok else None,
        at if ok else None,
        existed,
    )


entries = st.lists(
    st.builds(
        Entry,
        id=st.sampled_from([f"r{number}" for number in range(8)]),
        kind=st.sampled_from([ledger.WRITE, ledger.READ]),
        service=st.sampled_from(["patient", "billing"]),
        sent_at=st.floats(0, 100),
        done_at=st.floats(100, 200),
        ok=st.booleans(),
        status=st.none() | st.integers(100, 599),
        outcome=st.text(max_size=5),
        instance=st.none() | st.sampled_from([EAST, WEST]),
        epoch=st.none() | st.integers(1, 3),
        committed_at=st.none() | st.floats(0, 100),
        existed=st.booleans(),
        region=st.none() | st.just("us-east-1"),
    ),
    max_size=12,
)


@given(entries, st.data())
def test_any_prefix_of_the_file_reads_as_a_prefix_of_the_entries(
    tmp_path_factory: pytest.TempPathFactory, made: list[Entry], data: st.DataObject
) -> None:
    content = "".join(entry.line() for entry in made).encode()
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    path.write_bytes(content[:cut])
    assert ledger.read(path) == made[: content[:cut].count(b"\n")]


@pytest.mark.parametrize("damage", [b"{}\n", b"nonsense\n", b"\n", b'[1]\n{"id":1}\n', b"\xff\n"])
def test_damage_inside_is_not_passed_over(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(damage + write(1, 1).line().encode())
    with pytest.raises(ledger.LedgerError):
        ledger.read(path)


def test_a_wrong_type_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(write(1, 1).line().replace('"ok":true', '"ok":"yes"'))
    with pytest.raises(ledger.LedgerError, match="ok"):
        ledger.read(path)


@given(entries, st.sets(st.sampled_from([f"r{number}" for number in range(8)])))
def test_acknowledged_writes_are_lost_or_present(made: list[Entry], present: set[str]) -> None:
    known = ledger.acknowledged(made)
    lost = {entry.id for entry in ledger.lost_writes(made, present)}
    assert lost | (set(known) & present) == set(known)
    assert not lost & present
    assert all(entry.ok and entry.kind == ledger.WRITE for entry in known.values())


@given(entries)
def test_every_failure_is_in_exactly_one_outage(made: list[Entry]) -> None:
    found = ledger.outages(made)
    assert sum(item.failed for item in found) == sum(not entry.ok for entry in made)
    assert [item.began_at for item in found] == sorted(item.began_at for item in found)
    assert all(item.seconds is None or item.seconds >= 0 for item in found)
    assert (ledger.outage(made) is None) == all(entry.ok for entry in made)


@given(entries, st.floats(0.1, 50))
def test_the_series_counts_every_request_once(made: list[Entry], width: float) -> None:
    slices = ledger.series(made, width=width)
    assert sum(item.total for item in slices) == len(made)
    assert sum(item.failed for item in slices) == sum(not entry.ok for entry in made)
    assert all(item.total or item.median is None for item in slices)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30), st.floats(0, 100))
def test_one_writer_at_a_time_is_never_accused(times: list[tuple[float, bool]], moved_at: float) -> None:
    made = [
        write(number, at, ok=ok, by=EAST if at < moved_at else WEST, epoch=1 if at < moved_at else 2)
        for number, (at, ok) in enumerate(times)
    ]
    assert ledger.dual_writers(made) == []


def test_an_outage_is_from_the_first_failure_to_the_first_answer_after_the_last() -> None:
    made = [
        write(1, 0),
        write(2, 10, ok=False),
        write(3, 11),
        write(4, 12, ok=False),
        write(5, 13.5),
        write(6, 20, ok=False),
        write(7, 20.5),
    ]
    found = ledger.outages(made)
    assert [(item.began_at, item.ended_at, item.failed) for item in found] == [
        (10, 13.6, 2),
        (20, 20.6, 1),
    ]
    longest = ledger.outage(made)
    assert longest is not None
    assert longest.seconds == pytest.approx(3.6)


def test_an_outage_that_lasts_has_no_end_and_comes_first() -> None:
    found = ledger.outage([write(1, 0, ok=False), write(2, 5), write(3, 9, ok=False)])
    assert found is not None
    assert (found.began_at, found.ended_at, found.seconds) == (9, None, None)


def test_two_instances_in_one_epoch_are_dual_writers() -> None:
    (found,) = ledger.dual_writers([write(1, 1), write(2, 2, by=WEST), write(3, 3)])
    assert (found.reason, found.instances, found.writes) == ("same epoch", (EAST, WEST), ("w2",))


def test_an_old_writer_that_goes_on_after_the_new_began_is_one() -> None:
    made = [write(1, 1), write(2, 5, by=WEST, epoch=2), write(3, 6), write(4, 7, existed=True)]
    (found,) = ledger.dual_writers(made)
    assert (found.reason, found.instances, found.epochs) == ("after newer epoch", (WEST, EAST), (2, 1))
    assert found.writes == ("w3",)


def test_a_width_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        ledger.series([], width=0)
