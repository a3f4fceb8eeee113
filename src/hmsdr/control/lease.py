"""Holding the right to write: renewals by compare-and-swap, and the deadline that follows from them (SAFETY rule 1).

The deadline is counted on the boot-time clock from *before* the request was sent. An answer that is late, lost
or unclear is no renewal. Nothing here stops a database: the guard and the agent do, at the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

from hmsdr.control.proctable import boottime
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, Phase, adopt, renew
from hmsdr.log.store import AuthorityStore, StoreError


class Renewal(StrEnum):
    """What became of one attempt."""

    HELD = "held"
    """The store took it: the deadline moved on."""
    NOT_OURS = "not ours"
    """The record was read, and it gives us no right, or not any more."""
    UNCLEAR = "unclear"
    """No clear answer: the deadline stays where it was."""


class Lease:
    """The lease of one database instance, as one life of its agent sees it.

    Args:
        store: keeper of the authority record.
        holder: this instance and this life of its agent.
        drift_margin: largest difference of clock rates, as a fraction.
        wanted: whether to renew this record at all (not when fenced under its epoch).
    """

    def __init__(
        self,
        store: AuthorityStore,
        holder: Holder,
        drift_margin: float,
        wanted: Callable[[Authority], bool] = lambda _: True,
    ) -> None:
        self.holder = holder
        self.record: Authority | None = None
        """The record as last read or written."""
        self.deadline: float | None = None
        """Until when we may write, in boot-time seconds; None when we hold nothing."""
        self.epoch: int | None = None
        """Epoch of `deadline`."""
        self._store = store
        self._drift_margin = drift_margin
        self._wanted = wanted
        self._lock = asyncio.Lock()

    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 when we hold nothing."""
        return 0.0 if self.deadline is None else max(0.0, self.deadline - boottime())

    def live(self, epoch: int) -> bool:
        """Whether we may write under `epoch` now."""
        return self.epoch == epoch and self.seconds_left() > 0

    def drop(self) -> None:
        """Give up what we hold here, without telling the store."""
        self.deadline = None
        self.epoch = None

    async def renew(self, deadline: float) -> Renewal:
        """One attempt, of at most `deadline` seconds. Also takes over what an earlier life of this agent held."""
        async with self._lock:
            asked = boottime()  # before the request: the store's clock starts no earlier than this
            try:
                async with asyncio.timeout(deadline):
                    record = await self._store.read_authority()
                    self.record = record
                    try:
                        new = self._next(record)
                    except AuthorityRefused:
                        return Renewal.NOT_OURS
                    if not await self._store.swap_authority(record, new):
                        return Renewal.UNCLEAR  # somebody changed it in between: the next attempt reads why
            except (StoreError, TimeoutError):
                return Renewal.UNCLEAR
            self.record = new
            self.epoch = new.epoch
            self.deadline = asked + new.lease_seconds * (1 - self._drift_margin)
            return Renewal.HELD

    def _next(self, record: Authority) -> Authority:
        if not self._wanted(record):
            raise AuthorityRefused("fenced here under this epoch")
        ours = record.phase is Phase.HELD and record.holder is not None
        if ours and record.holder != self.holder:
            return adopt(record, self.holder)
        return renew(record, self.holder)
