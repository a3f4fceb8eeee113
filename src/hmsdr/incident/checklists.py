"""The playbook's checklists before and after a failover (AP-1), ticked by the system from what a run recorded.

A fold of the run: an item is done when the step or gate that shows it succeeded, and its evidence is what was observed
there. It asks nobody and ticks nothing on faith: what no step shows stays open, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from hmsdr.decide.gates import GateName, GateState
from hmsdr.runbook.state import RunState, RunStatus, StepState


class ItemState(StrEnum):
    """State of an item."""

    DONE = "done"
    OPEN = "open"
    NOT_POSSIBLE = "not possible yet"
    """What it asks for cannot be had before something else: the reason says what."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a checklist. ``by`` is who ticked it; ``evidence`` what was observed, or why it is not done."""

    title: str
    state: ItemState
    evidence: str
    at: datetime | None = None
    by: str = "system"


_Shown = tuple[ItemState, str, datetime | None]


def pre_failover(run: RunState) -> tuple[Item, ...]:
    """The six items before a failover."""
    told = _step(run, "announcement/begun", _told)
    ready = (told[0], told[1].replace("told on", "took the first message:"), told[2])
    return _items(
        ("Secondary region health verified", _gate(run, GateName.SECONDARY_HEALTHY)),
        ("Database replication lag within its limit", _gate(run, GateName.REPLICATION_LAG)),
        ("Backup data is current", _gate(run, GateName.BACKUPS_CURRENT)),
        ("Stakeholders notified", told),
        ("Rollback plan prepared", _gate(run, GateName.ROLLBACK_PLAN)),
        ("Communication channels ready", ready),
    )


def post_failover(run: RunState) -> tuple[Item, ...]:
    """The seven items after a failover."""
    return _items(
        ("All services operational in new primary", _services(run)),
        ("Database replication working", _replication(run)),
        (
            "DNS records updated",
            _step(run, "dns-update/shift", lambda seen: f"weights {_words(seen.get('weights'))}"),
        ),
        (
            "Monitoring working",
            _step(
                run,
                "monitoring/watched",
                lambda seen: f"{seen.get('up')} of {seen.get('targets')} targets up",
            ),
        ),
        (
            "Alerts configured",
            _step(run, "monitoring/alerts", lambda seen: ", ".join(map(str, seen.get("rules", ())))),
        ),
        ("Documentation updated", _documented(run)),
        ("Stakeholders notified of completion", _step(run, "notification/ended", _told)),
    )


def as_json(items: tuple[Item, ...]) -> list[dict[str, Any]]:
    """For reports."""
    return [
        {
            "item": item.title,
            "done": item.state is ItemState.DONE,
            "state": str(item.state),
            "by": item.by,
            "at": item.at and item.at.isoformat(),
            "evidence": item.evidence,
        }
        for item in items
    ]


def _items(*lines: tuple[str, _Shown]) -> tuple[Item, ...]:
    return tuple(Item(title, state, evidence, at) for title, (state, evidence, at) in lines)


def _gate(run: RunState, name: GateName) -> _Shown:
    overruled = {each["gate"]: each for each in run.context.get("overrides", ())}
    for gate in run.context.get("gates", ()):
        if gate["name"] == name:
            if gate["state"] == GateState.PASSED:
                return ItemState.DONE, str(gate["observed"]), run.started_at
            if name in overruled:
                who = overruled[name]
                return (
                    ItemState.OPEN,
                    f"{gate['observed']}; overruled by {who['by']}: {who['reason']}",
                    run.started_at,
                )
            return ItemState.OPEN, str(gate["observed"]), None
    return ItemState.OPEN, "the run judged no such gate", None


def _step(run: RunState, key: str, words: Callable[[Mapping[str, Any]], str]) -> _Shown:
    """A step that shows the item; `words` makes evidence of what it observed and gave."""
    record = run.record(key)
    if record.state is StepState.SUCCEEDED:
        return ItemState.DONE, words({**record.observed, **record.output}), record.ended_at
    if record.state is StepState.STARTED:
        return ItemState.OPEN, "it was begun and has not ended", None
    if record.error is not None:
        return ItemState.OPEN, f"{record.error['found']}. {record.error['remedy']}".strip(), None
    if all(step.key != key for step in run.plan.steps()):
        return ItemState.OPEN, f"no step of {run.plan.runbook} does this", None
    return ItemState.OPEN, "the run did not come to it", None


def _services(run: RunState) -> _Shown:
    answers = [step for step in run.plan.steps() if step.action == "service.answers"]
    records = {str(step.arguments["service"]): run.record(step.key) for step in answers}
    missing = [name for name, record in records.items() if record.state is not StepState.SUCCEEDED]
    if missing or not records:
        return ItemState.OPEN, f"no answer from {', '.join(missing) or 'any service'}", None
    seen = [
        f"{name} HTTP {record.observed.get('status')} in {1000 * float(record.observed.get('seconds', 0)):.0f} ms"
        for name, record in records.items()
    ]
    at = max((record.ended_at for record in records.values() if record.ended_at), default=None)
    return ItemState.DONE, "; ".join(seen), at


def _replication(run: RunState) -> _Shown:
    """Replication from the new primary: streaming in a planned failover, prepared when the old side is lost."""
    source = run.plan.parameters.get("from", "the old region")
    if any(step.key == "standby/database" for step in run.plan.steps()):
        return _step(run, "standby/database", lambda _: f"{source} streams from the new primary")
    verified = run.record("validation/database")
    if verified.state is not StepState.SUCCEEDED:
        return _step(run, "validation/database", str)
    slots = verified.observed.get("slots", {})
    kept = f"slot {_words(slots)} keeps its WAL" if slots else "no slot is there for it"
    return ItemState.NOT_POSSIBLE, f"{source} is lost; {kept}, until its recovery", None


def _documented(run: RunState) -> _Shown:
    if run.status is RunStatus.RUNNING:
        return ItemState.OPEN, "the run has not ended", None
    return (
        ItemState.DONE,
        f"run {run.run}: plan, gates, steps and what was observed are in the log, up to event {run.last_seq}",
        run.ended_at,
    )


def _told(seen: Mapping[str, Any]) -> str:
    before = f" (before that: {'; '.join(seen['failed_before'])})" if seen.get("failed_before") else ""
    return f"told on {seen.get('channel', 'a channel')}{before}"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return json.dumps(value, default=str)
