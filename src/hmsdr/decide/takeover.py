"""Taking the right to write away: what comes next, and what evidence is enough (SAFETY rules 4, 9, 10). Pure.

It never starts from a read: the wait counts from the answer to *this* taker's own revocation, on its own clock, so a
successor waits afresh. It asks, waits and swaps nothing itself; the record's transitions are `hmsdr.decide.authority`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hmsdr.decide.authority import (
    Authority,
    AuthorityRefused,
    LeaseWaited,
    Phase,
    Receipt,
    prove_fenced,
    required_wait,
    revoke,
)


@dataclass(frozen=True, slots=True)
class Takeover:
    """One attempt to free the right that is held under ``epoch``, for the instance ``to``.

    ``since`` is when this taker's revocation was answered, in seconds on its own clock, which never jumps. ``clean``
    asks for a hand-over that loses nothing: it waits for the receipt beyond the lease.
    """

    epoch: int
    to: str
    drift_margin: float
    clean: bool = False
    since: float | None = None
    revoked: Authority | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """Put ``new`` in the place of the record that was read."""

    new: Authority


@dataclass(frozen=True, slots=True)
class Await:
    """Ask the old side for a receipt; look again after ``seconds`` at the latest (0: only a receipt helps)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Free:
    """Put ``new`` in the place of the record: the old side is proved unable to write, by ``proof``."""

    new: Authority
    proof: Receipt | LeaseWaited


@dataclass(frozen=True, slots=True)
class Freed:
    """The right is free under the epoch: it may be granted."""


Move = Revoke | Await | Free | Freed


def answered(takeover: Takeover, revoked: Authority, now: float) -> Takeover:
    """This taker's own revocation was answered, as `revoked`: from now on the wait counts. A repeat moves nothing."""
    if takeover.since is not None:
        return takeover
    return replace(takeover, since=now, revoked=revoked)


def move(takeover: Takeover, record: Authority, now: float) -> Move:
    """What to do next, given the record as read just now.

    Raises:
        AuthorityRefused: another epoch is current: this takeover is void.
    """
    if record.epoch != takeover.epoch:
        raise AuthorityRefused(
            f"the plan was made for epoch {takeover.epoch}, the current one is {record.epoch}"
        )
    if record.phase in (Phase.VACANT, Phase.HANDING_OVER):
        return Freed()
    if takeover.since is None or record.phase is Phase.HELD:
        return Revoke(revoke(record, takeover.epoch))
    proof = enough(takeover, now)
    if proof is None:
        return Await(left(takeover, now))
    return Free(prove_fenced(record, proof, handover_to=handover(takeover, proof)), proof)


def left(takeover: Takeover, now: float) -> float:
    """Seconds until the lease has surely run out; 0 when it has, or when nothing was revoked yet."""
    if takeover.since is None or takeover.revoked is None:
        return 0.0
    # The same arithmetic as the proof's: rounding must not call it over and the proof too short.
    return max(0.0, required_wait(takeover.revoked, takeover.drift_margin) - (now - takeover.since))


def enough(takeover: Takeover, now: float, *, patient: bool | None = None) -> Receipt | LeaseWaited | None:
    """The proof there is by now; None when it is still missing.

    Args:
        takeover: what is known.
        now: seconds on the clock of ``since``.
        patient: keep to the receipt although the lease has run out; by default when a clean hand-over is wanted.
    """
    if takeover.receipt is not None:
        return takeover.receipt
    if takeover.since is None or takeover.revoked is None or left(takeover, now) > 0:
        return None
    if takeover.clean if patient is None else patient:
        return None
    return LeaseWaited(epoch=takeover.epoch, seconds=now - takeover.since, drift_margin=takeover.drift_margin)


def handover(takeover: Takeover, proof: Receipt | LeaseWaited) -> str | None:
    """Whom the right is handed over to; None when the end of what was committed is not known (rule 9)."""
    known = isinstance(proof, Receipt) and proof.clean and not proof.unused and proof.last_lsn is not None
    return takeover.to if known else None


@dataclass(frozen=True, slots=True)
class Side:
    """A database that the right may be granted to, as its agent told just now.

    ``data_epoch`` is the epoch whose history its data is of; ``lsn`` what it has replayed or written, in bytes of WAL.
    """

    instance: str
    incarnation: str
    data_epoch: int
    lsn: int


def recipient(record: Authority, sides: Sequence[Side], wanted: str | None) -> Side | None:
    """Who is granted the free right: forward where nothing is lost by it, else back to the side that gave (rule 9).

    Asked before the grant, because the grant is the point of no return (rule 10): a side that lacks what was handed over
    could never promote, and nobody could write.

    Args:
        record: vacant or being handed over.
        sides: those that answer.
        wanted: the instance that it is freed for, when that is known; a hand-over says so itself.
    """
    least = record.handover_lsn or 0
    has = {
        side.instance: side for side in sides if side.data_epoch == record.data_epoch and side.lsn >= least
    }
    if record.phase is Phase.HANDING_OVER:
        order: tuple[str | None, ...] = (record.handover_to, record.handover_from)
    else:
        order = (wanted, *sorted(has))
    return next((has[instance] for instance in order if instance in has), None)
