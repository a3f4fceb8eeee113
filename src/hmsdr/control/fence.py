"""Fencing: the database is made unable to write, that is proven, and the proof is durable before it is told.

SAFETY rules 3 and 9. A clean fence asks the server to stop (nothing is lost, the hand-over's LSN is exact); what
does not stop in time is killed. Which epochs may be fenced is checked here; revoking and granting are not done here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from hmsdr.control.database import Database, Role
from hmsdr.control.laps import Laps
from hmsdr.control.logs import log
from hmsdr.control.server import ControlData
from hmsdr.control.state import FenceReceipt
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import FailedError, RefusedError


def earlier_receipt(database: Database, epoch: int) -> FenceReceipt | None:
    """The receipt that was already given for `epoch`.

    Raises:
        RefusedError: `epoch` is older than what was accepted or fenced here: the order comes from an old plan.
    """
    state = database.memory.state
    if state.fence is not None and state.fence.epoch == epoch:
        return state.fence
    newest = max(state.accepted_epoch, state.fence.epoch if state.fence is not None else 0)
    if epoch < newest:
        raise RefusedError(
            f"fencing {state.instance} under epoch {epoch}",
            f"epoch {newest} was accepted here",
            "The order comes from an older plan; look at `hmsdr authority show`",
        )
    return None


async def fence(database: Database, epoch: int, *, clean: bool, hurry: asyncio.Event) -> FenceReceipt:
    """Fence it under `epoch`, whatever its role.

    Args:
        database: what is fenced; the caller holds the agent's lock.
        epoch: the epoch that ends here.
        clean: stop it in order first.
        hurry: when set, a clean stop that is under way is cut short.

    Raises:
        TemporaryError: processes survive.
        FailedError: the receipt cannot be made durable; the database is dead all the same.
    """
    was, laps = database.role, Laps()
    sampled = database.meter.last.lsn if was is Role.PRIMARY else None
    stopped = await _stop(database, was, hurry, laps) if clean else False
    # What the search still finds to kill makes it an unclean end, whatever the control file says.
    killed = await database.kill()
    laps.lap("proof")
    database.disarm()
    database.lease.drop()
    control = (database.server.shut_down() if stopped else None) or await _control(database)
    in_order = control is not None and control.state == "shut down" and killed == 0
    if clean and not stopped:
        log("fence.not_clean", level="warning", killed=killed)
    receipt = FenceReceipt(
        instance=database.config.instance.instance,
        incarnation=database.lease.holder.incarnation,
        epoch=epoch,
        fenced_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        last_lsn=await _last_lsn(database, control, sampled, in_order=in_order),
        timeline=_timeline(database, control),
        clean=in_order,
        killed=killed,
        # The accepted epoch is on disk before PostgreSQL is asked to promote: below it nothing was written.
        unused=database.memory.state.accepted_epoch < epoch,
    )
    database.memory.change(fence=receipt, stopped=True)
    laps.lap("durable")
    log(
        "fence.confirmed",
        epoch=epoch,
        clean=receipt.clean,
        killed=killed,
        last_lsn=receipt.last_lsn,
        parts=laps.seconds,
    )
    return receipt


async def _stop(database: Database, was: Role, hurry: asyncio.Event, laps: Laps) -> bool:
    """CHECKPOINT while it still serves (it halves the gap), then a fast stop; cut short by `hurry`."""

    async def in_order() -> bool:
        if was is Role.PRIMARY:
            with suppress(DriverError):
                await database.sql.checkpoint(deadline=database.config.stop_deadline)
        await database.forget_server()
        laps.lap("checkpoint")
        stopped = await database.server.stop_fast(database.config.stop_deadline)
        laps.lap("stop")
        return stopped

    stopping = asyncio.create_task(in_order())
    hurried = asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        return stopping.done() and stopping.result()
    finally:
        for task in (stopping, hurried):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _control(database: Database) -> ControlData | None:
    if not database.server.exists:
        return None
    try:
        return await database.server.control()
    except (FailedError, TimeoutError, KeyError, ValueError) as error:
        log("fence.control_unreadable", level="warning", found=str(error))
        return None


def _timeline(database: Database, control: ControlData | None) -> int | None:
    """The control file lags behind a promotion until the first checkpoint after it."""
    if control is None:
        return None
    promotion = database.memory.state.promotion
    return max(control.timeline, promotion.timeline if promotion is not None else 0)


async def _last_lsn(
    database: Database, control: ControlData | None, sampled: int | None, *, in_order: bool
) -> int | None:
    if control is None:
        return None
    if in_order:
        # Every record before the shutdown checkpoint's own is a commit's or older: a standby that has
        # replayed up to its place has everything.
        return control.checkpoint
    timeline = _timeline(database, control) or control.timeline
    starts = [control.redo, sampled or 0]
    promotion = database.memory.state.promotion
    if promotion is not None and promotion.timeline == timeline:
        starts.append(promotion.lsn)
    return await database.server.end_of_wal(max(starts), timeline, control.segment)
