"""What the agent knows of its database without asking it: role, position, and how far a standby is behind.

Measured each second and on demand. When the stream breaks, the last figures stay, with the time they are of:
a failover is decided on them. It changes nothing but the primary's heartbeat row.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hmsdr.control.proctable import boottime
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.drivers.postgres import Postgres

_FRESH_SECONDS = 0.02
"""How old the figures of a status may be: a hand-over waits for the newest, and asking many times a second is cheap."""
_LOOK_SECONDS, _AT_ONCE_SECONDS = 0.5, 0.15


@dataclass(frozen=True, slots=True)
class Measured:
    """The last measurement. ``measured_at`` (UTC) belongs to the lag only."""

    lsn: int | None = None
    timeline: int | None = None
    in_recovery: bool | None = None
    streaming: bool = False
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    measured_at: datetime | None = None


class Meter:
    """Keeps the last `Measured` of one server."""

    def __init__(self, sql: Postgres) -> None:
        self.last = Measured()
        self._sql = sql
        self._at = 0.0
        self._heartbeats = True
        self._looking: asyncio.Task[Measured] | None = None

    def stream_gone(self) -> None:
        """The server is down: nothing streams."""
        self.last = replace(self.last, streaming=False)

    async def measure(self, *, primary: bool, deadline: float, not_older_than: float = 0.0) -> Measured:
        """Measure, unless the last one is younger than `not_older_than` seconds; a silent server changes no lag."""
        if boottime() - self._at < not_older_than:
            return self.last
        status = None
        with suppress(DriverError):
            status = await self._sql.status(deadline=deadline)
        if status is None or not status.reachable:
            self.stream_gone()
            return self.last
        self.last = replace(
            self.last,
            lsn=status.lsn,
            timeline=status.timeline,
            in_recovery=status.in_recovery,
            streaming=self.last.streaming and not primary,
        )
        self._at = boottime()
        if primary:
            return self.last
        with suppress(DriverError):
            lag = await self._sql.lag(deadline=deadline)
            if lag.streaming:
                self.last = replace(
                    self.last,
                    streaming=True,
                    lag_seconds=lag.seconds,
                    lag_bytes=lag.bytes,
                    measured_at=lag.measured_at.astimezone(UTC),
                )
            else:
                self.stream_gone()
        return self.last

    async def glance(self, *, primary: bool) -> Measured:
        """The last measurement, a fresh one when the server answers at once.

        Whoever asks an agent about a database that is silent must not find the agent silent, too.
        """
        looking = self._looking
        if looking is None or looking.done():
            # Several may ask at once: whoever wakes up next may begin the next look before we read this one.
            looking = self._looking = asyncio.create_task(
                self.measure(primary=primary, deadline=_LOOK_SECONDS, not_older_than=_FRESH_SECONDS)
            )
        done, _ = await asyncio.wait({looking}, timeout=_AT_ONCE_SECONDS)
        return looking.result() if done else self.last

    async def beat(self, instance: str, deadline: float) -> None:
        """Write the primary's heartbeat; a database without the table does without."""
        if not self._heartbeats:
            return
        try:
            await self._sql.heartbeat(instance, deadline=deadline)
        except PermanentError:
            self._heartbeats = False
        except DriverError:
            return
