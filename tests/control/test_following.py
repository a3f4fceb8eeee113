"""What a report says of a decision: the playbook's hold-down, and how long it had been seen, are two things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hmsdr.control.chronicle import DECIDED
from hmsdr.control.following import decided_in
from hmsdr.log.events import Event

AT = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def test_the_hold_down_is_the_playbooks_and_how_long_it_was_seen_is_the_longest() -> None:
    data = {
        "kind": "region-unreachable",
        "hold_down_seconds": 5.0,
        "finding": {"lost": ["us-west-2", "us-east-2"]},
        "said": {
            "us-west-2": {"lost_for": 5.9, "evidence": {"agent": "refused"}},
            "us-east-2": {"lost_for": 6.4, "evidence": {"agent": "silent"}},
            "us-east-1": {"lost_for": 99.0, "evidence": {}},
        },
    }
    told = decided_in(Event(1, AT, 1, DECIDED, "us-east-1", "controller", data, "", ""))
    assert (told["hold_down_seconds"], told["seen_seconds"]) == (5.0, 6.4)
    assert told["decided_at"] == AT.isoformat()
    assert told["unreachable_since"] == (AT - timedelta(seconds=6.4)).isoformat()
    assert told["evidence"]["agent, seen from us-east-2"] == "silent"


def test_what_has_no_hold_down_says_none() -> None:
    told = decided_in(
        Event(1, AT, 1, DECIDED, "us-east-1", "Ada Quill", {"kind": "disaster-declared"}, "", "")
    )
    assert told["hold_down_seconds"] is None
