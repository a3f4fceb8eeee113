"""What an agent tells of itself and its database: for controllers, for people, for whoever routes to it. Asks; changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hmsdr.control.agent import Agent
from hmsdr.control.database import Role

_ASK_SECONDS = 0.5
_FRESH_SECONDS = 0.2


async def status(agent: Agent) -> dict[str, Any]:
    """What `GET /v1/status` answers.

    Raises:
        TemporaryError: it has just started and does not know yet what runs.
    """
    await agent.taken_over()
    database, state = agent.database, agent.memory.state
    measured = database.meter.last
    if database.role is not Role.STOPPED:
        measured = await database.meter.measure(
            primary=database.role is Role.PRIMARY, deadline=_ASK_SECONDS, not_older_than=_FRESH_SECONDS
        )
    running = database.server.pid() if database.role is not Role.STOPPED else None
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
            "held": agent.held or None,
        },
        "replication": {
            "streaming": measured.streaming,
            "lag_seconds": measured.lag_seconds,
            "lag_bytes": measured.lag_bytes,
            "measured_at": measured.measured_at.isoformat() if measured.measured_at else None,
        },
        "fence": asdict(state.fence) if state.fence is not None else None,
        "lease": {
            "held": agent.lease.seconds_left() > 0,
            "epoch": agent.lease.epoch,
            "seconds_left": round(agent.lease.seconds_left(), 3) if agent.lease.deadline else None,
        },
    }


def not_ready(agent: Agent) -> str:
    """Why its database serves nobody; empty when it runs, as a primary or as a standby."""
    if not agent.knows:
        return "the agent is just taking it over"
    if agent.database.role is Role.STOPPED:
        return agent.held or f"the database is {state_name(agent)}"
    return ""


def state_name(agent: Agent) -> str:
    """``absent``, ``stopped``, ``fenced``, or the role in which the database runs."""
    database, state = agent.database, agent.memory.state
    if not database.server.exists:
        return "absent"
    if database.role is not Role.STOPPED:
        return str(database.role)
    return "fenced" if state.stopped and state.fence is not None else "stopped"
