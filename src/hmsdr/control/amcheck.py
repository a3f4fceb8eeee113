"""One run of pg_amcheck: bounded in time, out of everybody's way, its findings as signs without content.

It checks tables and B-tree indexes of the hospital's database. What it says of a relation that merely went away, or of a question
that the standby's replay cancelled, is no damage: then the check is not complete, and proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass

from hmsdr.control.config import AgentConfig
from hmsdr.control.server import PostgresServer
from hmsdr.decide.soundness import DamageKind
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres

APPLICATION = "hmsdr-check"
_LEAST_URGENT = 19
_CLEAN, _FOUND = 0, 2
_HEADER = re.compile(r'^(heap table|btree index|sequence|gin index) "[^".]*\.([^"]+)"(?:, block (\d+))?')
_PASSING = re.compile(
    r"^ERROR: +(canceling |terminating |out of memory|could not open relation|permission denied|deadlock|"
    r"could not extend|could not write|relation .* does not exist|recovery is in progress)"
)
"""What stops a question and says nothing of the data."""
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Checked:
    """``found`` is kind and relation to words; ``complete`` that everything was looked at, else ``why`` not."""

    complete: bool
    found: dict[tuple[DamageKind, str], str]
    why: str = ""


async def amcheck(
    config: AgentConfig, server: PostgresServer, sql: Postgres, *, primary: bool, deadline: float
) -> Checked:
    """Check the database that runs; on the primary, install the extension when it is missing."""
    instance = config.instance
    password = instance.password
    environment = {"PGAPPNAME": APPLICATION, "PGCONNECT_TIMEOUT": "5"}
    if password is not None:
        environment["PGPASSWORD"] = password.get_secret_value()
    calming = asyncio.create_task(keep_calm(sql))
    try:
        status, output, errors = await server.tool(
            "pg_amcheck",
            *(
                "-h",
                config.local_host,
                "-p",
                str(instance.port),
                "-U",
                instance.user,
                "-d",
                instance.database,
            ),
            *("--heapallindexed", "--jobs=1"),
            *(("--install-missing",) if primary else ()),
            deadline=deadline,
            environment=environment,
        )
    except TimeoutError:
        await end_sessions(sql)
        return Checked(complete=False, found={}, why=f"not done within {deadline:g} s")
    except OSError as error:
        return Checked(complete=False, found={}, why=f"pg_amcheck cannot be run: {error.strerror}")
    except asyncio.CancelledError:
        await end_sessions(sql)
        raise
    finally:
        calming.cancel()
        await asyncio.gather(calming, return_exceptions=True)
    return judged(status, output, errors)


def judged(status: int, output: str, errors: str) -> Checked:
    """What pg_amcheck's exit status and words come to."""
    found: dict[tuple[DamageKind, str], str] = {}
    kind, passing, subject = DamageKind.HEAP, "", ("", "")
    for line in output.splitlines():
        if (header := _HEADER.match(line)) is not None:
            block = f"block {header[3]}: " if header[3] else ""
            subject = (header[2], block)
            kind = DamageKind.INDEX if "index" in header[1] else DamageKind.HEAP
        elif line.strip() and subject[0]:
            words = line.strip()
            if _PASSING.match(words) is not None:
                passing = passing or words
            else:
                found.setdefault((kind, subject[0]), f"{subject[1]}{words}")
    complete = not passing and (status == _CLEAN or (status == _FOUND and bool(found)))
    last = errors.strip().splitlines()[-1:]
    return Checked(complete, found, "" if complete else passing or "".join(last) or f"it ended with {status}")


async def end_sessions(sql: Postgres) -> None:
    """Its sessions do not notice that the tool is gone, and would go on asking."""
    with suppress(DriverError, OSError):
        for pid in await sql.backends(APPLICATION, deadline=_ASK_SECONDS):
            os.kill(pid, signal.SIGTERM)


async def keep_calm(sql: Postgres) -> None:
    """Let the check's backends run when nobody else wants to: patients come first."""
    while True:
        with suppress(DriverError, OSError):
            for pid in await sql.backends(APPLICATION, deadline=_ASK_SECONDS):
                os.setpriority(os.PRIO_PROCESS, pid, _LEAST_URGENT)
        await asyncio.sleep(0.2)
