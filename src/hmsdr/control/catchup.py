"""A standby catches up with its primary: how far it is, how long the rest takes, and that it does not stand still. It only looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hmsdr.control.database import Database
from hmsdr.control.proctable import boottime
from hmsdr.control.state import Upstream
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import FailedError

STALLED_SECONDS = 60.0
_ASK_SECONDS = 3.0
_PAUSE = 0.2
_CLOSE = 1024 * 1024
"""Bytes behind a primary that goes on writing, with which it has caught up."""
_WORTH_A_RATE = 32 * 1024 * 1024


class CatchUp:
    """One catching up.

    Args:
        database: the standby.
        upstream: its primary.
        progress: told from 0 to 1.
    """

    def __init__(self, database: Database, upstream: Upstream, progress: Callable[[float], None]) -> None:
        self._database = database
        self._upstream = upstream
        self._progress = progress

    async def run(self) -> float | None:
        """Return when it streams and has what the primary had; gives bytes of WAL a second, when enough was replayed to tell.

        Raises:
            FailedError: it stood still for `STALLED_SECONDS`.
        """
        database = self._database
        primary = database.around.primary(self._upstream)
        first: int | None = None
        last, moved, began, found = -1, boottime(), boottime(), ""
        while True:
            measured = await database.meter.measure(primary=False, deadline=_ASK_SECONDS)
            status = None
            try:
                status = await primary.status(deadline=_ASK_SECONDS)
                found = status.found
            except DriverError as error:
                found = error.found
            lsn = measured.lsn or 0
            if lsn > last:
                last, moved = lsn, boottime()
            first = lsn if first is None and lsn else first
            if status is not None and status.lsn is not None and first is not None:
                self._progress(_part(first, lsn, status.lsn))
                if measured.streaming and status.lsn - lsn <= _CLOSE:
                    took = max(boottime() - began, 0.001)
                    return (lsn - first) / took if lsn - first >= _WORTH_A_RATE else None
            if boottime() - moved > STALLED_SECONDS and not measured.streaming:
                raise await self._stalled(last, found)
            await asyncio.sleep(_PAUSE)

    async def _stalled(self, at: int, found: str) -> FailedError:
        """Why it does not stream, as far as anybody can tell."""
        kept = ""
        try:
            slots = await self._database.around.primary(self._upstream).slots(deadline=_ASK_SECONDS)
            ours = next((slot for slot in slots if slot.name == self._upstream.slot), None)
            kept = (
                f"the primary has no slot {self._upstream.slot}"
                if ours is None
                else f"slot {ours.name} is {'in use' if ours.active else 'not in use'}, its WAL {ours.wal_status}"
            )
        except DriverError as error:
            kept = error.found
        words = f"it stands at {format_lsn(max(at, 0))} for {STALLED_SECONDS:g} s and does not stream; {found or kept}"
        said = self._database.server.last_words(2)
        return FailedError(
            f"catching up with {self._upstream.host}:{self._upstream.port}",
            f"{words}; its log ends: {said}",
            f"Plan again: `hmsdr plan recover {self._database.config.region}`",
        )


def _part(first: int, now: int, wanted: int) -> float:
    return 1.0 if wanted <= first else min(1.0, max(0.0, (now - first) / (wanted - first)))
