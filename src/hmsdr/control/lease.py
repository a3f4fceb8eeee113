"""Holding the right to write: renewals by compare-and-swap, and the deadline that follows from them (SAFETY rule 1).

The deadline is counted on the boot-time clock from *before* the request was sent. An answer that is late, lost
or unclear is no renewal. Nothing here stops a database: the guard and the agent do, at the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from hmsdr.control.proctable import boottime
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, Phase
from hmsdr.decide.rival import Rival, watch
from hmsdr.decide.tenure import Tenure, asks, promised, renewed
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
        fenced_epoch: up to which epoch writing is over here for good; None when nothing was fenced.
        knows: whether an epoch was accepted here: then what an earlier life held under it is ours to take over.
    """

    def __init__(
        self,
        store: AuthorityStore,
        holder: Holder,
        drift_margin: float,
        fenced_epoch: Callable[[], int | None] = lambda: None,
        knows: Callable[[int], bool] = lambda _epoch: True,
    ) -> None:
        self.tenure = Tenure(holder, drift_margin)
        self._store = store
        self._fenced_epoch = fenced_epoch
        self._knows = knows
        self._rival = Rival()
        self._lock = asyncio.Lock()

    @property
    def holder(self) -> Holder:
        """This instance and this life of its agent."""
        return self.tenure.holder

    @property
    def record(self) -> Authority | None:
        """The record as last read or written."""
        return self.tenure.record

    @property
    def deadline(self) -> float | None:
        """Until when we may write, in boot-time seconds; None when we hold nothing."""
        return self.tenure.deadline

    @property
    def epoch(self) -> int | None:
        """Epoch of `deadline`."""
        return self.tenure.epoch

    @property
    def rival(self) -> Holder | None:
        """Another agent that speaks for this instance, alive, under an epoch that was never accepted here."""
        return self._rival.holder if self._rival.alive else None

    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 when we hold nothing."""
        return self.tenure.seconds_left(boottime())

    def live(self, epoch: int) -> bool:
        """Whether we may write under `epoch` now."""
        return self.tenure.live(epoch, boottime())

    def drop(self) -> None:
        """Give up what we hold here, without telling the store."""
        self.tenure = replace(self.tenure, deadline=None, epoch=None)

    def noticed(self, record: Authority) -> None:
        """The record as somebody here read it just now: what is known of the right to write, never a renewal."""
        if self.tenure.record is None or record.epoch >= self.tenure.record.epoch:
            self.tenure = replace(self.tenure, record=record)

    def relayed(self, record: Authority, asked: float) -> bool:
        """The peer gave the record as it put or read it, asked for at `asked` (rule 7); whether that renews the right."""
        self.noticed(record)
        ours = record.holder == self.holder and record.phase is Phase.HELD and record.epoch == self.epoch
        if ours:
            self.tenure = renewed(self.tenure, record, asked)
        return ours

    def promised(self, epoch: int, asked: float, seconds: float) -> None:
        """The peer promised `seconds` to the holder of `epoch`, asked for at `asked` (rule 7)."""
        self.tenure = promised(self.tenure, epoch, asked, seconds)

    async def renew(self, deadline: float) -> Renewal:
        """One attempt, of at most `deadline` seconds. Also takes over what an earlier life of this agent held."""
        async with self._lock:
            asked = boottime()  # before the request: the store's clock starts no earlier than this
            try:
                async with asyncio.timeout(deadline):
                    record = await self._store.read_authority()
                    self.tenure = replace(self.tenure, record=record)
                    self._rival = watch(self._rival, record, self.holder, boottime(), knows=self._knows)
                    if not self._rival.gone(boottime(), record.lease_seconds):
                        return Renewal.UNCLEAR
                    try:
                        new = asks(self.tenure, record, fenced_epoch=self._fenced_epoch())
                    except AuthorityRefused:
                        return Renewal.NOT_OURS
                    if not await self._store.swap_authority(record, new):
                        return Renewal.UNCLEAR  # somebody changed it in between: the next attempt reads why
            except (StoreError, TimeoutError):
                return Renewal.UNCLEAR
            self.tenure = renewed(self.tenure, new, asked)
            return Renewal.HELD
