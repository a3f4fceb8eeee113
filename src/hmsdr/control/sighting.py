"""Where the primary's WAL was when it was last seen from here: what a failover is told of the gap, since nobody can ask the dead.

By the stream while there is one, else by the other side's agent: a primary whose stream broke long before it died is ahead by
more than the last lag says. Kept over a restart; not synced, for a second more or less does not matter. It decides nothing.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmsdr.control.database import Database, Role
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import DriverError

_PAUSE = 1.0
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The primary's WAL ended at ``lsn`` (bytes) at ``at`` (UTC), or later."""

    lsn: int
    at: datetime


class PrimarySightings:
    """Keeps the last sighting of the primary, as long as the own database is a standby.

    Args:
        database: the own one.
        peer: the other side's agent.
        path: where it is kept.
    """

    def __init__(self, database: Database, peer: AgentClient, path: Path) -> None:
        self._database = database
        self._peer = peer
        self._path = path
        self.last = _load(path)

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            seen = await self._look() if self._database.role is Role.STANDBY else None
            if seen is not None:
                self.last = seen
                with suppress(OSError):
                    _save(self._path, seen)
            await asyncio.sleep(_PAUSE)

    async def _look(self) -> Sighting | None:
        measured = self._database.meter.last
        if measured.streaming and measured.measured_at is not None and measured.lsn is not None:
            return Sighting(measured.lsn + (measured.lag_bytes or 0), measured.measured_at)
        asked = datetime.now(UTC)
        try:
            status = await self._peer.status(deadline=_ASK_SECONDS)
        except DriverError:
            return None
        primary = status.database.state == "primary" and status.database.lsn is not None
        return Sighting(status.database.lsn or 0, asked) if primary else None

    def status(self) -> dict[str, Any]:
        """For `GET /v1/status`, a part of the replication."""
        seen = self.last
        return {
            "primary_lsn": None if seen is None else seen.lsn,
            "primary_seen_at": None if seen is None else seen.at.isoformat(),
        }


def _load(path: Path) -> Sighting | None:
    try:
        raw = json.loads(path.read_text())
        return Sighting(int(raw["lsn"]), datetime.fromisoformat(raw["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(path: Path, seen: Sighting) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps({"lsn": seen.lsn, "at": seen.at.isoformat()}))
    fresh.replace(path)
