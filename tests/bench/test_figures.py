"""The benchmark's own arithmetic: what is judged, by what, and what a reader sees. Nothing here is timed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import READY, Row, Spread, lines, ratios, remarks, rows
from bench.parts import last, parts
from bench.writers import Acknowledged
from hmsdr.errors import FailedError
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


def test_detection_is_judged_by_its_worst_round() -> None:
    part = {"detection_seconds": [0.4, 1.6, 0.5], "served_seconds": [9.0, 8.0, 7.0], "limit_seconds": 1.5}
    detection, served = rows({"detection": part})
    assert (detection.judged, detection.holds) == (1.6, False)
    assert (served.judged, served.limit) == (8.0, None)


def test_gaps_are_judged_beside_patronis_of_the_same_round() -> None:
    part = {
        "patroni_seconds": [1.0, 2.0, 1.0],
        "database_seconds": [0.2, 0.2, 0.1],
        "clinics_seconds": [0.3, 0.3, 0.3],
        "lost": 0,
        "errors": 0,
    }
    table = {row.name: row for row in rows({"switchover": part})}
    same, clinics = table["same client / Patroni"], table["clinics / Patroni"]
    assert (same.judged, same.holds) == (pytest.approx(0.1), True)
    assert (clinics.judged, clinics.holds) == (pytest.approx(0.3), False)
    assert table["acknowledged writes lost"].holds
    (lost,) = (row for row in rows({"switchover": {**part, "lost": 1}}) if row.name.startswith("acknow"))
    assert not lost.holds
    (told,) = (row for row in rows({"switchover": {**part, "errors": 2}}) if row.name.startswith("errors"))
    assert not told.holds


def test_the_parts_of_a_gap_add_up_to_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    at = "2026-01-01T00:00:{}+00:00"
    taken = {"checkpoint": 0.5, "stop": 0.04, "proof": 0.03, "durable": 0.002}
    fenced = {"at": at.format("10.100"), "event": "fence.confirmed", "parts": taken}
    old.write_text("\n".join(["no JSON", json.dumps({**fenced, "at": "earlier"}), json.dumps(fenced), "{}"]))
    given = {"authorised": 0.01, "replayed": 0.005, "accepted": 0.003, "first write": 0.02, "durable": 0.002}
    new.write_text(json.dumps({"at": at.format("10.200"), "event": "promote.done", "parts": given}))
    second = datetime.fromisoformat(at.format("10")).timestamp()
    found = parts(last(old, "fence.confirmed"), last(new, "promote.done"), (second + 0.02, second + 0.210))
    assert sum(found.values()) == pytest.approx(0.19, abs=0.001)
    assert found["last write"] == pytest.approx(0.008, abs=0.001)
    assert found["grant"] == pytest.approx(0.06, abs=0.001)
    assert found["pod"] == pytest.approx(0.012, abs=0.001)
    with pytest.raises(FailedError, match="says nothing of fence"):
        last(new, "fence.confirmed")
    part = {"details": [{"parts": {"stop": 0.04}}, {"parts": {"stop": 0.06}}], "load": [1.0, 2.0, 3.0]}
    assert remarks({"switchover": part}) == [
        "The clinics' gap, medians in ms: stop 50. Load average: 1.0, 2.0, 3.0."
    ]


def test_watching_is_judged_at_the_most_endpoints_and_by_its_growth() -> None:
    part = {"percent": {"1000": [7.0, 7.0], "500": [4.0, 4.0], "2000": [16.0, 20.0]}}
    table = {row.name: row for row in rows({"watching": part})}
    assert list(table)[:3] == [f"watching {count} endpoints" for count in (500, 1000, 2000)]
    assert [row.limit for row in table.values()] == [None, None, 25.0, 1.1]
    growth = table["one of 2000 / one of 500"]
    assert (growth.spread.least, growth.spread.most) == (pytest.approx(1.0), pytest.approx(1.25))
    assert not growth.holds


def test_a_gap_counts_when_it_reaches_into_the_switchover() -> None:
    told = Acknowledged(at=[0.0, 5.0, 5.1, 5.5, 5.6, 9.0])
    assert told.gap(5.05, 5.3) == pytest.approx(0.4)
    assert told.gap(4.0, 5.3) == pytest.approx(5.0)
    assert told.gap(5.2, 6.0) == pytest.approx(3.4)
    assert Acknowledged(at=[1.0]).gap(0.0, 2.0) == float("inf")


def test_what_was_left_out_has_no_rows() -> None:
    assert [row.name for row in rows({"journal": JOURNAL})] == [
        "two bare durable writes",
        "empty step with its journal",
    ]
    (seed,) = rows({"simulator": {"seed_ms": [9.0, 51.0, 60.0]}})
    assert (seed.judged, seed.holds) == (51.0, False)
    assert rows({}) == []


def test_an_incident_of_many_events_is_judged_folded_and_from_its_snapshot() -> None:
    part = {
        "fold_seconds": [0.4, 1.2, 0.5],
        "read_and_fold_seconds": [2.0],
        "now_ms": [60.0],
        "snapshot_ms": [5.0],
    }
    cold, read, warm, alone = rows({"incidents": part})
    assert (cold.holds, cold.judged) == (True, 0.5)
    assert (warm.holds, warm.judged) == (False, 60.0)
    assert (read.limit, alone.limit) == (None, None)


def test_comparing_is_judged_beside_the_count_that_reads_as_much_and_by_memory_that_stays() -> None:
    def size(counted: float, compared: float, memory: float) -> dict[str, list[float]]:
        return {
            "count_seconds": [counted],
            "index_count_seconds": [counted / 2],
            "compare_seconds": [compared],
            "memory_mb": [memory],
        }

    found = {"comparing": {"sizes": {"128": size(0.1, 0.1, 50.0), "1024": size(1.0, 3.9, 56.0)}}}
    table = {row.name: row for row in rows(found)}
    ratio, flat = table["compared / count(*)"], table["memory at 1024 / at 128 MiB"]
    assert (ratio.judged, ratio.holds) == (pytest.approx(3.9), True)
    assert (flat.judged, flat.holds) == (pytest.approx(1.12), False)
