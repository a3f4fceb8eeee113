"""Every page of the data directory read once and its checksum compared, by PostgreSQL's own base backup that is sent nowhere.

It reads what is on disk, not what is in memory, on primary and standby alike, without stopping either; at the least urgent priority.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass

from hmsdr.control.amcheck import APPLICATION, end_sessions, keep_calm
from hmsdr.control.config import AgentConfig
from hmsdr.control.server import PostgresServer
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres

_FAILED = re.compile(r'checksum verification failed in file "([^"]+)", block (\d+)')
_MOST = 5
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Compared:
    """``found`` are places with a wrong checksum; ``complete`` that everything was read, else ``why`` not."""

    complete: bool
    found: tuple[str, ...] = ()
    why: str = ""


async def compare(config: AgentConfig, server: PostgresServer, sql: Postgres, *, deadline: float) -> Compared:
    """Read and compare, within `deadline` seconds."""
    instance = config.instance
    environment = {"PGAPPNAME": APPLICATION, "PGCONNECT_TIMEOUT": "5", "LC_ALL": "C"}
    if instance.password is not None:
        environment["PGPASSWORD"] = instance.password.get_secret_value()
    calming = asyncio.create_task(keep_calm(sql))
    try:
        status, _, errors = await server.tool(
            "pg_basebackup",
            *("-h", config.local_host, "-p", str(instance.port), "-U", instance.user, "--no-password"),
            *("--target=blackhole", "--wal-method=none", "--checkpoint=fast"),
            deadline=deadline,
            environment=environment,
        )
    except TimeoutError:
        await end_sessions(sql)
        return Compared(complete=False, why=f"not done within {deadline:g} s")
    except OSError as error:
        return Compared(complete=False, why=f"pg_basebackup cannot be run: {error.strerror}")
    except asyncio.CancelledError:
        await end_sessions(sql)
        raise
    finally:
        calming.cancel()
        await asyncio.gather(calming, return_exceptions=True)
    return judged(status, errors)


def judged(status: int, errors: str) -> Compared:
    """What pg_basebackup's exit status and words come to."""
    places = dict.fromkeys(
        f"block {block} of {file.removeprefix('./')}" for file, block in _FAILED.findall(errors)
    )
    if places:
        return Compared(complete=True, found=tuple(places)[:_MOST])
    last = " ".join(errors.strip().splitlines()[-1:])
    return Compared(complete=status == 0, why="" if status == 0 else last or f"it ended with {status}")


async def progress(sql: Postgres) -> float | None:
    """How much of it is read, from 0 to 1; None while that is not known."""
    with suppress(DriverError, OSError):
        return await sql.backup_progress(deadline=_ASK_SECONDS)
    return None
