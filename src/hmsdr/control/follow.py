"""Making a database a standby of the new primary: start, and rewind when it went its own way. Never writable."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hmsdr.control import pgconf
from hmsdr.control.database import Database, Role
from hmsdr.control.logs import log
from hmsdr.control.state import Upstream
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.errors import FailedError, RefusedError

_STREAM_SECONDS = 4.0
_REWIND_SECONDS = 600.0
_SQL_SECONDS = 3.0


async def follow(database: Database, epoch: int, upstream: Upstream) -> dict[str, Any]:
    """Make it follow `upstream`; the caller holds the agent's lock.

    Raises:
        RefusedError: it may write now, or the order is of an older epoch.
        TemporaryError: the new primary does not answer.
        FailedError: it does not start, or cannot be rewound: rebuild it.
    """
    state = database.memory.state
    doing = f"making {state.instance} follow {upstream.host}:{upstream.port} under epoch {epoch}"
    if epoch < state.accepted_epoch:
        raise RefusedError(
            doing, f"epoch {state.accepted_epoch} was accepted here", "The order comes from an older plan"
        )
    if database.writable or database.lease.seconds_left() > 0:
        raise RefusedError(doing, "this instance holds the right to write", "Revoke it and fence it first")
    if database.role is Role.STANDBY and database.upstream == upstream and await _streams(database, 0.0):
        database.memory.change(accepted_epoch=epoch, upstream=upstream, stopped=False)
        return _answer(upstream, rewound=False, streaming=True)
    database.memory.change(accepted_epoch=epoch, upstream=upstream, stopped=False)
    await database.stop(database.config.stop_deadline)
    await database.start_standby()
    rewound = False
    if not await _streams(database, _STREAM_SECONDS) and await _went_its_own_way(database, doing, upstream):
        await _rewind(database, doing, upstream)
        rewound = True
        await database.start_standby()
        await _streams(database, _STREAM_SECONDS)
    log("follow.done", upstream=f"{upstream.host}:{upstream.port}", rewound=rewound)
    return _answer(upstream, rewound=rewound, streaming=database.meter.last.streaming)


def _answer(upstream: Upstream, *, rewound: bool, streaming: bool) -> dict[str, Any]:
    return {
        "primary_host": upstream.host,
        "primary_port": upstream.port,
        "slot": upstream.slot,
        "rewound": rewound,
        "streaming": streaming,
    }


async def _streams(database: Database, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        measured = await database.meter.measure(primary=False, deadline=_SQL_SECONDS)
        if measured.streaming or time.monotonic() >= until:
            return measured.streaming
        await asyncio.sleep(0.05)


async def _went_its_own_way(database: Database, doing: str, upstream: Upstream) -> bool:
    """Whether the new primary is there, takes writes, and still does not stream to us: then we diverged."""
    primary = _primary(database, upstream)
    status = await primary.status(deadline=_SQL_SECONDS)
    if not status.reachable:
        raise TemporaryError(
            doing, f"the primary does not answer ({status.found})", "It streams when the primary is back"
        )
    if status.in_recovery:
        return False
    # pg_rewind compares with the last checkpoint's timeline, which is old until the first one after a promotion.
    await primary.checkpoint(deadline=60.0)
    return True


async def _rewind(database: Database, doing: str, upstream: Upstream) -> None:
    """pg_rewind; it wants a server that was shut down in order, which the start as a standby has made possible."""
    await database.stop(60.0)
    database.server.unprivileged.own(database.config.data_directory)
    source = f"{pgconf.conninfo(database.config.instance, upstream)} dbname=postgres"
    try:
        status, output, errors = await database.server.tool(
            "pg_rewind",
            "--target-pgdata",
            database.config.data_directory,
            "--source-server",
            source,
            "--no-ensure-shutdown",
            deadline=_REWIND_SECONDS,
        )
    except TimeoutError as error:
        raise FailedError(
            doing, f"pg_rewind did not end within {_REWIND_SECONDS:g} s", "Rebuild it from a backup"
        ) from error
    finally:
        pgconf.make_standby(database.config.data_directory)
    if status != 0:
        found = (errors or output).strip().splitlines()[-1:]
        raise FailedError(doing, f"pg_rewind: {' '.join(found)}", "Rebuild it with pg_basebackup")


def _primary(database: Database, upstream: Upstream) -> Postgres:
    return Postgres(
        database.config.instance.model_copy(update={"host": upstream.host, "port": upstream.port}),
    )
