"""An agent's gauges: what is known is told, what is not known is left out."""

from __future__ import annotations

from typing import Any

from hmsdr.control.metrics import exposition

STATUS: dict[str, Any] = {
    "accepted_epoch": 3,
    "database": {"state": "standby", "lsn": 4096},
    "replication": {"streaming": True, "lag_seconds": 0.5, "lag_bytes": None},
    "lost_slot": {"name": "hmsdr_lost_3", "decodes_from": "0/3000148"},
    "lease": {"held": False, "seconds_left": None},
}


def test_a_standby_tells_how_far_behind_it_is() -> None:
    lines = exposition(STATUS).decode().splitlines()
    assert 'hmsdr_database_state{state="standby"} 1.0' in lines
    assert 'hmsdr_database_state{state="primary"} 0.0' in lines
    assert "hmsdr_replication_streaming 1.0" in lines
    assert "hmsdr_replication_lag_seconds 0.5" in lines
    assert "hmsdr_accepted_epoch 3.0" in lines
    assert "hmsdr_lease_held 0.0" in lines
    assert not [line for line in lines if "lag_bytes" in line or "seconds_left" in line], "unknown is not 0"


def test_a_primary_follows_nobody() -> None:
    status = {
        **STATUS,
        "database": {"state": "primary", "lsn": 1},
        "lease": {"held": True, "seconds_left": 2.5},
    }
    text = exposition(status).decode()
    assert "replication" not in text
    assert "hmsdr_lease_seconds_left 2.5" in text
    assert "hmsdr_lost_slot_kept 1.0" in text
