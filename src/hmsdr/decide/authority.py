"""Who may write: the authority record and its transitions (SAFETY.md, rules 1, 4, 5, 9, 10). Pure.

This file owns the states. The record is changed only by compare-and-swap of its whole value, so each
function takes the record that was read and gives the one to put in its place, or refuses with a reason.
Waiting, fencing and promoting are done at the edges; here stands what evidence of them is enough.

    from          by                      to            needs
    VACANT        grant                   HELD e+1      nobody can write under e (that is why it is vacant)
    HELD          renew                   HELD          same holder, same epoch
    HELD          adopt                   HELD          same instance, new incarnation of its agent
    HELD          revoke                  REVOKING      -
    REVOKING      prove_fenced            VACANT        receipt of the holder, or lease x (1 + drift) waited
    REVOKING      prove_fenced (hand-over) HANDING_OVER clean receipt of the holder with its last LSN
    HANDING_OVER  grant                   HELD e+1      to the named instance, or back to the one that gave

The grant is the point of no return: going back is a new revocation under a new epoch (rule 10).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from hmsdr.decide.lsn import format_lsn


class Phase(StrEnum):
    """Phase of the right to write."""

    VACANT = "vacant"
    HELD = "held"
    REVOKING = "revoking"
    HANDING_OVER = "handing_over"


@dataclass(frozen=True, slots=True)
class Holder:
    """A database instance and one life of the agent beside it: not a region."""

    instance: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Authority:
    """The one record that says who may write.

    ``epoch`` counts grants and never goes back. ``lease_seconds`` is the holder's lease. ``renewal`` makes
    every renewal a different value. ``handover_lsn`` (bytes of WAL) is the LSN below which the next holder
    must not promote; ``handover_to`` names the instance that a hand-over is for, ``handover_from`` the giver.
    ``data_epoch`` is the newest epoch under which anything may have been written: an epoch that was granted and never used
    changes nothing of what the next holder must have.
    """

    epoch: int
    phase: Phase
    holder: Holder | None
    lease_seconds: float
    renewal: int = 0
    handover_from: str | None = None
    handover_to: str | None = None
    handover_lsn: int | None = None
    data_epoch: int = 0

    def __post_init__(self) -> None:
        """Assert what no transition may break."""
        if self.epoch < 0 or self.lease_seconds <= 0:
            raise AuthorityRefused(f"epoch {self.epoch} or lease {self.lease_seconds} s is impossible")
        if (self.holder is not None) != (self.phase in (Phase.HELD, Phase.REVOKING)):
            raise AuthorityRefused(f"phase {self.phase} does not go with holder {self.holder}")
        if (self.handover_to is not None) != (self.phase is Phase.HANDING_OVER):
            raise AuthorityRefused(f"phase {self.phase} does not go with a hand-over to {self.handover_to}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An agent's word that every process of its database is dead (rule 3).

    ``last_lsn`` is None when the end of WAL could not be read. ``clean`` says that the database was shut
    down with a checkpoint, so that `last_lsn` covers everything it ever acknowledged. ``unused`` says that it never accepted
    a promotion under this epoch.
    """

    instance: str
    incarnation: str
    epoch: int
    last_lsn: int | None
    clean: bool
    survivors: int
    unused: bool = False


@dataclass(frozen=True, slots=True)
class LeaseWaited:
    """The waiter's own measure, on its monotonic clock, since *its* revocation was answered (rule 4)."""

    epoch: int
    seconds: float
    drift_margin: float


class AuthorityRefused(Exception):  # noqa: N818 - a refusal is an answer of the protocol, not a fault
    """The transition is not allowed from this state; the text says why."""


def initial(lease_seconds: float) -> Authority:
    """The record before the first grant."""
    return Authority(epoch=0, phase=Phase.VACANT, holder=None, lease_seconds=lease_seconds)


def required_wait(authority: Authority, drift_margin: float) -> float:
    """Seconds to wait, from the answer to the revocation, until the lease has surely run out."""
    return authority.lease_seconds * (1 + drift_margin)


def renew(authority: Authority, holder: Holder) -> Authority:
    """Extend the lease of `holder` by one lease from when it asked."""
    if authority.phase is not Phase.HELD:
        raise AuthorityRefused(f"the right to write is {authority.phase}, not held: no renewal")
    if authority.holder != holder:
        raise AuthorityRefused(
            f"{_name(authority.holder)} holds epoch {authority.epoch}, not {_name(holder)}"
        )
    return replace(authority, renewal=authority.renewal + 1)


def adopt(authority: Authority, holder: Holder) -> Authority:
    """A new agent takes over its own running database: same instance, same epoch, nothing is promoted.

    Safe because one data directory has one agent (lock) and no second database can be meant.
    """
    if authority.phase is not Phase.HELD or authority.holder is None:
        raise AuthorityRefused(f"the right to write is {authority.phase}, not held: nothing to adopt")
    if authority.holder.instance != holder.instance:
        raise AuthorityRefused(
            f"{_name(authority.holder)} holds epoch {authority.epoch}, not {holder.instance}"
        )
    return replace(authority, holder=holder, renewal=authority.renewal + 1)


def revoke(authority: Authority, epoch: int) -> Authority:
    """Take the right away: from now on renewals fail. Repeating it changes nothing."""
    if authority.epoch != epoch:
        raise AuthorityRefused(f"the plan was made for epoch {epoch}, the current one is {authority.epoch}")
    if authority.phase is Phase.REVOKING:
        return authority
    if authority.phase is not Phase.HELD:
        raise AuthorityRefused(f"the right to write is {authority.phase}: there is nothing to revoke")
    return replace(authority, phase=Phase.REVOKING, renewal=authority.renewal + 1)


def prove_fenced(
    authority: Authority, evidence: Receipt | LeaseWaited, *, handover_to: str | None = None
) -> Authority:
    """Free the right to write on evidence that the holder cannot write any more.

    With `handover_to`, a clean receipt is required, and its LSN binds the next holder (rule 9).
    """
    if authority.phase is not Phase.REVOKING or authority.holder is None:
        raise AuthorityRefused(
            f"the right to write is {authority.phase}, not being revoked: no proof is asked for"
        )
    if evidence.epoch != authority.epoch:
        raise AuthorityRefused(
            f"the proof is for epoch {evidence.epoch}, the current one is {authority.epoch}"
        )
    if isinstance(evidence, LeaseWaited):
        _refuse_short(authority, evidence)
        if handover_to is not None:
            raise AuthorityRefused("a hand-over needs a clean fence receipt, not a wait")
        return _vacant(authority, None, authority.epoch)
    _refuse_foreign(authority.holder, evidence)
    if evidence.unused:
        # Nothing was written under this epoch: what the side before handed over still binds whoever comes next.
        return _vacant(authority, authority.handover_lsn, authority.data_epoch)
    if handover_to is None:
        return _vacant(authority, evidence.last_lsn if evidence.clean else None, authority.epoch)
    if not evidence.clean or evidence.last_lsn is None:
        raise AuthorityRefused("a hand-over needs a clean shutdown with a known last LSN")
    return replace(
        authority,
        phase=Phase.HANDING_OVER,
        holder=None,
        handover_from=evidence.instance,
        handover_to=handover_to,
        handover_lsn=evidence.last_lsn,
        data_epoch=authority.epoch,
        renewal=authority.renewal + 1,
    )


def _refuse_short(authority: Authority, waited: LeaseWaited) -> None:
    needed = required_wait(authority, waited.drift_margin)
    if waited.drift_margin <= 0 or waited.seconds < needed:
        raise AuthorityRefused(f"only {waited.seconds:.3f} s of {needed:.3f} s were waited")


def _refuse_foreign(holder: Holder, receipt: Receipt) -> None:
    if receipt.instance != holder.instance:
        raise AuthorityRefused(f"the receipt is of {receipt.instance}, the holder is {holder.instance}")
    if receipt.survivors:
        raise AuthorityRefused(f"{receipt.survivors} processes of the database are still alive")


def grant(authority: Authority, to: Holder, *, lease_seconds: float | None = None) -> Authority:
    """Give the free right to write to `to` under the next epoch."""
    if authority.phase is Phase.HANDING_OVER and to.instance not in (
        authority.handover_to,
        authority.handover_from,
    ):
        raise AuthorityRefused(
            f"it is being handed over to {authority.handover_to} at {format_lsn(authority.handover_lsn or 0)}, "
            f"not to {to.instance}"
        )
    if authority.phase not in (Phase.VACANT, Phase.HANDING_OVER):
        raise AuthorityRefused(
            f"the right to write is {authority.phase} by {_name(authority.holder)} under epoch {authority.epoch}"
        )
    return replace(
        authority,
        epoch=authority.epoch + 1,
        phase=Phase.HELD,
        holder=to,
        lease_seconds=authority.lease_seconds if lease_seconds is None else lease_seconds,
        renewal=0,
        handover_from=None,
        handover_to=None,
    )


def may_promote(authority: Authority, holder: Holder, epoch: int, replayed_lsn: int) -> None:
    """Refuse a promotion that is not this holder's, not of this epoch, or would lose handed-over commits."""
    if authority.phase is not Phase.HELD or authority.holder != holder or authority.epoch != epoch:
        raise AuthorityRefused(
            f"{_name(holder)} asks to promote under epoch {epoch}; the record says {authority.phase} by "
            f"{_name(authority.holder)} under epoch {authority.epoch}"
        )
    if authority.handover_lsn is not None and replayed_lsn < authority.handover_lsn:
        raise AuthorityRefused(
            f"replayed up to {format_lsn(replayed_lsn)}, the hand-over asks for {format_lsn(authority.handover_lsn)}"
        )


def _vacant(authority: Authority, lsn: int | None, data_epoch: int) -> Authority:
    return replace(
        authority,
        phase=Phase.VACANT,
        holder=None,
        handover_lsn=lsn,
        data_epoch=data_epoch,
        renewal=authority.renewal + 1,
    )


def _name(holder: Holder | None) -> str:
    return "nobody" if holder is None else f"{holder.instance}/{holder.incarnation}"
