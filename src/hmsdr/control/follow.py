"""Making a database a standby of the new primary: start, and rewind when it went its own way. Never writable.

Nothing is rewound before what the database committed alone is known: `reckoning` has looked, and every row that would be lost
is in a file, or a named person said why it follows all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from hmsdr.control import pgconf
from hmsdr.control.database import Database, Role
from hmsdr.control.logs import log
from hmsdr.control.lost import Lost
from hmsdr.control.proctable import boottime
from hmsdr.control.state import Upstream
from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import FailedError, RefusedError

_STREAM_SECONDS = 4.0
_REWIND_SECONDS = 600.0
_SQL_SECONDS = 3.0
_KNOWS_TIMELINES = 16
_BEGINS_TO_WRITE = "need to copy"
"""What pg_rewind says last before it changes the first file."""
_NOT_NEEDED = "no rewind required"
_REWOUND = "in archive recovery"
"""The state that it leaves in the control file; it begins with none but a shut down one."""


@dataclass(frozen=True, slots=True)
class Word:
    """The word of a named person that a database follows although not everything that it loses is known."""

    by: str
    reason: str


def refuse(database: Database, epoch: int, upstream: Upstream) -> None:
    """Refuse to make a standby of what is none of ours to change now.

    Raises:
        RefusedError: it may write now, or the order is of an older epoch.
    """
    state = database.memory.state
    doing = _doing(database, epoch, upstream)
    if epoch < state.accepted_epoch:
        raise RefusedError(
            doing, f"epoch {state.accepted_epoch} was accepted here", "The order comes from an older plan"
        )
    if database.writable or database.lease.seconds_left() > 0:
        raise RefusedError(doing, "this instance holds the right to write", "Revoke it and fence it first")


async def follows_already(database: Database, epoch: int, upstream: Upstream) -> dict[str, Any] | None:
    """The answer to an order that was carried out before; None when there is something to do. The caller holds the lock.

    Raises:
        RefusedError: as `refuse`.
    """
    refuse(database, epoch, upstream)
    if database.role is Role.STANDBY and database.upstream == upstream and await _streams(database, 0.0):
        database.memory.change(accepted_epoch=epoch, upstream=upstream, stopped=False)
        return _answer(upstream, rewound=False, streaming=True, lost=None)
    return None


def settled(database: Database, upstream: Upstream, lost: Lost | None, word: Word | None) -> Lost | None:
    """What was lost, with the word of who accepts what is not known of it.

    Raises:
        RefusedError: rows would be lost that are not in a file, and nobody has accepted that.
    """
    if lost is None or lost.complete:
        return lost
    if word is None:
        raise RefusedError(
            f"making {database.config.instance.instance} follow {upstream.host}:{upstream.port}",
            f"it committed {'an unknown number of' if lost.commits is None else lost.commits} transactions that the "
            f"new primary never saw, and not all of their rows are known: {lost.why}",
            f"Mend that; or accept the loss: `hmsdr follow {database.config.region} --without-lost-rows --reason TEXT --by NAME` "
            "(`hmsdr recover` takes the same options; docs/agent.md, 'What was lost')",
        )
    return replace(lost, accepted_by=word.by, accepted_because=word.reason)


async def follow(
    database: Database,
    epoch: int,
    upstream: Upstream,
    *,
    reckoned: bool,
    lost: Lost | None,
    may_rewind: bool = True,
) -> dict[str, Any]:
    """Make it follow `upstream`; the caller holds the agent's lock, and `follows_already` had nothing to say.

    Args:
        database: what is to follow.
        epoch: of the order.
        upstream: whom.
        reckoned: whether what it committed alone was looked for; if not, it is not rewound.
        lost: what was found, `settled`.
        may_rewind: whether it is rewound when it diverged.

    Raises:
        RefusedError: it diverged, and may not be rewound.
        TemporaryError: the new primary does not answer, or it diverged and was not looked at.
        FailedError: it does not start, or cannot be rewound: rebuild it.
    """
    doing = _doing(database, epoch, upstream)
    unfinished = database.memory.state.rewinding
    database.memory.change(accepted_epoch=epoch, upstream=upstream, stopped=False)
    await database.stop(database.config.stop_deadline)
    parted = unfinished or (lost is not None and (lost.ends is None or lost.ends > lost.fork))
    if not parted:
        await database.start_standby()
    rewound = False
    if (parted or not await _streams(database, _STREAM_SECONDS)) and await _went_its_own_way(
        database, doing, upstream
    ):
        if not reckoned:
            raise TemporaryError(
                doing, "it diverged, and what it committed alone is not known yet", "Give the order again"
            )
        if not may_rewind:
            raise RefusedError(
                doing, "it diverged, and the order was not to rewind it", f"Plan again: {_plan(database)}"
            )
        await _rewind(database, doing, upstream, unfinished=unfinished)
        rewound = True
    if database.role is Role.STOPPED:
        await database.start_standby()
        await _streams(database, _STREAM_SECONDS)
    log("follow.done", upstream=f"{upstream.host}:{upstream.port}", rewound=rewound)
    return _answer(upstream, rewound=rewound, streaming=database.meter.last.streaming, lost=lost)


def _doing(database: Database, epoch: int, upstream: Upstream) -> str:
    return f"making {database.config.instance.instance} follow {upstream.host}:{upstream.port} under epoch {epoch}"


def _answer(upstream: Upstream, *, rewound: bool, streaming: bool, lost: Lost | None) -> dict[str, Any]:
    return {
        "primary_host": upstream.host,
        "primary_port": upstream.port,
        "slot": upstream.slot,
        "rewound": rewound,
        "streaming": streaming,
        "lost": None if lost is None else lost.as_json(),
    }


async def _streams(database: Database, seconds: float) -> bool:
    until = boottime() + seconds
    while True:
        measured = await database.meter.measure(primary=False, deadline=_SQL_SECONDS)
        if measured.streaming or boottime() >= until:
            return measured.streaming
        await asyncio.sleep(0.05)


async def _went_its_own_way(database: Database, doing: str, upstream: Upstream) -> bool:
    """Whether the new primary is there, takes writes, and still does not stream to us: then we diverged."""
    primary = database.around.primary(upstream)
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


async def _rewind(database: Database, doing: str, upstream: Upstream, *, unfinished: bool) -> None:
    """pg_rewind; it wants a server that was shut down in order: one that was killed is started as a standby first.

    While it writes, the files are of two histories: that it began is durable before, and nothing starts them until it ended.
    """
    if unfinished and (await database.server.control()).state == _REWOUND:
        # It had come to its end, only nobody noted it any more: the control file is what it changes last.
        await database.server.tool(
            "initdb", "--sync-only", "-D", database.server.directory, deadline=_REWIND_SECONDS
        )
        database.memory.change(rewinding=False, rewind_failed="")
        return
    if not unfinished:
        await _shut_down(database, (await database.server.control()).shut_down)
    said = await _pg_rewind(database, doing, upstream, unfinished=unfinished)
    if _NOT_NEEDED in said and not unfinished:
        # It was stopped before it had replayed what it has, so its control file does not know how far it went.
        await _shut_down(database, False)
        said = await _pg_rewind(database, doing, upstream, unfinished=False)
    if _NOT_NEEDED in said:
        raise FailedError(
            doing, f"it diverged, and pg_rewind says: {_NOT_NEEDED}", f"Plan again: {_plan(database)}"
        )
    log("rewind.done", said=" | ".join(said.splitlines()[:2]))


async def _shut_down(database: Database, in_order: bool) -> None:
    """Stop it in order; one that was not is started first, as a standby that follows nobody."""
    if database.role is Role.STOPPED and not in_order:
        await database.start_alone()
    await database.stop(60.0)
    await _tell_timeline(database)


async def _pg_rewind(database: Database, doing: str, upstream: Upstream, *, unfinished: bool) -> str:
    """Run it, with what it may leave half done noted before and after; gives what it said.

    Raises:
        FailedError: it failed.
    """
    database.server.own()
    database.memory.change(rewinding=True, rewind_failed="")
    try:
        status, output, errors = await database.server.tool(
            "pg_rewind",
            *("--target-pgdata", database.config.data_directory, "--no-ensure-shutdown", "--progress"),
            *("--source-server", f"{open_conninfo(database, upstream)} dbname=postgres"),
            deadline=_REWIND_SECONDS,
            environment=password(database),
            dies=True,
        )
    except TimeoutError as error:
        found = f"pg_rewind did not end within {_REWIND_SECONDS:g} s"
        database.memory.change(rewind_failed=found)
        raise FailedError(doing, found, f"Plan again: {_plan(database)}") from error
    finally:
        database.server.make_standby()
    if status != 0:
        wrote = unfinished or _BEGINS_TO_WRITE in errors
        found = f"pg_rewind: {' '.join((errors or output).strip().splitlines()[-1:])}"
        database.memory.change(rewinding=wrote, rewind_failed=found if wrote else "")
        raise FailedError(doing, found, f"Plan again: {_plan(database)}")
    database.memory.change(rewinding=unfinished and _NOT_NEEDED in errors, rewind_failed="")
    return errors


def open_conninfo(database: Database, upstream: Upstream) -> str:
    """How the primary is reached, without the password: everybody can read a program's arguments."""
    return pgconf.conninfo(database.config.instance.model_copy(update={"password": None}), upstream)


def password(database: Database) -> dict[str, str]:
    """The password, as PostgreSQL's programs find it in their environment."""
    secret = database.config.instance.password
    return {} if secret is None else {"PGPASSWORD": secret.get_secret_value()}


def _plan(database: Database) -> str:
    return f"`hmsdr plan recover {database.config.region}`"


async def _tell_timeline(database: Database) -> None:
    """Have a checkpoint on its own timeline in a database that was killed just after it was promoted.

    Before version 16 pg_rewind believes the last checkpoint's timeline, and without one finds nothing to rewind. PostgreSQL's
    single process, which nobody can connect to, writes it; the signal is away for that moment, since it would refuse to.
    """
    server, control = database.server, await database.server.control()
    if control.timeline >= control.newest_timeline or server.version >= _KNOWS_TIMELINES:
        return
    server.allow_writable()
    try:
        await server.tool("postgres", "--single", "-D", server.directory, "template1", deadline=60.0)
    finally:
        server.make_standby()
