"""Stop and promote on a person's word, through the whole protocol (SAFETY rule 5): break-glass, not a short cut.

What pg_ctl would do blindly is done here with the authority record: stopping revokes, fences and frees the right;
promoting takes it only when it is free, or when its holder has demonstrably stopped renewing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from hmsdr.control.agent import Agent
from hmsdr.control.database import Role
from hmsdr.decide.authority import (
    Authority,
    AuthorityRefused,
    LeaseWaited,
    Phase,
    Receipt,
    grant,
    prove_fenced,
    required_wait,
    revoke,
)
from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import RefusedError

_STORE_SECONDS = 3.0


async def stop(agent: Agent) -> dict[str, Any]:
    """Stop the database in order. The holder's right is revoked first, and free when it is down."""
    record = await _read(agent)
    ours = record.holder is not None and record.holder.instance == agent.holder.instance
    if ours and record.phase is Phase.HELD:
        await _change(agent, lambda now: revoke(now, record.epoch))
    epoch = max(record.epoch, agent.memory.state.accepted_epoch)
    receipt = await agent.fence(epoch, clean=True, reason="stopped by hand")
    if ours:
        proof = Receipt(
            instance=receipt.instance,
            incarnation=receipt.incarnation,
            epoch=receipt.epoch,
            last_lsn=receipt.last_lsn,
            clean=receipt.clean,
            survivors=receipt.survivors,
            unused=receipt.unused,
        )
        await _free(agent, proof)
    return asdict(receipt)


async def promote(agent: Agent) -> dict[str, Any]:
    """Take the right to write if nobody can write, then promote.

    Raises:
        RefusedError: another instance holds the right and renews it.
        TemporaryError: the store does not answer.
    """
    if await agent.rejoining.end_search():
        async with agent.lock:
            await agent.reconcile()
    record = await _read(agent)
    ours = record.holder is not None and record.holder.instance == agent.holder.instance
    if ours and record.phase is Phase.HELD and agent.memory.state.fenced(record.epoch):
        # Fenced under the epoch that it still holds: dead, with a receipt. Free it, then take the next epoch.
        record = await _change(agent, lambda now: revoke(now, record.epoch))
    if record.holder is not None and (not ours or record.phase is Phase.REVOKING):
        record = await _freed(agent, record)
    if record.holder is None:
        record = await _change(agent, lambda now: grant(now, agent.holder))
        agent.renew_soon()
    promotion, already = await agent.promote(record.epoch, None)
    return {**asdict(promotion), "already": already}


async def _freed(agent: Agent, record: Authority) -> Authority:
    """The right taken from a holder that is dead: fenced here with a receipt, or silent for its whole lease twice."""
    holder = record.holder
    assert holder is not None  # noqa: S101 - the caller asked
    receipt = agent.memory.state.fence
    if holder.instance == agent.holder.instance and receipt is not None and receipt.epoch == record.epoch:
        return await _free(
            agent,
            Receipt(
                receipt.instance,
                receipt.incarnation,
                receipt.epoch,
                receipt.last_lsn,
                receipt.clean,
                receipt.survivors,
                receipt.unused,
            ),
        )
    if agent.database.role is not Role.STANDBY:
        raise RefusedError(
            _doing(agent), "it is not running as a standby", "Start it, or promote the other side"
        )
    await _silent(agent, record)
    revoked = await _change(agent, lambda now: revoke(now, record.epoch))
    since = time.monotonic()
    wait = required_wait(revoked, agent.config.drift_margin)
    await asyncio.sleep(wait + 0.01)
    waited = LeaseWaited(record.epoch, time.monotonic() - since, agent.config.drift_margin)
    return await _change(agent, lambda now: prove_fenced(now, waited))


async def _silent(agent: Agent, record: Authority) -> None:
    """Watch the record for a lease: a holder that renews is alive, and its right is not taken by hand."""
    until = time.monotonic() + record.lease_seconds
    while record.phase is Phase.HELD and time.monotonic() < until:
        await asyncio.sleep(min(0.1, record.lease_seconds / 10))
        now = await _read(agent)
        if now != record:
            raise RefusedError(
                _doing(agent),
                f"{now.holder.instance if now.holder else 'nobody'} holds the right to write under epoch {now.epoch} "
                "and renews it",
                "Stop that database first (`pg_ctl stop` there goes through its agent), or run `hmsdr failover`",
            )


async def _free(agent: Agent, proof: Receipt) -> Authority:
    return await _change(
        agent,
        lambda now: now if now.epoch == proof.epoch and now.holder is None else prove_fenced(now, proof),
    )


async def _read(agent: Agent) -> Authority:
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            return await agent.store.read_authority()
    except TimeoutError as error:
        raise TemporaryError(
            _doing(agent), "the store does not answer", "Without it nobody may be promoted"
        ) from error


async def _change(agent: Agent, transition: Callable[[Authority], Authority]) -> Authority:
    for _ in range(50):
        record = await _read(agent)
        try:
            new = transition(record)
        except AuthorityRefused as refusal:
            raise RefusedError(_doing(agent), str(refusal), "Look at `hmsdr authority show`") from refusal
        if new == record or await agent.store.swap_authority(record, new):
            return new
    raise TemporaryError(_doing(agent), "others changed the record again and again", "Try again")


def _doing(agent: Agent) -> str:
    return f"acting by hand on {agent.holder.instance}"
