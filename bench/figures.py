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
    return table


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know to judge the table."""
    details = found.get("failover", {}).get("execution_details", [])
    late = sum(READY in steps for steps in details)
    if not late:
        return []
    return [
        f"In {late} of {len(details)} failovers pods were not ready yet when the right to write was free: the machine was",
        "busy, and their start is in the execution. Measure again when it is calm.",
    ]


def lines(table: Sequence[Row]) -> list[str]:
    """The table for people."""
    shown = [f"  {'':<29}{'min':>9}{'median':>9}{'max':>9}"]
    for row in table:
        spread = row.spread
        figures = "".join(f"{each:>9.{row.digits}f}" for each in (spread.least, spread.median, spread.most))
        verdict = ""
        if row.limit is not None:
            which = "max" if row.worst else "median"
            verdict = f"{which} at most {row.limit:g}: {'holds' if row.holds else 'DOES NOT HOLD'}"
        shown.append(f"  {row.name:<29}{figures} {row.unit:<3} {verdict}".rstrip())
    return shown
