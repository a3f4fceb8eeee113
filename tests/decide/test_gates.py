"""The gates of FM-1: each passes, fails, and is unknown for the right reason."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hmsdr.decide.gates import (
    BackupSeen,
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
    return {gate.name: gate for gate in evaluate(Observations(**{**values, **change}), LIMITS)}  # type: ignore[arg-type]


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
