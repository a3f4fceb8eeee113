"""What a drill found, as one frozen value: the content of ``report.json``. Data and its JSON; nothing is measured here.

Times are UTC; durations in seconds, latencies in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from hmsdr.incident.checklists import Item, as_json

_LONG, _HOUR = 100.0, 3600.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. Stages that do not wait for each other overlap. ``seconds`` is None when it did not end."""

    name: str
    title: str
    started_at: datetime
    seconds: float | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the run, for the appendix of the report."""

    key: str
    title: str
    state: str
    already: bool
    seconds: float | None
    found: str


@dataclass(frozen=True, slots=True)
class Watched:
    """One thing that a scenario demands besides objectives, and what was seen of it."""

    what: str
    well: bool
    found: str


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a whole circle: the failover, the machines coming back, the recovery. ``run`` is what carried it out."""

    name: str
    title: str
    started_at: datetime
    seconds: float | None
    outcome: str
    run: str | None
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableEqual:
    """A table on both sides: rows and the sum of their hashes on the primary; ``different`` says where, empty when it is nowhere."""

    table: str
    rows: int
    sum: str
    different: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataEqual:
    """The data of both sides, compared at the same moment (``lsns``; more than one when a moment was too short)."""

    equal: bool
    primary: str
    standby: str
    lsns: tuple[str, ...]
    seconds: float
    tables: tuple[TableEqual, ...]


@dataclass(frozen=True, slots=True)
class TrafficStep:
    """One share of users on their way home, in per cent: what was asked, what arrived, and how the regions fared meanwhile.

    ``held`` seconds were watched; ``home`` and ``other`` are the signals over that time, by name: requests and errors as counts,
    latency in seconds, saturation as a part of 1.
    """

    asked: int
    arrived: float | None
    held: float | None
    home: dict[str, Any]
    other: dict[str, Any]
    verdict: str
    found: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """What users felt in one stretch of time, which began ``at`` seconds after the fault (or before it: negative)."""

    at: float
    requests: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Users:
    """Requests of the clinics over the whole drill. ``width`` is the length of a `Moment`, in seconds."""

    requests: int
    failed: int
    failed_before_fault: int
    first_failed_at: datetime | None
    recovered_at: datetime | None
    width: float
    moments: tuple[Moment, ...]

    def coarser(self, most: int) -> Users:
        """The same in at most `most` moments: requests added up, the slowest latencies kept."""
        many = -(-len(self.moments) // most)
        if many <= 1:
            return self
        groups = [self.moments[start : start + many] for start in range(0, len(self.moments), many)]
        return replace(self, width=many * self.width, moments=tuple(_merged(group) for group in groups))


def _merged(group: Sequence[Moment]) -> Moment:
    return Moment(
        group[0].at,
        sum(moment.requests for moment in group),
        sum(moment.errors for moment in group),
        max((moment.p50_ms for moment in group if moment.p50_ms is not None), default=None),
        max((moment.p95_ms for moment in group if moment.p95_ms is not None), default=None),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """A drill."""

    scenario: str
    title: str
    outcome: Literal["passed", "failed"]
    failures: tuple[str, ...]
    """Why it did not pass; empty when it did."""
    playbook: str
    overlay: str | None
    thresholds: dict[str, str]
    """The figures that mattered, as the playbook with its overlay has them."""
    source: str
    target: str
    fault: str
    fault_at: datetime
    started_at: datetime
    ended_at: datetime
    run: str | None
    plan_hash: str | None
    log_head: str | None
    trigger: dict[str, Any] | None
    stages: tuple[Stage, ...]
    steps: tuple[Step, ...]
    rto_seconds: float | None
    rto_target_seconds: float
    rpo_seconds: float | None
    rpo_target_seconds: float
    execution_seconds: float | None
    acknowledged_writes: int
    lost_writes: tuple[str, ...]
    dual_writers: int
    users: Users
    counts: dict[str, int] = field(default_factory=dict)
    pre_failover: tuple[Item, ...] = ()
    post_failover: tuple[Item, ...] = ()
    watched: tuple[Watched, ...] = ()
    phases: tuple[Phase, ...] = ()
    realised_rpo: float | None = None
    """Seconds of commits that the lost primary had alone, by its own WAL; None when that was not found out."""
    reconciled: dict[str, Any] | None = None
    """How many commits and rows that were, and whether every one is known."""
    recovery_steps: tuple[Step, ...] = ()
    data_equal: DataEqual | None = None
    """What the comparison before going home found; None when it was not come to."""
    traffic_steps: tuple[TrafficStep, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.outcome == "passed"

    @property
    def last_second(self) -> float:
        """Seconds after the fault at which the story ends: the last stage, and users served again or never."""
        users = self.users
        ends = [
            (stage.started_at - self.fault_at).total_seconds() + (stage.seconds or 0.0)
            for stage in self.stages
        ]
        if users.recovered_at is not None:
            ends.append((users.recovered_at - self.fault_at).total_seconds())
        elif users.first_failed_at is not None and users.moments:
            ends.append(users.moments[-1].at + users.width)
        return max(ends, default=10.0)

    def as_json(self) -> dict[str, Any]:
        """``report.json``."""
        data = asdict(self)
        data["checklists"] = {
            "pre-failover": as_json(self.pre_failover),
            "post-failover": as_json(self.post_failover),
        }
        del data["pre_failover"], data["post_failover"]
        found: dict[str, Any] = _plain(data)
        return found


def duration(value: float | None) -> str:
    """Seconds for people: ``400 ms``, ``3.50 s``, ``900 s``, ``4 h 58 min``."""
    if value is None:
        return "—"
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < _LONG:
        return f"{value:.2f} s"
    if value < _HOUR:
        return f"{value:.0f} s"
    return f"{value // _HOUR:.0f} h {value % _HOUR // 60:.0f} min"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value
