"""What an agent tells of itself and its database: for controllers, for people, for whoever routes to it. It measures, and changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hmsdr.control.database import Role
from hmsdr.drivers.errors import TemporaryError

if TYPE_CHECKING:
    from hmsdr.control.agent import Agent

_BOOT_SECONDS = 3.0


async def status(agent: Agent) -> dict[str, Any]:
    """What `GET /v1/status` answers.

    Raises:
        TemporaryError: it has just started and does not know yet what runs.
    """
    if not agent.booted.is_set():
        try:
            await asyncio.wait_for(agent.booted.wait(), _BOOT_SECONDS)
        except TimeoutError as error:
            raise TemporaryError(
                f"looking at {agent.holder.instance}",
                "the agent is just taking it over",
                "Ask again in a moment",
            ) from error
    database, state, lease = agent.database, agent.memory.state, agent.lease
    up, primary = database.role is not Role.STOPPED, database.role is Role.PRIMARY
    measured = await database.meter.glance(primary=primary) if up else database.meter.last
    running = database.server.pid() if up else None
    return {
        "region": agent.config.region,
        "instance": agent.holder.instance,
        "incarnation": agent.holder.incarnation,
        "accepted_epoch": state.accepted_epoch,
        "database": {
            "state": state_name(agent),
            "pid": running,
            "lsn": measured.lsn,
            "timeline": measured.timeline,
            "held": database.held or None,
        },
        "replication": {
            "streaming": measured.streaming,
            "lag_seconds": measured.lag_seconds,
            "lag_bytes": measured.lag_bytes,
            "measured_at": measured.measured_at.isoformat() if measured.measured_at else None,
            **agent.primary.status(),
        },
        "lost_slot": agent.lost_slot.status(),
        "damage": agent.inspection.told(),
        "recovery": agent.recovering.told(),
        "fence": asdict(state.fence) if state.fence is not None else None,
        "lease": {
            "held": lease.seconds_left() > 0,
            "epoch": lease.epoch,
            "seconds_left": round(lease.seconds_left(), 3) if lease.deadline else None,
        },
    }


def not_ready(agent: Agent) -> str:
    """Why its database serves nobody; empty when it runs, as a primary or as a standby."""
    if not agent.booted.is_set():
        return "the agent is just taking it over"
    if agent.database.role is Role.STOPPED:
        return agent.database.held or f"the database is {state_name(agent)}"
    return ""


def state_name(agent: Agent) -> str:
    """``absent``, ``stopped``, ``fenced``, or the role in which the database runs."""
    database, state = agent.database, agent.memory.state
    if not database.server.exists:
        return "absent"
    if database.role is not Role.STOPPED:
        return str(database.role)
    return "fenced" if state.stopped and state.fence is not None else "stopped"
