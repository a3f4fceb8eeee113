"""Losing the store alone does not stop the hospital (SAFETY rule 7): the holder asks its peer, and the peer answers.

The peer first renews in the holder's name; only when the store does not answer it either does it promise, on disk, not to
accept a grant. What may be promised is decided in `hmsdr.decide.promise`; neither side takes anything from the other here.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hmsdr.control.lease import Lease
from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.control.state import StateFile
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, renew
from hmsdr.decide.promise import PromiseRefused, bound_until, give
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import DriverError
from hmsdr.log.records import encode_authority
from hmsdr.log.store import AuthorityStore, StoreError

STORE_SHARE, PEER_SHARE = 1 / 16, 1 / 8
"""Of the lease: how long the peer asks the store, and how long the holder waits for the peer: so that it can ask twice."""


def boot_id() -> str:
    """Name of this boot of the machine: a boot-time clock means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Peer:
    """The peer's side, in one life of its agent.

    Args:
        store: keeper of the authority record.
        lease: this agent's own view of the record.
        memory: where a promise is kept.
        seconds: of one lease: what is promised at a time.
        drift_margin: largest difference of clock rates, as a fraction.
        boot: name of this boot of the machine.
    """

    def __init__(
        self,
        store: AuthorityStore,
        lease: Lease,
        memory: StateFile,
        seconds: float,
        drift_margin: float,
        boot: str,
    ) -> None:
        self._store = store
        self._lease = lease
        self._memory = memory
        self._seconds = seconds
        self._drift_margin = drift_margin
        self._boot = boot
        self._started = boottime()

    def bound_for(self) -> float:
        """Seconds for which no grant may be accepted here."""
        until = bound_until(
            self._memory.state.promise,
            boot=self._boot,
            started=self._started,
            drift_margin=self._drift_margin,
        )
        return max(0.0, until - boottime())

    async def relay(self, epoch: int, holder: Holder) -> dict[str, Any]:
        """Renew in the name of `holder`, which writes under `epoch`; without the store, promise or say why not."""
        try:
            async with asyncio.timeout(self._seconds * STORE_SHARE):
                record = await self._store.read_authority()
                self._lease.noticed(record)
                try:
                    new = renew(record, holder)
                except AuthorityRefused as refusal:
                    return _answer(record=record, why=str(refusal))
                if await self._store.swap_authority(record, new):
                    return _answer(record=new)
                return _answer(why="others changed the record meanwhile: ask again")
        except (StoreError, TimeoutError) as error:
            unclear = str(error) or "the store does not answer here either"
        return self._promise(epoch, holder, unclear)

    def _promise(self, epoch: int, holder: Holder, unclear: str) -> dict[str, Any]:
        """Nothing is awaited in here: nobody can be promoted between the judgement and the word on disk."""
        state = self._memory.state
        try:
            promise = give(
                epoch,
                holder.instance,
                self._lease.record,
                quorum=False,
                accepted_epoch=state.accepted_epoch,
                now=boottime(),
                boot=self._boot,
                seconds=self._seconds,
                drift_margin=self._drift_margin,
            )
        except PromiseRefused as refusal:
            log("promise.refused", level="warning", epoch=epoch, why=str(refusal))
            return _answer(why=f"{unclear}; no promise: {refusal}")
        self._memory.change(promise=promise)
        log("promise.given", level="warning", epoch=epoch, to=holder.instance, seconds=promise.seconds)
        return _answer(promised=promise.seconds, why=unclear)


async def ask_peer(peer: AgentClient, lease: Lease, seconds: float) -> bool:
    """The holder's side: ask `peer` to renew or to promise; True when the deadline moved on.

    Args:
        peer: the other region's agent.
        lease: our lease, under which the database may be writable.
        seconds: of one lease.
    """
    epoch, before, asked = lease.epoch, lease.deadline, boottime()
    if epoch is None or before is None:
        return False
    try:
        answer = await peer.relay(epoch=epoch, holder=lease.holder, deadline=seconds * PEER_SHARE)
    except DriverError as error:
        log("peer.silent", level="warning", epoch=epoch, found=error.found)
        return False
    if answer.record is not None:
        lease.relayed(answer.record, asked)
    elif answer.promised is not None:
        lease.promised(epoch, asked, answer.promised)
    moved = lease.deadline is not None and lease.deadline > before
    log(
        "peer.helped" if moved else "peer.refused",
        level="warning",
        epoch=epoch,
        by="relaying" if answer.record is not None else "a promise" if answer.promised is not None else "",
        why=answer.why,
    )
    return moved


def _answer(
    *, record: Authority | None = None, promised: float | None = None, why: str = ""
) -> dict[str, Any]:
    return {"record": None if record is None else encode_authority(record), "promised": promised, "why": why}
