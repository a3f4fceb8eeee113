"""What the ledger counts, on entries made by hand and by chance; reading it after a crash; ids in a real database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Hospital

from hmsdr.errors import FailedError
from hmsdr.lab.hms.ledger import (
    SUSTAINED,
    Entry,
    Ledger,
    acknowledged,
    dual_writers,
    lost_writes,
    outage,
    present_ids,
    series,
    tables,
)


def entry(
    at: float, *, ok: bool = True, epoch: int | None = 1, seconds: float = 0.01, **more: object
) -> Entry:
    made = Entry(
        n=1, kind="write", service="patient", id=str(uuid4()), sent_at=at, ended_at=at + seconds,
        status=201 if ok else None, ok=ok, error=None if ok else "refused", region="us-east-1",
        instance="postgres-primary-0@us-east-1", epoch=epoch if ok else None, latency_ms=seconds * 1000,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.req("TV-4")
def test_the_outage_runs_from_the_first_failed_request_to_the_first_lasting_success() -> None:
    calm = [entry(at) for at in range(5)]
    down = [entry(5, ok=False, seconds=2), entry(6, ok=False), entry(7), entry(8, ok=False)]
    well = [entry(9 + number) for number in range(SUSTAINED + 1)]
    found = outage([*well, *down, *calm])
    assert found is not None
    # The first that users heard of was the refused one; the one that timed out had been sent before, and ended later.
    assert (found.first_failed_at, found.recovered_at, found.failed) == (6, 9.01, 3)
    assert found.seconds == pytest.approx(3.01)
    assert outage(calm) is None
    assert outage([*calm, *down], since=8.5) is None
    unfinished = outage([*calm, *down, *well[:SUSTAINED]])
    assert unfinished is not None
    assert unfinished.recovered_at is None
    assert unfinished.seconds is None


def test_answers_about_lost_data_are_no_outage() -> None:
    missing = entry(3, ok=False, error="missing", status=404)
    assert outage([entry(1), missing, entry(4)]) is None


@pytest.mark.req("FA-4")
def test_a_write_under_an_old_epoch_counts_only_when_it_was_sent_after_a_later_one_was_heard() -> None:
    old, new = entry(1, epoch=1), entry(5, epoch=2)
    under_way = entry(5.005, epoch=1, seconds=3)
    late = entry(5.02, epoch=1)
    assert dual_writers([old, new]) == 0
    assert dual_writers([old, new, under_way]) == 0
    assert dual_writers([old, new, under_way, late, replace(late, ok=False)]) == 1
    assert dual_writers([old, new, entry(5.02, epoch=1, kind="read")]) == 0
    assert dual_writers([entry(1, epoch=3), entry(2, epoch=1), entry(3, epoch=2)]) == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.integers(1, 4)), max_size=30))
def test_one_writer_after_the_other_is_never_a_violation(parts: list[tuple[float, float, int]]) -> None:
    ordered = sorted(epoch for _, _, epoch in parts)
    now, entries = 0.0, []
    for (gap, seconds, _), epoch in zip(parts, ordered, strict=True):
        now += gap
        entries.append(entry(now, epoch=epoch, seconds=seconds))
    assert dual_writers(entries) == 0
    brute = sum(
        any(b.epoch > a.epoch and a.sent_at > b.ended_at for b in entries)  # type: ignore[operator]
        for a in reversed(entries)
    )
    assert brute == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 5), st.integers(1, 4), st.booleans()), max_size=30))
def test_dual_writers_is_what_its_definition_says(parts: list[tuple[float, float, int, bool]]) -> None:
    entries = [entry(at, epoch=epoch, seconds=seconds, ok=ok) for at, seconds, epoch, ok in parts]
    done = [each for each in entries if each.ok]
    wrong = sum(any((b.epoch or 0) > (a.epoch or 0) and a.sent_at > b.ended_at for b in done) for a in done)
    assert dual_writers(entries) == wrong


def test_the_series_has_no_gaps() -> None:
    entries = [entry(10 + number / 10, seconds=(number + 1) / 1000) for number in range(10)]
    entries += [entry(13.5, ok=False), entry(13.6)]
    buckets = series(entries, 1.0)
    assert [(round(each.start), each.requests, each.errors) for each in buckets] == [
        (10, 10, 0),
        (11, 0, 0),
        (12, 0, 0),
        (13, 2, 1),
    ]
    assert (buckets[0].p50_ms, buckets[0].p95_ms) == (5, 10)
    assert buckets[1].p50_ms is None
    assert series([], 1.0) == []


def test_lost_writes_are_named_once_and_only_acknowledged_ones() -> None:
    kept, lost, never = entry(1), entry(2), entry(3, ok=False)
    assert lost_writes([kept, lost, replace(lost, n=9), never], {kept.id}) == [lost.id]
    assert [each.id for each in acknowledged([kept, never])] == [kept.id]
    assert tables([kept, replace(kept, service="clinical")]) == ("clinical_notes", "patients")


def test_a_torn_line_is_left_out_and_removed_when_the_ledger_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    ledger = Ledger(path)
    written = [entry(number, n=number) for number in (2, 1)]
    for each in written:
        ledger.write(each)
    assert ledger.next_n == 3
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"n":3,"kind":"wri')
    assert Ledger.read(path) == written
    again = Ledger(path)
    assert again.next_n == 3
    again.write(replace(written[0], n=3))
    again.close()
    assert [each.n for each in Ledger.read(path)] == [2, 1, 3]
    path.write_text("not ours\n")
    with pytest.raises(FailedError, match="line 1"):
        Ledger.read(path)
    with pytest.raises(FailedError, match="No such file"):
        Ledger.read(tmp_path / "missing")


@pytest.mark.req("FM-4")
async def test_ids_of_the_surviving_database(hospital: Hospital) -> None:
    database = await hospital.primary()
    row_id = await database.ask(
        "INSERT INTO patients (id, name, born, clinic) VALUES (gen_random_uuid(), 'x', '2000-01-01', 'c') RETURNING id"
    )
    conninfo = f"host={database.host} dbname=hms user=hms_app"
    assert str(row_id) in await present_ids(conninfo, ["patients", "users"], deadline=5)
    with pytest.raises(FailedError, match="pharmacy"):
        await present_ids(conninfo, ["pharmacy"], deadline=5)
    database.kill()
    with pytest.raises(FailedError, match="refused"):
        await present_ids(conninfo, ["patients"], deadline=5)
