"""The alerts of one controller: those of the hospital, which whoever leads raises by the log, and this site's about the store itself.

What is the matter with the store cannot be written into it, so each site says that for itself, by a log of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hmsdr.control.alarms import Alarms, catch_up
from hmsdr.control.conditions import conditions
from hmsdr.control.proctable import boottime
from hmsdr.control.watch import fresh
from hmsdr.decide.alerts import Condition
from hmsdr.log.events import Event
from hmsdr.log.store import EventLog, Store
from hmsdr.runbook.systems import Systems

if TYPE_CHECKING:
    from hmsdr.control.controller import Controller


class SiteAlarms:
    """Both kinds.

    Args:
        controller: whose.
        store: the store across sites.
        own: this site's log; None: nobody is told of the store.
    """

    def __init__(self, controller: Controller, store: Store, own: EventLog | None) -> None:
        self._controller = controller
        self._own_log = own
        playbook = controller.playbook
        self._systems = Systems(playbook, store)
        self._patience = playbook.thresholds.verification.deadline.total_seconds()
        self._began = boottime()
        interval = playbook.thresholds.probing.interval.total_seconds()
        clear = playbook.thresholds.triggers.critical_services_recovery.total_seconds()
        self.shared = Alarms(
            store, self._systems, controller.name, self._of_hospital, interval=interval, clear=clear
        )
        self.own = (
            None
            if own is None
            else Alarms(own, self._systems, controller.name, self._of_store, interval=interval, clear=clear)
        )

    def take(self, events: Iterable[Event]) -> None:
        """What was appended to the shared log."""
        self.shared.take(events)

    async def run(self) -> None:
        """Look and tell, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.shared.run())
                if self.own is not None and self._own_log is not None:
                    await catch_up(self.own, self._own_log)
                    group.create_task(self.own.run())
        finally:
            await self._systems.close()

    def as_json(self) -> list[dict[str, Any]]:
        """For `/v1/view`: what is open, or not told yet."""
        return [*self.shared.as_json(), *(self.own.as_json() if self.own is not None else ())]

    def _of_hospital(self) -> list[Condition] | None:
        facts = self._controller.facts()
        return None if facts is None else conditions(facts)

    def _of_store(self) -> list[Condition]:
        controller, standing = self._controller, self._controller.standing
        since = self._began if standing.answered_at is None else standing.answered_at
        silent = boottime() - since
        return [
            Condition(
                f"store-full/{controller.site}",
                standing.store_full,
                "etcd has no space left: no right to write can be renewed, and the hospital stops writing with its lease",
                "Compact, `etcdctl defrag`, `etcdctl alarm disarm`: docs/etcd.md",
            ),
            Condition(
                f"store-silent/{controller.site}",
                silent > fresh(controller.playbook) and not standing.store_full,
                f"The store does not answer the controller at {controller.site}: it can neither vote nor lead",
                "`etcdctl endpoint status --cluster`; look at the way from that site to etcd",
                self._patience,
            ),
        ]
