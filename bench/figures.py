"""The arithmetic of the benchmark: spread, the ratio of medians, and whether a limit holds. Pure; it measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RATIO_LIMIT = 1.5
STEP_LIMIT_MS = 2.0
MEMORY_LIMIT_MB = 200.0
SEED_LIMIT_MS = 50.0
GAP_LIMIT = 0.2
"""Of the gap that `patronictl switchover` leaves."""
FOLD_LIMIT_SECONDS = 1.0
SNAPSHOT_LIMIT_MS = 50.0
WATCHING_LIMIT_PERCENT = 25.0
LINEAR_LIMIT = 1.1
"""What an endpoint among the most may cost, beside one among the fewest."""
COMPARING_LIMIT = 4.0
"""Times as long as `SELECT count(*)` that reads the table, on both sides."""
FLAT_LIMIT = 1.1
"""Times the memory at the smallest size that the largest may take."""
READY = "scaling-up/ready"
"""The step that ends when all pods of the new region are ready."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What a figure was over the rounds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. A row with a limit is judged by its median, or by its worst round."""

    name: str
    unit: str
    digits: int
    spread: Spread
    limit: float | None = None
    worst: bool = False

    @property
    def judged(self) -> float:
        """The figure that the limit is for."""
        return self.spread.most if self.worst else self.spread.median

    @property
    def holds(self) -> bool:
        """Whether the limit holds; a row without one has nothing to hold."""
        return self.limit is None or self.judged <= self.limit


def ratios(mine: Sequence[float], least: Sequence[float]) -> list[float]:
    """Round by round, what hmsdr took divided by the floor of the same round.

    Raises:
        ValueError: a round has only one of both.
    """
    return [ours / floor for ours, floor in zip(mine, least, strict=True)]


def rows(found: Mapping[str, Any]) -> list[Row]:
    """The table of what was measured; parts that were left out have no rows."""
    table = []
    if part := found.get("failover"):
        floors, ours = part["floor_seconds"], part["execution_seconds"]
        table += [
            Row("floor", "ms", 0, Spread.of([1000 * each for each in floors])),
            Row("execution of the failover", "ms", 0, Spread.of([1000 * each for each in ours])),
            Row("execution / floor", "", 2, Spread.of(ratios(ours, floors)), RATIO_LIMIT),
            Row("runner's peak memory", "MB", 0, Spread.of(part["peak_memory_mb"]), MEMORY_LIMIT_MB, True),
        ]
    if part := found.get("journal"):
        table += [
            Row("two bare durable writes", "ms", 2, Spread.of(part["two_bare_writes_ms"])),
            Row("empty step with its journal", "ms", 2, Spread.of(part["step_ms"]), STEP_LIMIT_MS),
        ]
    if part := found.get("simulator"):
        table.append(Row("a seed of the simulator", "ms", 1, Spread.of(part["seed_ms"]), SEED_LIMIT_MS))
    return (
        table
        + _incidents(found)
        + _detection(found)
        + _switchover(found)
        + _watching(found)
        + _comparing(found)
    )


def _incidents(found: Mapping[str, Any]) -> list[Row]:
    if not (part := found.get("incidents")):
        return []
    cold, now = Spread.of(part["fold_seconds"]), Spread.of(part["now_ms"])
    return [
        Row("100,000 events of an incident, folded", "s", 2, cold, FOLD_LIMIT_SECONDS),
        Row("the same, read from the store, too", "s", 2, Spread.of(part["read_and_fold_seconds"])),
        Row("the same, from a snapshot", "ms", 1, now, SNAPSHOT_LIMIT_MS),
        Row("of that, the snapshot alone", "ms", 1, Spread.of(part["snapshot_ms"])),
    ]


def _detection(found: Mapping[str, Any]) -> list[Row]:
    if not (part := found.get("detection")):
        return []
    return [
        Row(
            "failure to decision - hold-down",
            "s",
            2,
            Spread.of(part["detection_seconds"]),
            part["limit_seconds"],
            worst=True,
        ),
        Row("failure to users served", "s", 1, Spread.of(part["served_seconds"])),
    ]


def _switchover(found: Mapping[str, Any]) -> list[Row]:
    if not (part := found.get("switchover")):
        return []
    clinics, database, patroni = (part[f"{each}_seconds"] for each in ("clinics", "database", "patroni"))
    return [
        Row("write gap, patronictl switchover", "ms", 0, Spread.of([1000 * each for each in patroni])),
        Row("write gap, hmsdr, the same client", "ms", 0, Spread.of([1000 * each for each in database])),
        Row("write gap, hmsdr, clinics", "ms", 0, Spread.of([1000 * each for each in clinics])),
        Row("same client / Patroni", "", 3, Spread.of(ratios(database, patroni)), GAP_LIMIT),
        Row("clinics / Patroni", "", 3, Spread.of(ratios(clinics, patroni)), GAP_LIMIT),
        Row("acknowledged writes lost", "", 0, Spread.of([part["lost"]]), 0, worst=True),
        Row("errors that clinics were answered", "", 0, Spread.of([part["errors"]]), 0, worst=True),
    ]


def _watching(found: Mapping[str, Any]) -> list[Row]:
    if not (part := found.get("watching")):
        return []
    percent = {int(count): values for count, values in part["percent"].items()}
    least, most = min(percent), max(percent)
    each = [[value / count for value in percent[count]] for count in (most, least)]
    return [
        *(
            Row(
                f"watching {count} endpoints",
                "%",
                1,
                Spread.of(values),
                WATCHING_LIMIT_PERCENT if count == most else None,
            )
            for count, values in sorted(percent.items())
        ),
        Row(f"one of {most} / one of {least}", "", 2, Spread.of(ratios(*each)), LINEAR_LIMIT),
    ]


def _comparing(found: Mapping[str, Any]) -> list[Row]:
    if not (part := found.get("comparing")):
        return []
    sizes = {int(size): each for size, each in part["sizes"].items()}
    least, most = sizes[min(sizes)], sizes[max(sizes)]
    counted, compared = most["count_seconds"], most["compare_seconds"]
    return [
        Row(f"count(*) of {max(sizes)} MiB on both sides", "s", 2, Spread.of(counted)),
        Row("the same, of its index only", "s", 2, Spread.of(most["index_count_seconds"])),
        Row("the same compared", "s", 2, Spread.of(compared)),
        Row("compared / count(*)", "", 2, Spread.of(ratios(compared, counted)), COMPARING_LIMIT),
        Row("memory of the comparison", "MB", 0, Spread.of(most["memory_mb"])),
        Row(
            f"memory at {max(sizes)} / at {min(sizes)} MiB",
            "",
            2,
            Spread.of(ratios(most["memory_mb"], least["memory_mb"])),
            FLAT_LIMIT,
        ),
    ]


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know to judge the table."""
    said = _gap_parts(found.get("switchover", {}))
    details = found.get("failover", {}).get("execution_details", [])
    late = sum(READY in steps for steps in details)
    if not late:
        return said
    return [
        *said,
        f"In {late} of {len(details)} failovers pods were not ready yet when the right to write was free: the machine was",
        "busy, and their start is in the execution. Measure again when it is calm.",
    ]


def _gap_parts(part: Mapping[str, Any]) -> list[str]:
    """Of what the clinics' gap consists; medians do not add up to the median."""
    each = [switch["parts"] for switch in part.get("details", [])]
    if not each:
        return []
    medians = (f"{name} {1000 * statistics.median(switch[name] for switch in each):.0f}" for name in each[0])
    load = ", ".join(f"{value:.1f}" for value in part["load"])
    return [f"The clinics' gap, medians in ms: {', '.join(medians)}. Load average: {load}."]


def lines(table: Sequence[Row]) -> list[str]:
    """The table for people."""
    shown = [f"  {'':<33}{'min':>9}{'median':>9}{'max':>9}"]
    for row in table:
        spread = row.spread
        figures = "".join(f"{each:>9.{row.digits}f}" for each in (spread.least, spread.median, spread.most))
        verdict = ""
        if row.limit is not None:
            which = "max" if row.worst else "median"
            verdict = f"{which} at most {row.limit:g}: {'holds' if row.holds else 'DOES NOT HOLD'}"
        shown.append(f"  {row.name:<33}{figures} {row.unit:<3} {verdict}".rstrip())
    return shown
