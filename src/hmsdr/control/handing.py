"""Which way a hand-over goes on that was begun and did not arrive: forward, or back to the side that gave (SAFETY rule 9).

It asks both agents and lets `hmsdr.decide.takeover.recipient` choose; it grants nothing and begins no run.
"""

from __future__ import annotations

import asyncio

from hmsdr.decide.authority import Authority
from hmsdr.decide.takeover import Side, recipient
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.runbook.systems import Systems

_ASK_SECONDS = 2.0


async def goes_back(systems: Systems, record: Authority, *, refused: bool = False) -> bool:
    """Whether the right is to be given back: who gave has everything and answers, and who was to receive lacks it or is silent.

    Args:
        systems: whose agents are asked, both at once, for two seconds at most.
        record: being handed over.
        refused: a gate keeps the way forward closed, whatever the other side has: then it counts as silent.
    """
    told = await asyncio.gather(*(_status(systems, region) for region in systems.playbook.regions))
    sides = [side for status in told if status is not None and (side := _side(record, status)) is not None]
    if refused:
        sides = [side for side in sides if side.instance != record.handover_to]
    chosen = recipient(record, sides, None)
    return chosen is not None and chosen.instance == record.handover_from


async def _status(systems: Systems, region: str) -> AgentStatus | None:
    try:
        return await systems.agent(region).status(deadline=_ASK_SECONDS)
    except DriverError:
        return None


def _side(record: Authority, status: AgentStatus) -> Side | None:
    """What one side has. Who gave is stopped and measures nothing: what its own receipt says counts, and no other's."""
    if status.instance != record.handover_from:
        lsn = status.database.lsn
    else:
        fence = status.fence
        lsn = fence.last_lsn if fence is not None and fence.clean and fence.epoch == record.epoch else None
    if lsn is None:
        return None
    return Side(status.instance, status.incarnation, record.data_epoch, lsn)
