"""The slot on the primary from which lost rows can be decoded after a failover: kept, and moved on with the standby.

One for each epoch, since what an earlier one knows of the catalogue is not of this history. Never a reason to stop or
refuse anything: what goes wrong here is said, and tried again. It holds no more WAL than `max_slot_wal_keep_size`. On a standby
nothing is kept: also the slot goes that the other side had here.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from hmsdr.control.database import Database, Role
from hmsdr.control.logs import log
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_questions import LOST_PREFIX, LostSlot

_ASK_SECONDS = 2.0
_CREATE_SECONDS = 300.0
"""A new slot waits for the end of every transaction that is under way."""
_ADVANCE_SECONDS = 60.0
_PAUSE = 1.0
_SHARE = 20
"""Advancing reads WAL: it may take a twentieth of the time."""


class LostSlotKeeper:
    """Keeps the slot of one database, on a connection of its own: the warm one stays free for what cannot wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = Postgres(database.config.instance, host=database.config.local_host, warm=True)
        self._advance_at = 0.0
        self._said = ""
        self._soon = asyncio.Event()
        self.kept: LostSlot | None = None
        """As last seen; None when there is none that can be used."""

    async def run(self) -> None:
        """Keep it for ever."""
        try:
            while True:
                self._soon.clear()
                try:
                    await self._once(self._database.role)
                except DriverError as error:
                    self.kept = None
                    self._say(error.found)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._soon.wait(), _PAUSE)
        finally:
            await self._sql.close()

    def soon(self) -> None:
        """Look at once: it is the primary now, and what it commits before there is a slot could not be decoded."""
        self._soon.set()

    async def _once(self, role: Role) -> None:
        if role is Role.STOPPED:
            self.kept = None
            await self._sql.close()
        elif role is Role.PRIMARY:
            await self._as_primary()
        else:
            self.kept = None
            if self._database.meter.last.streaming:  # then nothing that it committed alone can be missing
                for slot in await self._seen():
                    await self._sql.drop_slot(slot.name, deadline=_ASK_SECONDS)
                # The one through which the other side followed when this was the primary: nobody moves it on any more, and the
                # WAL that it keeps would fill the disk. A promotion makes it again.
                if await self._sql.drop_unused_slot(self._database.config.other_slot, deadline=_ASK_SECONDS):
                    log("slot.dropped", slot=self._database.config.other_slot)

    async def _as_primary(self) -> None:
        name = f"{LOST_PREFIX}{self._database.memory.state.promoted_epoch}"
        ours: LostSlot | None = None
        for slot in await self._seen():
            if slot.name == name and slot.usable:
                ours = slot
                continue
            if slot.active:
                return
            if slot.name == name:
                log("lost.slot_invalid", level="error", slot=name, found="its WAL was not kept: made again")
            await self._sql.drop_slot(slot.name, deadline=_ASK_SECONDS)
        self.kept = ours
        if ours is None:
            await self._sql.create_lost_slot(name, deadline=_CREATE_SECONDS)
            self._said = ""
            log("lost.slot_made", slot=name)
            self._soon.set()
        elif not ours.active:
            await self._advance(ours)

    async def _advance(self, slot: LostSlot) -> None:
        """Up to what the standby has replayed. What it has only received may end within a record, a commit's say."""
        target = slot.standby_has
        if target is None or slot.decodes_from is None or target <= slot.decodes_from:
            return
        began = time.monotonic()
        if began < self._advance_at:
            return
        try:
            await self._sql.advance_slot(slot.name, target, deadline=_ADVANCE_SECONDS)
        finally:
            self._advance_at = time.monotonic() + _SHARE * (time.monotonic() - began)

    async def _seen(self) -> tuple[LostSlot, ...]:
        return await self._sql.lost_slots(self._database.config.other_slot, deadline=_ASK_SECONDS)

    def _say(self, found: str) -> None:
        """Once, not each second."""
        if found != self._said:
            self._said = found
            log("lost.slot_not_kept", level="warning", found=found)

    def status(self) -> dict[str, object]:
        """For `GET /v1/status`."""
        kept = self.kept
        if kept is None or kept.decodes_from is None:
            return {"name": None, "decodes_from": None}
        return {"name": kept.name, "decodes_from": format_lsn(kept.decodes_from)}
