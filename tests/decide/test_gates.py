"""The gates of FM-1: each passes, fails, and is unknown for the right reason."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hmsdr.decide.gates import (
    BackupSeen,
    GapSeen,
    Gate,
    GateName,
    GateState,
    LagSeen,
    Observations,
    evaluate,
    refusing,
)
from hmsdr.playbook.thresholds import Gates

LIMITS = Gates.model_validate(
    {
        "replication_lag": "30s",
        "replication_lag_bytes": 1000,
        "last_known_lag_age": "10m",
        "backup_age": "24h",
    }
)
NOW = timedelta(0)


def gates(**change: object) -> dict[GateName, Gate]:
    values: dict[str, object] = {
        "target": "us-west-2",
        "healthy": True,
        "health": "standby",
        "lag": LagSeen(1.0, 10, live=True, age=NOW),
        "backup": BackupSeen("base", 5, timedelta(hours=2)),
        "rollback": "regional-failover back",
    }
    return {GateName(gate.name): gate for gate in evaluate(Observations(**{**values, **change}), LIMITS)}  # type: ignore[arg-type]


def test_all_is_well() -> None:
    assert not refusing(list(gates().values()))


@pytest.mark.parametrize(
    ("name", "change", "state"),
    [
        ("secondary-healthy", {"healthy": False}, "failed"),
        ("secondary-healthy", {"healthy": None}, "unknown"),
        ("replication-lag", {"lag": None}, "unknown"),
        ("replication-lag", {"lag": LagSeen(None, 10, live=True, age=NOW)}, "unknown"),
        ("replication-lag", {"lag": LagSeen(30.0, 10, live=True, age=NOW)}, "failed"),
        ("replication-lag", {"lag": LagSeen(1.0, 1001, live=True, age=NOW)}, "failed"),
        ("replication-lag", {"lag": LagSeen(1.0, 10, live=False, age=timedelta(minutes=11))}, "unknown"),
        ("replication-lag", {"lag": LagSeen(1.0, 10, live=False, age=timedelta(minutes=9))}, "passed"),
        ("replication-lag", {"lag": LagSeen(31.0, 10, live=False, age=timedelta(minutes=9))}, "failed"),
        ("backups-current", {"backup": None}, "failed"),
        (
            "backups-current",
            {"backup": None, "problems": [(GateName.BACKUPS_CURRENT, "S3 is away")]},
            "unknown",
        ),
        ("backups-current", {"backup": BackupSeen("old", 5, timedelta(hours=25))}, "failed"),
        ("backups-current", {"backup": BackupSeen("new", 5, timedelta(hours=-2))}, "unknown"),
        ("backups-current", {"backup": BackupSeen("b", 5, NOW, only_in="us-east-1")}, "failed"),
        (
            "backups-current",
            {"backup": BackupSeen("b", 5, NOW, only_in="us-east-1", unseen="S3 is away")},
            "unknown",
        ),
        ("rollback-plan", {"rollback": None}, "failed"),
    ],
)
def test_a_gate_says_what_was_observed_and_what_to_do(
    name: str, change: dict[str, object], state: str
) -> None:
    gate = gates(**change)[GateName(name)]
    assert gate.state == state
    assert gate.observed
    if gate.state is not GateState.PASSED:
        assert gate.remedy
        assert refusing([gate])
        assert not refusing([gate], overridden=[name])


def test_the_last_known_gap_is_shown_with_its_age_and_counts() -> None:
    """The stream broke long before the primary died: the last lag says little, and the other agent's word more."""
    lag = LagSeen(0.2, 10, live=False, age=timedelta(minutes=9), gap=GapSeen(900, timedelta(seconds=3)))
    gate = gates(lag=lag)[GateName.REPLICATION_LAG]
    assert gate.state is GateState.PASSED
    assert "last measured 540 s ago" in gate.observed
    assert "last known gap 900 bytes, 3 s ago" in gate.observed
    wide = LagSeen(0.2, 10, live=False, age=timedelta(minutes=9), gap=GapSeen(1001, timedelta(seconds=3)))
    assert gates(lag=wide)[GateName.REPLICATION_LAG].state is GateState.FAILED
    alive = LagSeen(0.2, 10, live=True, age=NOW, gap=GapSeen(1001, timedelta(seconds=3)))
    assert "gap" not in gates(lag=alive)[GateName.REPLICATION_LAG].observed
    alone = LagSeen(None, None, live=False, age=NOW, gap=GapSeen(900, timedelta(seconds=3)))
    unknown = gates(lag=alone)[GateName.REPLICATION_LAG]
    assert (unknown.state, "not measurable; last known gap 900 bytes, 3 s ago" in unknown.observed) == (
        GateState.UNKNOWN,
        True,
    )
