"""A drill told by hand: the events of a run and the clinics' ledger, from which every figure can be reckoned."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from books import SECRETS

from hmsdr.drill.measures import Gathered
from hmsdr.drill.report import DataEqual, Phase, TableEqual
from hmsdr.lab.hms.ledger import Entry
from hmsdr.log.events import Event
from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load as load_playbook
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.state import RunState, fold

PLAYBOOK = load_playbook(SHIPPED["hms"], environ=SECRETS)
EAST, WEST = "us-east-1", "us-west-2"
FAULT = 1_800_000_000.0
"""The moment of the fault; every time in a story is in seconds after it."""

GATES = [
    {"name": "secondary-healthy", "state": "passed", "observed": "all well", "limit": "", "remedy": ""},
    {"name": "replication-lag", "state": "passed", "observed": "0.2 s, 0 bytes", "limit": "", "remedy": ""},
    {"name": "backups-current", "state": "passed", "observed": "b1, 2.0 h old", "limit": "", "remedy": ""},
    {"name": "rollback-plan", "state": "passed", "observed": "regional-failover back", "limit": "", "remedy": ""},
]  # fmt: skip
OBSERVED: dict[str, dict[str, Any]] = {
    "announcement/begun": {"channel": "slack:#x", "failed_before": []},
    "notification/ended": {"channel": "teams:y", "failed_before": ["slack:#x: HTTP 503"]},
    "dns-update/shift": {"weights": {EAST: 0, WEST: 100}},
    "monitoring/watched": {"up": 6, "targets": 6},
    "monitoring/alerts": {"rules": ["RegionDown"], "firing": [], "broken": []},
    "validation/database": {"counts": {"patients": 42}, "slots": {"us_east_1_slot": "reserved"}},
    **{
        f"validation/answers-{name}": {"status": 200, "seconds": 0.0123, "region": WEST}
        for name in PLAYBOOK.services
    },
}
STAGES = {
    "detection": (7.0, 7.5),
    "announcement": (7.0, 7.1),
    "verification": (7.5, 8.0),
    "scaling-up": (7.5, 12.0),
    "fencing": (8.0, 11.0),
    "promotion": (11.0, 11.4),
    "dns-update": (12.0, 12.5),
    "validation": (12.5, 14.5),
    "monitoring": (12.5, 15.0),
    "notification": (14.5, 14.6),
}
"""When each stage begins and ends; one that is not here is of no matter to the story."""


def plan() -> Plan:
    found = definition.load(definition.find("regional-failover"))
    values = {"from": EAST, "to": WEST}
    return freeze(found, PLAYBOOK, installed(), values, mode="unplanned", epoch=4)


def run(
    *,
    until: str | None = None,
    failing: str | None = None,
    end: str | None = "run.succeeded",
    observed: dict[str, dict[str, Any]] | None = None,
    context: dict[str, Any] | None = None,
    stages: dict[str, tuple[float, float]] | None = None,
) -> RunState:
    """A run of the regional failover.

    Args:
        until: no stage after this one (in order of their ends) was begun.
        failing: key of a step that fails, and its stage with it.
        end: the last event; None for a run that has not ended.
        observed: instead of what steps otherwise observe.
        context: what was recorded with its start, besides the gates.
        stages: instead of the usual times.
    """
    told = [(6.9, "run.started", {"plan": plan().model_dump(mode="json"), "gates": GATES, **(context or {})})]
    times = {**STAGES, **(stages or {})}
    seen = {**OBSERVED, **(observed or {})}
    for stage in plan().stages:
        begins, ends = times.get(stage.name, (7.6, 7.9))
        told.append((begins, "stage.started", {"stage": stage.name}))
        bad = False
        for step in stage.steps():
            told.append((begins, "step.started", {"step": step.key, "attempt": 1}))
            if step.key == failing:
                error = {"doing": step.title, "found": "it broke <b>", "remedy": "Mend it"}
                told.append((ends, "step.failed", {"step": step.key, "error": error}))
                bad = True
                continue
            result = {"already": False, "output": {}, "observed": seen.get(step.key, {})}
            told.append((ends, "step.succeeded", {"step": step.key, **result}))
        told.append((ends, "stage.ended", {"stage": stage.name, "outcome": "failed" if bad else "succeeded"}))
        if bad or stage.name == until:
            break
    if end is not None:
        told.append((max(at for at, *_ in told), end, {}))
    told.sort(key=lambda item: item[0])
    state = fold(
        Event(number, moment(at), 1, kind, "run-x", "tester", data, "", "")
        for number, (at, kind, data) in enumerate(told, start=1)
    )
    assert state is not None
    return state


def recovery(*, failing: str | None = None, end: str | None = "run.succeeded") -> RunState:
    """A run that brings the lost region back, from second 20 to 28; `failing` is a step that is passed over."""
    found = definition.load(definition.find("region-recovery"))
    values = {"region": EAST, "path": "rewind"}
    frozen = freeze(found, PLAYBOOK, installed(), values, mode="unplanned", epoch=5)
    told: list[tuple[float, str, dict[str, Any]]] = [
        (20.0, "run.started", {"plan": frozen.model_dump(mode="json")})
    ]
    for step in frozen.steps():
        told.append((21.0, "step.started", {"step": step.key, "attempt": 1}))
        error = {"doing": step.title, "found": "it broke", "remedy": "Mend it"}
        told.append(
            (22.0, "step.failed", {"step": step.key, "error": error})
            if step.key == failing
            else (22.0, "step.succeeded", {"step": step.key, "already": False, "output": {}, "observed": {}})
        )
    if end is not None:
        told.append((28.0, end, {}))
    state = fold(
        Event(number, moment(at), 1, kind, "run-y", "tester", data, "", "")
        for number, (at, kind, data) in enumerate(told, start=1)
    )
    assert state is not None
    return state


def home(*, failing: str | None = None, end: str | None = "run.succeeded") -> RunState:
    """A run that takes the hospital home, from second 30 to 80; each share is watched for 5 s."""
    found = definition.load(definition.find("switchback"))
    frozen = freeze(
        found, PLAYBOOK, installed(), {"from": WEST, "to": EAST}, mode="planned", epoch=5, users=WEST
    )
    told: list[tuple[float, str, dict[str, Any]]] = [
        (30.0, "run.started", {"plan": frozen.model_dump(mode="json")})
    ]
    seen = {"requests": 40.0, "errors": 0.0, "saturation": 0.2, "p95": 0.031}
    for step in frozen.steps():
        told.append((31.0, "step.started", {"step": step.key, "attempt": 1}))
        if step.key == failing:
            error = {"doing": step.title, "found": "error rate of us-east-1 is 50 %", "remedy": "Mend it"}
            told.append((36.0, "step.failed", {"step": step.key, "error": error}))
            break
        share = step.arguments.get("share", 0)
        output = (
            {"arrived": share + 1.5, "home": seen, "other": seen} if step.action == "traffic.watch" else {}
        )
        told.append(
            (36.0, "step.succeeded", {"step": step.key, "already": False, "output": output, "observed": {}})
        )
    if end is not None:
        told.append((80.0, end, {}))
    state = fold(
        Event(number, moment(at), 1, kind, "run-z", "tester", data, "", "")
        for number, (at, kind, data) in enumerate(told, start=1)
    )
    assert state is not None
    return state


def database_run(
    source: str,
    target: str,
    *,
    mode: Literal["planned", "unplanned"],
    failing: str | None = None,
    end: str = "run.succeeded",
) -> RunState:
    """The database moves alone, a second for each stage, from second 7; `failing` is a step that is passed over."""
    found = definition.load(definition.find("database-failover"))
    values = {"from": source, "to": target}
    frozen = freeze(found, PLAYBOOK, installed(), values, mode=mode, epoch=4, users=EAST)
    return _staged(frozen, "run-d", failing=failing, end=end)


def following() -> RunState:
    """A run that makes the old primary follow."""
    found = definition.load(definition.find("database-follow"))
    frozen = freeze(found, PLAYBOOK, installed(), {"region": EAST}, mode="unplanned", epoch=5)
    return _staged(frozen, "run-f", failing=None, end="run.succeeded")


def _staged(frozen: Plan, name: str, *, failing: str | None, end: str) -> RunState:
    told: list[tuple[float, str, dict[str, Any]]] = [
        (6.9, "run.started", {"plan": frozen.model_dump(mode="json"), "gates": GATES})
    ]
    at = 7.0
    for stage in frozen.stages:
        told.append((at, "stage.started", {"stage": stage.name}))
        for step in stage.steps():
            told.append((at, "step.started", {"step": step.key, "attempt": 1}))
            error = {"doing": step.title, "found": "it broke", "remedy": "Mend it"}
            result = {"already": False, "output": {}, "observed": OBSERVED.get(step.key, {})}
            kind, more = (
                ("step.failed", {"error": error}) if step.key == failing else ("step.succeeded", result)
            )
            told.append((at + 1, kind, {"step": step.key, **more}))
        at += 1
        told.append((at, "stage.ended", {"stage": stage.name, "outcome": "succeeded"}))
    told.append((at, end, {}))
    state = fold(
        Event(number, moment(at), 1, kind, name, "tester", data, "", "")
        for number, (at, kind, data) in enumerate(told, start=1)
    )
    assert state is not None
    return state


def data(*different: str) -> DataEqual:
    """Two tables, compared; those that are named are not the same."""
    found = tuple(
        TableEqual(name, 42, "123", ("pages from 0",) if name in different else ())
        for name in ("patients", "encounters")
    )
    return DataEqual(not different, WEST, EAST, ("0/3000148",), 0.4, found)


def circle(
    state: RunState | None,
    *,
    compared: DataEqual | None = None,
    gone_home: RunState | None = None,
    **lost: Any,
) -> dict[str, Any]:
    """What a drill has besides when the lost region was to come back, and the hospital to go home."""
    words = ("database diverged: it wrote 112 bytes of WAL past 0/3000000 that the primary never saw",)
    back = Phase(
        "machines-back", "The machines are there again", moment(15), 4.0, "succeeded", None, ("standby",)
    )
    phases = [back]
    if state is not None:
        phases.append(
            Phase("recovery", state.plan.title, moment(20), 8.0, str(state.status), state.run, words)
        )
    reconciled = {"seconds": 0.4, "commits": 3, "rows": 2, "complete": True, **lost}
    return {
        "recovers": True,
        "recovery": state,
        "phases": tuple(phases),
        "reconciled": state and reconciled,
        "data_equal": compared,
        "switchback": gone_home,
    }


def database_circle() -> dict[str, Any]:
    """What a drill has besides when only a database was lost: it followed, was equal, and went home."""
    back, home_again = following(), database_run(WEST, EAST, mode="planned")
    words = ("database diverged: it wrote 112 bytes of WAL past 0/3000000 that the primary never saw",)
    return {
        **circle(back, compared=data(), gone_home=home_again),
        "phases": (
            Phase("machines-back", "It is there again", moment(15), 4.0, "succeeded", None, ("fenced",)),
            Phase("recovery", back.plan.title, moment(20), 3.0, "succeeded", back.run, words),
            Phase("data-equal", "Equal", moment(24), 0.4, "succeeded", None, ("2 tables",)),
            Phase("switchback", home_again.plan.title, moment(25), 7.0, "succeeded", home_again.run),
        ),
    }


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(FAULT + seconds, UTC)


def entry(
    at: float,
    *,
    ok: bool = True,
    kind: Literal["write", "read"] = "write",
    took: float = 0.02,
    epoch: int | None = None,
    error: str = "refused",
) -> Entry:
    """One attempt, sent at `at`; an acknowledged write is of epoch 4 before 11 s and 5 from then on."""
    region = EAST if at < 5 else WEST
    return Entry(
        n=round(at * 1000),
        kind=kind,
        service="patient",
        id=f"w{at:g}",
        sent_at=FAULT + at,
        ended_at=FAULT + at + took,
        status=201 if ok else None,
        ok=ok,
        error=None if ok else error,
        region=region if ok else None,
        instance=f"db@{region}" if ok else None,
        epoch=(epoch or (4 if at < 5 else 5)) if ok and kind == "write" else None,
        latency_ms=1000 * took,
    )


def ledger(
    down_from: float = 0.0, served_from: float = 14.0, until: float = 20.0, each: float = 0.25
) -> list[Entry]:
    """Writes at an even pace from 3 s before the fault; those sent while down fail."""
    entries, at = [], -3.0
    while at < until:
        entries.append(entry(at, ok=not down_from <= at < served_from))
        at += each
    return entries


def gathered(entries: Iterable[Entry], state: RunState | None, **more: Any) -> Gathered:
    listed = list(entries)
    values: dict[str, Any] = {
        "scenario": "regional-outage", "title": "Scenario 1", "playbook": PLAYBOOK, "source": EAST,
        "target": WEST, "fault": "region-down", "fault_at": FAULT, "grace_seconds": 1.0, "started_at": FAULT - 20,
        "ended_at": FAULT + 30, "trigger": TRIGGER, "run": state, "log_head": "f00", "entries": listed,
        "present": {item.id for item in listed if item.ok},
    }  # fmt: skip
    return Gathered(**{**values, **more})


TRIGGER = {
    "kind": "region-unreachable",
    "region": EAST,
    "unreachable_since": moment(0.3).isoformat(),
    "decided_at": moment(6.5).isoformat(),
    "hold_down_seconds": 5.0,
    "seen_seconds": 6.2,
    "evidence": {"ingress": "refused", "agent": "silent", "database": "silent"},
}
