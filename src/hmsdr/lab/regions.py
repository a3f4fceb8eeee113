"""Asking a lab's agents, and giving the one order that a new lab needs: the first promotion. Decides no failover."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.lab.layout import Layout
from hmsdr.playbook.load import load


class Agents:
    """Clients of both agents, closed together."""

    def __init__(self, layout: Layout) -> None:
        playbook = load(layout.playbook)
        self._clients = {name: AgentClient(region.agent) for name, region in playbook.regions.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.close()

    async def status(self, region: str, *, deadline: float) -> AgentStatus | None:
        """What the agent of `region` says; None when it does not."""
        try:
            return await self._clients[region].status(deadline=deadline)
        except DriverError:
            return None

    async def first_promotion(self, region: str, *, deadline: float) -> bool:
        """Whether the database of `region` is the primary; promotes it once its agent holds the first grant."""
        found = await self.status(region, deadline=deadline)
        if found is None:
            return False
        if found.database.state == "primary":
            return True
        if found.lease.held and found.lease.epoch is not None and found.database.state == "standby":
            try:
                await self._clients[region].promote(epoch=found.lease.epoch, min_lsn=None, deadline=deadline)
            except DriverError:
                return False
            return True
        return False

    async def streams(self, region: str, *, deadline: float) -> bool:
        """Whether the standby of `region` streams, and its lag has been measured."""
        found = await self.status(region, deadline=deadline)
        return (
            found is not None
            and found.database.state == "standby"
            and found.replication.streaming
            and found.replication.measured_at is not None
        )
