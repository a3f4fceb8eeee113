"""What a controller works with besides the store: its eyes and hands, made from the playbook. No policy.

The one place where these are chosen, so that the very same controller runs in a simulated world, which has its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from hmsdr.control.facets import Answer, Seen
from hmsdr.control.site_alarms import SiteAlarms
from hmsdr.control.view import View
from hmsdr.log.store import EventLog, Store
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import REGIONAL
from hmsdr.runbook.systems import Systems

if TYPE_CHECKING:
    from hmsdr.control.controller import Controller


class Means:
    """Those of one life of a controller.

    Args:
        playbook: the hospital's.
        store: the store across sites.
    """

    runbook = REGIONAL
    """By which a failover is carried out."""

    def __init__(self, playbook: Playbook, store: Store) -> None:
        self._playbook = playbook
        self._store = store

    def life(self) -> str:
        """A name for this life."""
        return uuid.uuid4().hex[:8]

    def systems(self) -> Systems:
        """Drivers of its own."""
        return Systems(self._playbook, self._store)

    def view(self, on_change: Callable[[str, str, Answer | None, Seen], None]) -> View:
        """What it sees besides what triggers, with drivers of its own."""
        return View(self.systems(), on_change)

    def alarms(self, controller: Controller, own: EventLog | None) -> SiteAlarms:
        """How `controller` tells people, with drivers of its own; `own` is its site's log, for alerts about the store itself."""
        return SiteAlarms(controller, self._store, own)
