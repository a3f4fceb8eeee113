"""The prerequisites of a failover as gates (FM-1): what was observed, what is allowed, and whether it passes. Pure.

A gate that cannot be judged does not pass: silence is not health. Overruling one takes a named person and a
reason; that is recorded elsewhere, and changes nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from hmsdr.playbook.base import format_duration
from hmsdr.playbook.thresholds import Gates


class GateState(StrEnum):
    """Verdict of a gate."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class GateName(StrEnum):
    """The four prerequisites of the playbook, and those of switching back."""

    SECONDARY_HEALTHY = "secondary-healthy"
    REPLICATION_LAG = "replication-lag"
    BACKUPS_CURRENT = "backups-current"
    ROLLBACK_PLAN = "rollback-plan"
    # Of switching back alone (SW-1); `hmsdr.decide.homegoing` judges them.
    PRIMARY_STABLE = "primary-stable"
    DATA_EQUAL = "data-equal"
    STEPS_PLANNED = "steps-planned"
    STAKEHOLDERS_TOLD = "stakeholders-told"
    GUARD_SEES = "guard-sees"


class RecoveryGate(StrEnum):
    """What has to hold before a lost region is recovered (RC-1)."""

    PRIMARY_WRITES = "primary-writes"
    INFRASTRUCTURE = "infrastructure"
    CONNECTIVITY = "connectivity"
    SLOT = "slot"
    RECOVERY_PLAN = "recovery-plan"


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate. `observed` and `limit` are for people; `remedy` says what to do when it does not pass."""

    name: GateName | RecoveryGate
    state: GateState
    observed: str
    limit: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class GapSeen:
    """By how many bytes of WAL the primary was ahead of what the standby has now, when it was last seen, `age` ago."""

    bytes: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class LagSeen:
    """Replication lag: `live`, or the last that was measured, `age` ago.

    `primary_answers` although the lag is not live: then the stream is broken, and how far behind the standby is by now,
    the last measurement does not tell.
    """

    seconds: float | None
    bytes: int | None
    live: bool
    age: timedelta
    primary_answers: bool = False
    gap: GapSeen | None = None


@dataclass(frozen=True, slots=True)
class BackupSeen:
    """The newest backup that outlives its region: its name, its size in bytes, its age.

    Where there is no copy elsewhere, `only_in` is the region that alone has one; `unseen` is why the copy could not be seen.
    """

    name: str
    size: int
    age: timedelta
    only_in: str = ""
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class Observations:
    """What was seen before the decision. None means that it could not be seen, and why is in `problems`."""

    target: str
    healthy: bool | None
    health: str
    lag: LagSeen | None
    backup: BackupSeen | None
    rollback: str | None
    problems: Sequence[tuple[GateName, str]] = ()


def evaluate(seen: Observations, limits: Gates) -> tuple[Gate, ...]:
    """All four gates, in the playbook's order."""
    problems = dict(seen.problems)
    return (
        _healthy(seen),
        _lag(seen.lag, limits, problems.get(GateName.REPLICATION_LAG)),
        backup_gate(seen.backup, limits, problems.get(GateName.BACKUPS_CURRENT)),
        _rollback(seen.rollback),
    )


def refusing(gates: Sequence[Gate], overridden: Sequence[str] = ()) -> tuple[Gate, ...]:
    """The gates that forbid the failover."""
    return tuple(gate for gate in gates if gate.state is not GateState.PASSED and gate.name not in overridden)


def _healthy(seen: Observations) -> Gate:
    state = {True: GateState.PASSED, False: GateState.FAILED, None: GateState.UNKNOWN}[seen.healthy]
    return Gate(
        GateName.SECONDARY_HEALTHY,
        state,
        seen.health,
        f"{seen.target} answers: database, agent, Kubernetes and what it would serve with",
        ""
        if state is GateState.PASSED
        else f"Repair {seen.target} first, or accept by name and with a reason what it lacks. If only its database does not follow: "
        f"`hmsdr follow {seen.target}`",
    )


def _lag(lag: LagSeen | None, limits: Gates, problem: str | None) -> Gate:
    limit = f"below {format_duration(limits.replication_lag)}"
    gap = None if lag is None or lag.live else lag.gap
    if lag is None or lag.seconds is None:
        return Gate(
            GateName.REPLICATION_LAG,
            GateState.UNKNOWN,
            (problem or "not measurable") + _gap(gap),
            limit,
            "Find out what would be lost, or overrule this gate by name with a reason",
        )
    amount = f"{lag.seconds:.1f} s" + ("" if lag.bytes is None else f", {lag.bytes} bytes")
    age = lag.age.total_seconds()
    if not lag.live and lag.primary_answers:
        return Gate(
            GateName.REPLICATION_LAG,
            GateState.UNKNOWN,
            f"not measurable: the primary answers, but the standby does not stream from it ({amount}, {age:.0f} s ago)",
            limit,
            "Mend replication: what was written since would be lost, and a hand-over could not be finished",
        )
    observed = amount if lag.live else f"{amount}, last measured {age:.0f} s ago: the primary does not answer"
    observed += _gap(gap)
    if not lag.live and lag.age > limits.last_known_lag_age:
        return Gate(
            GateName.REPLICATION_LAG,
            GateState.UNKNOWN,
            observed,
            f"{limit}, measured at most {format_duration(limits.last_known_lag_age)} ago",
            "The last measurement is too old to tell what would be lost; overrule this gate by name with a reason",
        )
    within = lag.seconds < limits.replication_lag.total_seconds()
    if lag.bytes is not None:
        within = within and lag.bytes <= limits.replication_lag_bytes
    if gap is not None:
        within = within and gap.bytes <= limits.replication_lag_bytes
    return Gate(
        GateName.REPLICATION_LAG,
        GateState.PASSED if within else GateState.FAILED,
        observed,
        f"{limit}, at most {limits.replication_lag_bytes} bytes",
        "" if within else "Wait until the standby has caught up, or accept the loss by name with a reason",
    )


def _gap(gap: GapSeen | None) -> str:
    if gap is None:
        return ""
    age = gap.age.total_seconds()
    return f"; last known gap {gap.bytes} bytes, {age:.0f} s ago: what it wrote since is not known"


def backup_gate(backup: BackupSeen | None, limits: Gates, problem: str | None) -> Gate:
    """Whether a current backup is there, and would be without its region (decision 6: none may live only there)."""

    def judged(state: GateState, observed: str, remedy: str = "") -> Gate:
        limit = f"not older than {format_duration(limits.backup_age)}"
        return Gate(GateName.BACKUPS_CURRENT, state, observed, limit, remedy)

    if backup is None:
        state = GateState.UNKNOWN if problem else GateState.FAILED
        return judged(state, problem or "no backup", "Make a backup first")
    hours = backup.age.total_seconds() / 3600
    observed = f"{backup.name}, {backup.size} bytes, {hours:.1f} h old"
    # An age below zero is a clock or a name that is wrong: then nothing is known about how current it is.
    if backup.age < timedelta(minutes=-5):
        return judged(GateState.UNKNOWN, observed, "Its date is in the future: set the clocks, or remove it")
    if backup.age > limits.backup_age:
        return judged(GateState.FAILED, observed, "Make a backup first")
    if backup.unseen:
        found = f"{observed}, in {backup.only_in} itself; whether there is a copy elsewhere is not known: {backup.unseen}"
        return judged(GateState.UNKNOWN, found, "See that the bucket with the copies answers")
    if backup.only_in:
        found = f"{observed}, in {backup.only_in} itself and nowhere else"
        return judged(
            GateState.FAILED, found, f"Copy it elsewhere: what survives may not depend on {backup.only_in}"
        )
    return judged(GateState.PASSED, observed)


def _rollback(rollback: str | None) -> Gate:
    if rollback is None:
        return Gate(
            GateName.ROLLBACK_PLAN, GateState.FAILED, "none", "a plan that can be executed", "Name one"
        )
    return Gate(GateName.ROLLBACK_PLAN, GateState.PASSED, rollback, "a plan that can be executed")
