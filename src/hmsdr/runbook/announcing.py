"""Telling the stakeholders that switching back is planned (SW-1), with its steps and how long they take; it opens a gate, and moves nobody."""

from __future__ import annotations

from datetime import timedelta

from hmsdr.decide.homegoing import ANNOUNCED
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import Store
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.homecoming import WEIGH
from hmsdr.runbook.launch import Prepared, new_run_name
from hmsdr.runbook.systems import Systems
from hmsdr.runbook.team import Posted, tell

SWITCHBACK = "switchback"
"""The runbook of going home."""
_TELL_SECONDS = 10.0


async def announce(systems: Systems, store: Store, prepared: Prepared, *, by: str) -> Posted:
    """Tell the response team of what is planned, and note that it was told.

    Raises:
        HmsdrError: no channel took it, or it could not be noted.
    """
    text = _announcement(systems.playbook, prepared)
    posted = await tell(systems, text, f"{SWITCHBACK}/{new_run_name()}", seconds=lambda: _TELL_SECONDS)

    async def noted() -> list[NewEvent]:
        data = {"channel": posted.channel, "text": text}
        return [NewEvent(ANNOUNCED, prepared.plan.parameters["to"], by, data)]

    await append_after(store, noted, doing="noting that the switchback was announced")
    return posted


def shares_of(prepared: Prepared) -> list[int]:
    """The home region's shares of users, in per cent, that are still to come."""
    return [int(step.arguments["share"]) for step in prepared.plan.steps() if step.action == WEIGH]


def duration_of(playbook: Playbook, prepared: Prepared) -> timedelta:
    """How long the shares take when nothing has to be waited for: the baseline, then each with its TTL."""
    hold, shares = playbook.procedures.switchback.hold, shares_of(prepared)
    return hold + len(shares) * (hold + timedelta(seconds=playbook.traffic.ttl))


def _announcement(playbook: Playbook, prepared: Prepared) -> str:
    plan = prepared.plan
    home, other = plan.parameters["to"], plan.parameters["from"]
    shares = ", ".join(f"{share} %" for share in shares_of(prepared))
    return (
        f"{playbook.name}: switching back from {other} to {home} is planned. The database moves first: saving pauses for a moment. "
        f"Then users move in steps of {shares}, over about {format_duration(duration_of(playbook, prepared))}. "
        "Users are served all the while; if anything gets worse, they go back by themselves."
    )
