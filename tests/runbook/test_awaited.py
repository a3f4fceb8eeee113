"""What the run says while it waits for the right to write to be free."""

from __future__ import annotations

from hmsdr.runbook.actions.authority import awaited


def test_before_the_lease_has_run_out_it_says_how_long() -> None:
    assert awaited("us-east-1", 4.2, 50) == (
        "fence receipt from us-east-1, or 4.2 s until its lease has run out"
    )


def test_afterwards_it_does_not_count_at_nothing_but_says_until_when_a_receipt_is_waited_for() -> None:
    said = awaited("us-east-1", 0.0, 49.6)
    assert "0.0 s" not in said
    assert "at most 50 s" in said
