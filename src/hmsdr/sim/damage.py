"""An agent's eyes for damage, simulated: what they see, how long a check takes. When one is due is the real core's to say.

A mirror of `hmsdr.control.inspection`, which reads logs and runs pg_amcheck; what is made of it by controllers and gates is real.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from hmsdr.control.database import Database as RealDatabase
from hmsdr.control.database import Role
from hmsdr.control.inspection import Inspection
from hmsdr.decide.soundness import DamageKind, needs_check
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import health_of
from hmsdr.drivers.errors import DriverError
from hmsdr.sim.database import Database

_LOOK_SECONDS = 1.0
_CHECK_SECONDS = 1.5


class Eyes(Inspection):
    """Those of one life of an agent; what they noted is on the database's disk."""

    def __init__(self, database: RealDatabase, peer: AgentClient, mine: Database) -> None:
        self.database, self._peer, self._mine = database, peer, mine
        self._checks = False

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            mine, other = self._mine, self._mine.other
            if self.database.role is Role.PRIMARY and mine.damaged:
                self._note()
            # Asked only where there is anything to hear: most worlds are never damaged.
            elif self.database.role is Role.STANDBY and other is not None and other.damaged:
                with suppress(DriverError):
                    await self._look_at_the_primary()

    async def give_way(self) -> None:
        """A check ends by itself."""

    def told(self) -> dict[str, Any]:
        """What the agent's status says."""
        lsn, timeline = self._mine.checked or (None, None)
        return {
            "signs": self._mine.signs,
            "checked_lsn": lsn,
            "checked_timeline": timeline,
            "checking": self._checks,
        }

    async def _look_at_the_primary(self) -> None:
        status = await self._peer.status(deadline=_LOOK_SECONDS)
        seen = self.database.meter.last
        if needs_check(health_of(self.told(), seen.timeline), seen.lsn, status.health):
            lsn, timeline = seen.lsn, seen.timeline
            self._checks = True
            await asyncio.sleep(_CHECK_SECONDS)
            self._checks = False
            if self._mine.damaged:
                self._note()
            elif lsn is not None and timeline is not None:
                self._mine.checked = lsn, timeline

    def _note(self) -> None:
        if not self._mine.signs:
            lsn = len(self._mine.rows)
            self._mine.signs.append(
                {"kind": str(DamageKind.INDEX), "where": "i", "since": "", "evidence": "", "lsn": lsn}
            )
