"""Whether a service can do its work now: asked of the database and of Redis at the moment of the question, never kept.

Only when there is no primary to ask is the answer what the watch over the databases saw a moment ago.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from hmsdr.lab.hms.service.cache import Cache, CacheHealth
from hmsdr.lab.hms.service.connecting import DatabaseDownError
from hmsdr.lab.hms.service.database import Pool
from hmsdr.lab.hms.service.primary import Primary

CHECK_SECONDS = 1.2
_PATIENCE_SECONDS = 0.05
_CHECK = """
SELECT q.standby, current_setting('transaction_read_only') = 'on', current_setting('cluster_name'),
       (SELECT max(epoch) FROM hmsdr_epoch), has_table_privilege(current_user, %s::text, 'INSERT'),
       CASE WHEN NOT q.standby THEN pg_logical_emit_message(true, 'hms-health', '') END
FROM (SELECT pg_is_in_recovery() AS standby) AS q
"""
"""Commits a record to the log of a primary: only a server that can write and flush answers. It changes no table."""


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """What the database said; all but `found` is None when it did not answer."""

    found: str
    in_recovery: bool | None = None
    can_write: bool = False
    instance: str | None = None
    epoch: int | None = None

    @property
    def role(self) -> str | None:
        """Primary or standby."""
        return None if self.in_recovery is None else ("standby" if self.in_recovery else "primary")


@dataclass(frozen=True, slots=True)
class Health:
    """Both answers."""

    database: DatabaseHealth
    cache: CacheHealth
    seconds: float

    @property
    def status(self) -> str:
        """``failed`` without a database that takes writes, ``degraded`` without Redis, else ``ok``."""
        if not self.database.can_write:
            return "failed"
        return "degraded" if self.cache.degraded else "ok"


async def check(pool: Pool, primary: Primary, cache: Cache, table: str) -> Health:
    """Ask both at once; a database or a Redis that does not answer is an answer."""
    began = time.monotonic()
    database, redis = await asyncio.gather(_database(pool, primary, table), cache.check())
    return Health(database, redis, time.monotonic() - began)


async def _database(pool: Pool, primary: Primary, table: str) -> DatabaseHealth:
    try:
        rows = await pool.run(_CHECK, (table,), deadline=CHECK_SECONDS, patience=_PATIENCE_SECONDS)
    except DatabaseDownError as error:
        seen = primary.standby()
        if seen is None or primary.known is not None:
            return DatabaseHealth(found=error.found)
        return DatabaseHealth(error.found, in_recovery=True, instance=seen.instance, epoch=seen.epoch)
    standby, read_only, instance, epoch, allowed, _ = rows[0]
    if standby:
        found = "the database is in recovery: a standby, which takes no writes"
    elif read_only:
        found = "the database refuses writes: transactions are read-only"
    elif not allowed:
        found = f"the service may not write to {table}"
    else:
        found = ""
    return DatabaseHealth(found, standby, not found, instance, epoch)
