"""The pure rules: batches are atomic, and weights choose as Route 53 says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.lab.aws.records import Change, InvalidChangeBatchError, RecordSet, apply
from hmsdr.lab.dns.answers import Record, choose

ZONE = "example."


def a_record(weight: int | None, name: str | None) -> RecordSet:
    return RecordSet(f"api.{ZONE}", "A", 60, ("192.0.2.1",), name, weight)


@given(st.lists(st.tuples(st.sampled_from(["CREATE", "DELETE", "UPSERT"]), st.integers(-5, 300)), max_size=8))
def test_a_batch_is_applied_whole_or_not_at_all(moves: list[tuple[str, int]]) -> None:
    before = {a_record(10, "east").key: a_record(10, "east")}
    kept = dict(before)
    batch = [Change(action, a_record(weight, "east")) for action, weight in moves]  # type: ignore[arg-type]
    try:
        after = apply(before, batch, ZONE)
    except InvalidChangeBatchError as refused:
        assert refused.messages
    else:
        assert all(0 <= (item.weight or 0) <= 255 for item in after.values())
    assert before == kept


def test_simple_and_weighted_records_exclude_each_other() -> None:
    weighted = {a_record(1, "east").key: a_record(1, "east")}
    with pytest.raises(InvalidChangeBatchError, match="not of its kind"):
        apply(weighted, [Change("CREATE", a_record(None, None))], ZONE)


def test_weights_choose_in_proportion_and_zero_never() -> None:
    records = [Record("a.", "A", 1, (value,), weight) for value, weight in (("e", 80), ("w", 20), ("z", 0))]
    counts = Counter(choose(records, n / 1000).values[0] for n in range(1000))
    assert counts == {"e": 800, "w": 200}


def test_all_zero_means_all_are_eligible() -> None:
    records = [Record("a.", "A", 1, (value,), 0) for value in ("e", "w")]
    assert {choose(records, n / 10).values[0] for n in range(10)} == {"e", "w"}
