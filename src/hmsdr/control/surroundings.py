"""What surrounds an agent besides its server and the store: disk, guard, peer, connections; made from its configuration.

The one place where these are chosen, so that the very same agent runs in a simulated world, which has its own. No policy.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from hmsdr.control.config import AgentConfig
from hmsdr.control.guarding import Guarding
from hmsdr.control.relaying import boot_id
from hmsdr.control.state import StateFile, Upstream
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.postgres import Postgres
from hmsdr.log.store import EventLog

if TYPE_CHECKING:
    from hmsdr.control.database import Database
    from hmsdr.control.inspection import Inspection
    from hmsdr.control.rebuilding import Restore
    from hmsdr.control.recovering import Recovering
    from hmsdr.control.rejoining import Rejoining
    from hmsdr.control.sighting import PrimarySightings
    from hmsdr.control.slots import LostSlotKeeper


class Surroundings:
    """Those of one life of the agent that `config` tells of; `restore` restores backups, None where that is not possible."""

    def __init__(self, config: AgentConfig, restore: Restore | None = None) -> None:
        self.config = config
        self._restore = restore

    def life(self) -> str:
        """A name for this life of the agent: its incarnation."""
        return uuid.uuid4().hex[:12]

    def boot(self) -> str:
        """Name of this boot of the machine."""
        return boot_id()

    def memory(self) -> StateFile:
        """What outlives it."""
        return StateFile(self.config.state_directory / "agent.json", self.config.instance.instance)

    def guarding(self, owner: tuple[int, int] | None) -> Guarding:
        """The guard over its database, whose processes are those of `owner`."""
        config = self.config
        return Guarding(
            config.state_directory / "guard.map", config.data_directory, owner, config.guard_command
        )

    def peer(self) -> AgentClient:
        """The other region's agent."""
        return AgentClient(self.config.peer)

    def sql(self) -> Postgres:
        """Its database, on a connection that is kept open."""
        return Postgres(self.config.instance, host=self.config.local_host, warm=True)

    def own_connection(self) -> Postgres:
        """Its database, on a connection of its own for each question: for what may take long."""
        return Postgres(self.config.instance, host=self.config.local_host)

    def primary(self, upstream: Upstream) -> Postgres:
        """The database that it follows, or is to follow."""
        return Postgres(
            self.config.instance.model_copy(update={"host": upstream.host, "port": upstream.port})
        )

    def inspection(self, database: Database, peer: AgentClient) -> Inspection:
        """Its eyes for damage."""
        from hmsdr.control.inspection import Inspection  # noqa: PLC0415 - it builds on `Database`, which builds on this

        return Inspection(database, peer)

    def lost_slot(self, database: Database) -> LostSlotKeeper:
        """Keeper of the slot from which lost rows can be decoded."""
        from hmsdr.control.slots import LostSlotKeeper  # noqa: PLC0415

        return LostSlotKeeper(database)

    def sightings(self, database: Database, peer: AgentClient) -> PrimarySightings:
        """What it sees of the primary while it is a standby."""
        from hmsdr.control.sighting import PrimarySightings  # noqa: PLC0415

        return PrimarySightings(database, peer, self.config.state_directory / "primary.json")

    def rejoining(
        self,
        database: Database,
        lock: asyncio.Lock,
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        journal: EventLog | None,
    ) -> Rejoining:
        """The way back of its database."""
        from hmsdr.control.rejoining import Rejoining  # noqa: PLC0415

        return Rejoining(database, lock, wake, spawn, journal)

    def recovering(
        self,
        database: Database,
        lock: asyncio.Lock,
        rejoining: Rejoining,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> Recovering:
        """The recoveries of its database."""
        from hmsdr.control.recovering import Recovering  # noqa: PLC0415

        return Recovering(database, lock, rejoining, spawn, self._restore)
