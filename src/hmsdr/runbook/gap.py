"""What is known of the gap after a promotion, when the old primary cannot be asked: for the record of the run. Only looks."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.timelines import history
from hmsdr.drivers.errors import DriverError
from hmsdr.runbook.action import StepContext

_ASK_SECONDS = 0.5
"""Nothing depends on it: what does not answer at once is left out."""


async def known_gap(context: StepContext, region: str) -> dict[str, Any]:
    """Where the new timeline left the old one, and how far the old primary was beyond that when it was last seen from here.

    What it wrote since is known when it can be read again: `hmsdr reconcile`.
    """
    found: dict[str, Any] = {}
    with suppress(DriverError, ValueError):
        deadline = context.remaining(at_most=_ASK_SECONDS)
        timeline, text = await context.systems.postgres(region).timeline_history(deadline=deadline)
        forked = history(timeline, text)[-1].begins
        found = {"forked_at": format_lsn(forked)}
        seen = (await context.systems.agent(region).status(deadline=deadline)).replication
        if seen.primary_lsn is not None and seen.primary_seen_at is not None:
            age = (datetime.now(UTC) - seen.primary_seen_at).total_seconds()
            found["known_gap_bytes"] = max(0, seen.primary_lsn - forked)
            found["known_gap_age_seconds"] = round(age, 1)
    return found
