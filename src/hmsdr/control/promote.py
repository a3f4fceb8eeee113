"""Promotion: the one way in which a database becomes a primary (SAFETY rule 5).

Once per epoch: the accepted epoch is on disk before PostgreSQL is asked; a delivery seen before does nothing.
The authority record must name this instance, this life of its agent and this epoch, with the lease renewed just now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from hmsdr.control.database import Database, Role
from hmsdr.control.laps import Laps
from hmsdr.control.lease import Renewal
from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.control.state import AgentState, Promotion
from hmsdr.decide.authority import Authority, AuthorityRefused, may_promote
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.tenure import Delivery, delivery
from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.errors import RefusedError

_STORE_SECONDS = 3.0
_POLL_SECONDS = 0.002
_REPLAY_SECONDS = 5.0
_SQL_SECONDS = 2.0


async def promote(
    database: Database, epoch: int, min_lsn: int | None, *, bound_for: Callable[[], float]
) -> tuple[Promotion, bool]:
    """Promote it under `epoch`; gives the promotion and whether it had taken place before.

    Args:
        database: what is promoted; the caller holds the agent's lock.
        epoch: the epoch that was granted.
        min_lsn: refuse below this position (bytes of WAL); the record's own hand-over LSN holds as well.
        bound_for: seconds for which a promise forbids to accept a grant (rule 7).

    Raises:
        RefusedError: the epoch is old or not ours, or commits that were handed over are missing.
        TemporaryError: the store or the database does not answer, or a promise is not over.
    """
    began, laps = boottime(), Laps()
    state = database.memory.state
    doing = f"promoting {state.instance} under epoch {epoch}"
    if (before := _delivered_before(state, doing, epoch)) is not None:
        return before, True
    record = await _authorised(database, doing, epoch)
    laps.lap("authorised")
    await database.guarding.ensure()
    if database.role is Role.STOPPED:
        await database.start_alone()
    standby = await database.sql.in_recovery(deadline=_SQL_SECONDS)
    if standby:
        await _replayed(database, doing, record, epoch, max(min_lsn or 0, record.handover_lsn or 0))
    laps.lap("replayed")
    system = (await database.sql.status(deadline=_SQL_SECONDS)).system_identifier
    if (left := bound_for()) > 0:  # nothing is awaited from here until the epoch is accepted
        raise TemporaryError(doing, f"the other side was promised {left:.1f} s more", "Repeat the order")
    database.memory.change(accepted_epoch=epoch, stopped=False, system_identifier=system)
    database.arm()
    laps.lap("accepted")
    if standby:
        await database.sql.promote_here(deadline=_SQL_SECONDS)
    lsn, timeline = await _first_write(database, doing, epoch)
    laps.lap("first write")
    database.role = Role.PRIMARY  # not before: what is said to be a primary has taken a write
    database.server.make_standby(durable=False)
    promotion = Promotion(
        epoch=epoch,
        promoted_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        lsn=lsn,
        timeline=timeline,
        seconds=round(boottime() - began, 6),
    )
    database.memory.change(promotion=promotion)
    laps.lap("durable")
    log(
        "promote.done",
        epoch=epoch,
        lsn=format_lsn(lsn),
        timeline=timeline,
        seconds=promotion.seconds,
        parts=laps.seconds,
    )
    return promotion, False


def _delivered_before(state: AgentState, doing: str, epoch: int) -> Promotion | None:
    """The promotion that this very order brought about before; None for a new order.

    Raises:
        RefusedError: the order is of an older plan, or for an epoch that was fenced here.
    """
    kind = delivery(
        epoch,
        accepted_epoch=state.accepted_epoch,
        promoted_epoch=state.promoted_epoch,
        fenced_epoch=state.fenced_epoch,
    )
    if kind is Delivery.DONE_BEFORE and state.promotion is not None:
        return state.promotion
    if kind is Delivery.OLD:
        raise RefusedError(
            doing, f"epoch {state.accepted_epoch} was accepted here", "The order comes from an older plan"
        )
    if kind is Delivery.FENCED:
        raise RefusedError(doing, "it was fenced under this epoch", "Grant it a new epoch first")
    return None


async def _authorised(database: Database, doing: str, epoch: int) -> Authority:
    """The record, renewed by us just now under `epoch`: the lease is live and the guard can be given a deadline."""
    outcome = Renewal.UNCLEAR
    for _ in range(5):
        outcome = await database.lease.renew(_STORE_SECONDS)
        if outcome is not Renewal.UNCLEAR:
            break
    record = database.lease.record
    if outcome is Renewal.UNCLEAR or record is None:
        raise TemporaryError(doing, "the store gave no clear answer", "Try again when the store answers")
    if outcome is Renewal.NOT_OURS or record.epoch != epoch:
        holder = record.holder.instance if record.holder is not None else "nobody"
        raise RefusedError(
            doing,
            f"the right to write is {record.phase} by {holder} under epoch {record.epoch}",
            "Grant it to this instance under that epoch first",
        )
    return record


async def _replayed(database: Database, doing: str, record: Authority, epoch: int, needed: int) -> None:
    """Wait until what was handed over has been replayed; the pure core has the last word."""
    until = boottime() + _REPLAY_SECONDS
    while True:
        replayed = await database.sql.replayed_lsn(deadline=_SQL_SECONDS)
        if replayed >= needed or boottime() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    try:
        may_promote(record, database.lease.holder, epoch, replayed)
    except AuthorityRefused as refusal:
        raise RefusedError(
            doing,
            str(refusal),
            "If replication cannot be mended, give the right back to the old side: docs/agent.md, 'Back to the old side'",
        ) from refusal
    if replayed < needed:
        raise RefusedError(
            doing,
            f"it has replayed up to {format_lsn(replayed)}, asked for is {format_lsn(needed)}",
            "If replication cannot be mended, give the right back to the old side: docs/agent.md, 'Back to the old side'",
        )


async def _first_write(database: Database, doing: str, epoch: int) -> tuple[int, int]:
    """Try until it takes a write; gives position and timeline. It is told at once, where pg_ctl looks each 100 ms."""
    until = boottime() + database.config.promote_deadline
    table = True
    while boottime() < until:
        try:
            if not await database.sql.left_recovery(deadline=_SQL_SECONDS):
                continue
            if table:
                await database.sql.claim_epoch(
                    epoch, database.config.instance.instance, deadline=_SQL_SECONDS
                )
            else:
                await database.sql.write_marker(f"epoch {epoch}", deadline=_SQL_SECONDS)
            status = await database.sql.status(deadline=_SQL_SECONDS)
        except PermanentError:
            if not table:
                raise
            table = False  # somebody else's database: it has no table of ours, a WAL record proves writing as well
        except DriverError as error:
            if database.role is Role.STOPPED:
                raise TemporaryError(
                    doing, "the server died", f"See {database.server.last_words()}"
                ) from error
            log("promote.not_yet", found=error.found)
            await asyncio.sleep(_POLL_SECONDS)
        else:
            if status.lsn is not None and status.timeline is not None:
                return status.lsn, status.timeline
    raise TemporaryError(
        doing,
        f"it takes no write after {database.config.promote_deadline:g} s",
        "Repeat the order: it goes on where it stands",
    )


async def settle(database: Database) -> None:
    """After a promotion or a start as the primary, what nobody waits for: slot, checkpoint, durable signal file."""
    try:
        await asyncio.to_thread(database.server.make_standby)
        await database.sql.create_physical_slot(database.config.other_slot, deadline=_SQL_SECONDS)
        # On a connection of its own: the warm one must stay free for what cannot wait.
        await database.around.own_connection().checkpoint(deadline=60.0)
    except (DriverError, OSError) as error:
        log("settle.failed", level="warning", found=str(error))
