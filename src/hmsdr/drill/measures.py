"""From what a drill gathered to its report: RTO, RPO, execution, what users felt, and whether that is a pass. Pure.

It reads the clinics' ledger, the run's fold and the rows of the surviving database; it asks nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hmsdr.drill.report import DataEqual, Moment, Phase, Report, Stage, Step, TrafficStep, Users, Watched
from hmsdr.incident.checklists import post_failover, pre_failover
from hmsdr.lab.hms.ledger import (
    HOSPITAL_ANSWERED,
    SUSTAINED,
    Entry,
    Outage,
    acknowledged,
    dual_writers,
    lost_writes,
    outage,
    series,
)
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.state import RunState, RunStatus, StepState

BUCKET_SECONDS = 0.5
_WATCH = "traffic.watch"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a drill brought together. Moments are UTC seconds; what is None was never reached."""

    scenario: str
    title: str
    playbook: Playbook
    source: str
    target: str
    fault: str
    fault_at: float
    grace_seconds: float
    """For so long after the fault the lost side may still acknowledge: killing a region is not one instant, and one that is cut
    off goes on until its lease has run out."""
    started_at: float
    ended_at: float
    trigger: dict[str, Any] | None
    run: RunState | None
    log_head: str | None
    entries: Sequence[Entry]
    present: Collection[str] | None
    """Ids of all rows in the surviving database."""
    problem: str | None = None
    """What stopped the drill itself."""
    watched: tuple[Watched, ...] = ()
    """What the scenario demands besides."""
    phases: tuple[Phase, ...] = ()
    """What came after the failover."""
    recovers: bool = False
    """Whether the lost side had to be brought back."""
    recovery: RunState | None = None
    reconciled: Mapping[str, Any] | None = None
    data_equal: DataEqual | None = None
    switchback: RunState | None = None


def assess(found: Gathered) -> Report:
    """The report."""
    felt = outage(found.entries, since=found.fault_at)
    lost = [] if found.present is None else lost_writes(found.entries, found.present)
    targets = found.playbook.thresholds.targets
    doubled = dual_writers(found.entries)
    rto = felt.seconds if felt is not None else None
    rpo = None if found.present is None else _rpo(found, lost)
    failures = _failures(found, felt, rpo, lost, doubled)
    run, reconciled = found.run, found.reconciled
    return Report(
        scenario=found.scenario,
        title=found.title,
        outcome="failed" if failures else "passed",
        failures=tuple(failures),
        playbook=found.playbook.name,
        overlay=found.playbook.overlay,
        thresholds=_thresholds(found.playbook),
        source=found.source,
        target=found.target,
        fault=found.fault,
        fault_at=_utc(found.fault_at),
        started_at=_utc(found.started_at),
        ended_at=_utc(found.ended_at),
        run=None if run is None else run.run,
        plan_hash=None if run is None else run.plan.digest(),
        log_head=found.log_head,
        trigger=found.trigger,
        stages=tuple(_stages(found)),
        steps=() if run is None else tuple(_steps(run)),
        rto_seconds=rto,
        rto_target_seconds=targets.rto.total_seconds(),
        rpo_seconds=rpo,
        rpo_target_seconds=targets.rpo.total_seconds(),
        execution_seconds=None if run is None else execution_seconds(run),
        acknowledged_writes=len(acknowledged(found.entries)),
        lost_writes=tuple(lost),
        watched=found.watched,
        phases=(*_failover_phase(found), *found.phases),
        realised_rpo=None if reconciled is None else reconciled["seconds"],
        reconciled=None if reconciled is None else dict(reconciled),
        recovery_steps=() if found.recovery is None else tuple(_steps(found.recovery)),
        data_equal=found.data_equal,
        traffic_steps=() if found.switchback is None else traffic_steps(found.switchback),
        dual_writers=doubled,
        users=_users(found, felt),
        counts={} if run is None else dict(run.record("validation/database").observed.get("counts", {})),
        pre_failover=() if run is None else pre_failover(run),
        post_failover=() if run is None else post_failover(run),
    )


def execution_seconds(run: RunState) -> float | None:
    """From the right to write being free (the fencing stage is over) to everything validated; None if it is not."""
    free, valid = _done(run, "fencing"), _done(run, "validation")
    return None if free is None or valid is None else (valid - free).total_seconds()


def _done(run: RunState, stage: str) -> datetime | None:
    """When a stage ended well; one that failed proves nothing."""
    record = run.stages.get(stage)
    return record.ended_at if record is not None and record.outcome == "succeeded" else None


def _failures(
    found: Gathered, felt: Outage | None, rpo: float | None, lost: Collection[str], doubled: int
) -> list[str]:
    """Everything that keeps the drill from passing."""
    targets = found.playbook.thresholds.targets
    failures = [found.problem] if found.problem else []
    failures += [f"{each.what}: {each.found}" for each in found.watched if not each.well]
    failures += _run_failures(found.run) + _felt_failures(found, felt) + _recovery_failures(found)
    failures += _home_failures(found)
    if rpo is None:
        failures.append("the surviving database was not compared with what users were told")
    elif rpo > targets.rpo.total_seconds():
        failures.append(f"writes of {rpo:.1f} s were lost; the target is {format_duration(targets.rpo)}")
    if unexplained := _lost_later(found, lost):
        failures.append(
            f"{unexplained} writes were sent well after the fault, acknowledged, and are not there"
        )
    if doubled:
        failures.append(f"{doubled} writes were acknowledged under an epoch that was over")
    return failures


def _run_failures(run: RunState | None) -> list[str]:
    if run is None:
        return ["no failover was run"]
    if run.status is RunStatus.RUNNING:
        return [f"the failover has not ended: `hmsdr run show {run.run}`"]
    if run.status is not RunStatus.SUCCEEDED:
        return [f"the failover ended {run.status}: `hmsdr run show {run.run}`"]
    return []


def _recovery_failures(found: Gathered) -> list[str]:
    """What keeps what was lost from being a standby again, and what it had alone that nobody knows."""
    if not found.recovers:
        return []
    run = found.recovery
    if run is None:
        return ["what was lost was not brought back"]
    if run.status is not RunStatus.SUCCEEDED:
        return [f"the recovery ended {run.status}: `hmsdr run show {run.run}`"]
    undone = [step.title for step in run.plan.steps() if run.record(step.key).state is StepState.FAILED]
    failures = [f"not done in the recovery: {title}" for title in undone]
    target = found.playbook.thresholds.targets.rpo
    lost = found.reconciled or {"seconds": None, "complete": False}
    if not lost["complete"] or lost["seconds"] is None:
        failures.append("what the lost primary had alone is not known row by row: `hmsdr reconcile`")
    elif lost["seconds"] > target.total_seconds():
        words = f"the lost primary had {lost['seconds']:.1f} s of commits alone"
        failures.append(f"{words}; the target is {format_duration(target)}")
    return failures


def _home_failures(found: Gathered) -> list[str]:
    """What keeps the hospital from being at home again, with equal data."""
    if not found.recovers or found.recovery is None or found.recovery.status is not RunStatus.SUCCEEDED:
        return []
    if found.data_equal is None:
        return ["the data of both sides were not compared"]
    different = [each.table for each in found.data_equal.tables if each.different]
    if not found.data_equal.equal:
        return [f"the data of both sides are not equal: {', '.join(different)}"]
    run = found.switchback
    if run is None:
        return ["the hospital did not go home"]
    if run.status is not RunStatus.SUCCEEDED:
        return [f"going home ended {run.status}: `hmsdr run show {run.run}`"]
    undone = [step.title for step in run.plan.steps() if run.record(step.key).state is StepState.FAILED]
    return [f"not done on the way home: {title}" for title in undone]


def traffic_steps(run: RunState) -> tuple[TrafficStep, ...]:
    """The shares that were begun, as the run's journal has them."""
    found = []
    for planned in run.plan.steps():
        record = run.record(planned.key)
        if planned.action != _WATCH or record.started_at is None:
            continue
        output, held = record.output or {}, None
        if record.ended_at is not None:
            held = round((record.ended_at - record.started_at).total_seconds(), 3)
        found.append(
            TrafficStep(
                asked=int(planned.arguments["share"]),
                arrived=output.get("arrived"),
                held=held,
                home=dict(output.get("home") or {}),
                other=dict(output.get("other") or {}),
                verdict="good" if record.state is StepState.SUCCEEDED else str(record.state),
                found="" if record.error is None else str(record.error["found"]),
            )
        )
    return tuple(found)


def _failover_phase(found: Gathered) -> list[Phase]:
    """From the fault to the end of the run."""
    run = found.run
    if run is None:
        return []
    began = _utc(found.fault_at)
    seconds = None if run.ended_at is None else round((run.ended_at - began).total_seconds(), 3)
    return [Phase("failover", run.plan.title, began, seconds, str(run.status), run.run)]


def _felt_failures(found: Gathered, felt: Outage | None) -> list[str]:
    target = found.playbook.thresholds.targets.rto
    if felt is None:
        return ["no user noticed the fault: the clinics were not at work"]
    if felt.seconds is None:
        return ["users were not served again"]
    if felt.seconds > target.total_seconds():
        late = f"users waited {felt.seconds:.1f} s; the target is {format_duration(target)}"
        return [late, *_again(found, felt)]
    return _again(found, felt)


def _again(found: Gathered, felt: Outage) -> list[str]:
    """A second outage after the first was over: the RTO alone would not show it."""
    if felt.recovered_at is None:
        return []
    # From just after the recovery on: that request itself was a good one.
    later = outage(found.entries, since=math.nextafter(felt.recovered_at, math.inf))
    if later is None or later.failed < SUSTAINED:
        return []
    how = "for good" if later.seconds is None else f"for {later.seconds:.1f} s"
    return [f"users were cut off again {later.first_failed_at - felt.recovered_at:.1f} s later, {how}"]


def _lost_later(found: Gathered, lost: Collection[str]) -> int:
    """Lost writes that no lagging replica explains: whoever took them was alive after the fault."""
    missing = set(lost)
    return len(
        {
            entry.id
            for entry in acknowledged(found.entries)
            if entry.id in missing and entry.sent_at > found.fault_at + found.grace_seconds
        }
    )


def _rpo(found: Gathered, lost: Collection[str]) -> float:
    """How long a stretch of acknowledged writes was lost, in seconds; 0 when none was.

    From the oldest lost one, or the fault if that was before, to the fault, or the last lost one if that was later: a side that
    is cut off goes on acknowledging for a while.
    """
    missing = set(lost)
    times = [entry.ended_at for entry in acknowledged(found.entries) if entry.id in missing]
    if not times:
        return 0.0
    return max(found.fault_at, *times) - min(found.fault_at, *times)


def _thresholds(playbook: Playbook) -> dict[str, str]:
    figures = playbook.thresholds
    return {
        "region unreachable for": format_duration(figures.triggers.region_unreachable),
        "lease of the right to write": format_duration(playbook.database.lease),
        "sites that must agree": str(figures.verification.sites),
        "replication lag below": format_duration(figures.gates.replication_lag),
        "backup not older than": format_duration(figures.gates.backup_age),
        "RTO": format_duration(figures.targets.rto),
        "RPO": format_duration(figures.targets.rpo),
    }


def _stages(found: Gathered) -> list[Stage]:
    """The run's stages; detection begins with the fault, before there was a run."""
    if found.run is None:
        return []
    stages = []
    for planned in found.run.plan.stages:
        record = found.run.stages.get(planned.name)
        if record is None or record.started_at is None:
            continue
        started = _utc(found.fault_at) if planned.name == "detection" else record.started_at
        seconds = None if record.ended_at is None else (record.ended_at - started).total_seconds()
        stages.append(Stage(planned.name, planned.title, started, seconds, record.outcome or "not ended"))
    return stages


def _steps(run: RunState) -> list[Step]:
    steps = []
    for planned in run.plan.steps():
        record = run.record(planned.key)
        took = None
        if record.started_at is not None and record.ended_at is not None:
            took = (record.ended_at - record.started_at).total_seconds()
        failed = record.error is not None and record.state is not StepState.SUCCEEDED
        said = record.error["found"] if failed and record.error is not None else ""
        steps.append(Step(planned.key, planned.title, str(record.state), record.already, took, said))
    return steps


def _users(found: Gathered, felt: Outage | None) -> Users:
    bad = [entry for entry in found.entries if not entry.ok and entry.error not in HOSPITAL_ANSWERED]
    return Users(
        requests=len(found.entries),
        failed=len(bad),
        failed_before_fault=sum(entry.ended_at < found.fault_at for entry in bad),
        first_failed_at=None if felt is None else _utc(felt.first_failed_at),
        recovered_at=None if felt is None or felt.recovered_at is None else _utc(felt.recovered_at),
        width=BUCKET_SECONDS,
        moments=tuple(
            Moment(
                bucket.start - found.fault_at, bucket.requests, bucket.errors, bucket.p50_ms, bucket.p95_ms
            )
            for bucket in series(found.entries, BUCKET_SECONDS)
        ),
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
