"""The benchmark's own arithmetic: what is judged, by what, and what a reader sees. Nothing here is timed."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import READY, Row, Spread, lines, ratios, remarks, rows
from hmsdr.runbook import definition

FAILOVER = {
    "floor_seconds": [0.2, 0.4, 0.3],
    "execution_seconds": [0.3, 0.4, 0.6],
    "peak_memory_mb": [120.0, 201.0, 119.0],
}
JOURNAL = {"two_bare_writes_ms": [0.5, 0.4], "step_ms": [1.0, 3.0]}


def test_a_ratio_is_of_the_same_round() -> None:
    assert ratios([0.3, 0.4, 0.6], [0.2, 0.4, 0.3]) == pytest.approx([1.5, 1.0, 2.0])
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@given(st.lists(st.floats(0.001, 1000), min_size=1))
def test_half_of_the_rounds_lie_on_either_side_of_the_median(values: list[float]) -> None:
    spread = Spread.of(values)
    assert sum(each <= spread.median for each in values) >= len(values) / 2
    assert sum(each >= spread.median for each in values) >= len(values) / 2
    assert (spread.least, spread.most) == (min(values), max(values))


@pytest.mark.parametrize(
    ("values", "worst", "holds"),
    [
        ([1.5, 1.5, 9.0], False, True),
        ([1.0, 1.51, 1.6], False, False),
        ([1.0, 1.0, 1.5], True, True),
        ([1.0, 1.0, 1.51], True, False),
    ],
)
def test_a_limit_is_for_the_median_or_for_the_worst_round(
    values: list[float], worst: bool, holds: bool
) -> None:
    assert Row("x", "", 2, Spread.of(values), 1.5, worst).holds is holds


def test_the_table_says_which_limits_hold() -> None:
    table = {row.name: row for row in rows({"failover": FAILOVER, "journal": JOURNAL})}
    ratio, memory = table["execution / floor"], table["runner's peak memory"]
    assert (ratio.judged, ratio.holds) == (pytest.approx(1.5), True)
    assert (memory.judged, memory.holds) == (201.0, False)
    assert table["empty step with its journal"].judged == pytest.approx(2.0)
    assert table["floor"].holds
    shown = {line.strip().split("  ")[0]: line for line in lines(list(table.values()))[1:]}
    assert shown["runner's peak memory"].endswith("max at most 200: DOES NOT HOLD")
    assert shown["execution / floor"].endswith("median at most 1.5: holds")
    assert shown["floor"].split() == ["floor", "200", "300", "400", "ms"]


def test_a_round_whose_pods_were_late_is_told() -> None:
    calm, busy = {"promotion/grant": 0.01}, {"promotion/grant": 0.01, READY: 0.9}
    assert remarks({"failover": {"execution_details": [calm, calm]}}) == []
    (first, _) = remarks({"failover": {"execution_details": [calm, busy, busy]}})
    assert first.startswith("In 2 of 3 failovers pods were not ready yet")
    assert remarks({}) == []
    stage, _, step = READY.partition("/")
    shipped = yaml.safe_load(definition.find("regional-failover").read_text())
    (scaling,) = (each for each in shipped["stages"] if each["stage"] == stage)
    assert step in {each["step"] for group in scaling["steps"] for each in group.get("together", [group])}


def test_what_was_left_out_has_no_rows() -> None:
    assert [row.name for row in rows({"journal": JOURNAL})] == [
        "two bare durable writes",
        "empty step with its journal",
    ]
    (seed,) = rows({"simulator": {"seed_ms": [9.0, 51.0, 60.0]}})
    assert (seed.judged, seed.holds) == (51.0, False)
    assert rows({}) == []
