"""The holder's side of the right to write: until when a database may, and what ends it (SAFETY rules 1, 3, 5, 6). Pure.

The state is what one life of an agent knows; times are seconds on its boot-time clock, handed in. The record itself, and
who may have it next, is `hmsdr.decide.authority`; whoever takes it away is `hmsdr.decide.takeover`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, Phase, adopt, renew


@dataclass(frozen=True, slots=True)
class Tenure:
    """What an agent knows of its right.

    ``record`` is the authority record as last read or written. ``deadline`` is until when the database may write under
    ``epoch``; both are None while nothing is held.
    """

    holder: Holder
    drift_margin: float
    record: Authority | None = None
    epoch: int | None = None
    deadline: float | None = None

    def seconds_left(self, now: float) -> float:
        """Seconds until the deadline; 0 when nothing is held."""
        return 0.0 if self.deadline is None else max(0.0, self.deadline - now)

    def live(self, epoch: int, now: float) -> bool:
        """Whether the database may write under `epoch` now."""
        return self.epoch == epoch and self.seconds_left(now) > 0

    def ours(self) -> bool:
        """Whether the record names this instance, in whatever phase."""
        record = self.record
        return (
            record is not None
            and record.holder is not None
            and record.holder.instance == self.holder.instance
        )


class Standing(StrEnum):
    """What a database that may be writable must do now."""

    GO_ON = "go on"
    """Publish the deadline to the guard and go on."""
    STOP_CLEANLY = "stop cleanly"
    """The right is being taken away, and there is time to shut down with a checkpoint."""
    STOP_NOW = "stop now"
    """The right is somebody else's or nobody's: kill."""
    EXPIRED = "expired"
    """The deadline passed without news: kill, and wait for the right to come back."""


def asks(tenure: Tenure, record: Authority, *, fenced_epoch: int | None) -> Authority:
    """The record to put in the place of `record`: a renewal, or the adoption of what an earlier life held.

    Args:
        tenure: whose it is.
        record: as read just now.
        fenced_epoch: writing up to this epoch is over here for good; None when nothing was fenced.

    Raises:
        AuthorityRefused: the record gives this instance no right.
    """
    if fenced_epoch is not None and record.epoch <= fenced_epoch:
        raise AuthorityRefused(f"fenced here under epoch {fenced_epoch}")
    if record.phase is Phase.HELD and record.holder is not None and record.holder != tenure.holder:
        return adopt(record, tenure.holder)
    return renew(record, tenure.holder)


def renewed(tenure: Tenure, record: Authority, asked: float) -> Tenure:
    """The store took `record`, asked for at `asked`: from *before* the request, less the margin (rule 1)."""
    deadline = asked + record.lease_seconds * (1 - tenure.drift_margin)
    if tenure.epoch == record.epoch and tenure.deadline is not None:
        deadline = max(deadline, tenure.deadline)
    return replace(tenure, record=record, epoch=record.epoch, deadline=deadline)


def promised(tenure: Tenure, epoch: int, asked: float, seconds: float) -> Tenure:
    """The peer promised `seconds`, asked for at `asked`, not to accept a grant: that moves the deadline too (rule 7)."""
    if tenure.epoch != epoch or tenure.deadline is None:
        return tenure
    deadline = asked + seconds * (1 - tenure.drift_margin)
    return replace(tenure, deadline=max(deadline, tenure.deadline))


def standing(tenure: Tenure, now: float, *, refused: bool, published: float | None) -> Standing:
    """What the last attempt to renew means for a database that may be writable.

    Args:
        tenure: what is known after the attempt.
        now: boot-time seconds.
        refused: the record was read, and it gives us no right, or not any more.
        published: the deadline that the guard has; None when it has none.
    """
    if refused:
        in_time = tenure.ours() and tenure.record is not None and tenure.record.phase is Phase.REVOKING
        return Standing.STOP_CLEANLY if in_time and tenure.seconds_left(now) > 0 else Standing.STOP_NOW
    if tenure.seconds_left(now) > 0 and (published is None or published > now):
        return Standing.GO_ON
    # The guard kills as well, whoever is first. A renewal that came after the deadline published is too late.
    return Standing.EXPIRED


def may_start_writable(tenure: Tenure, now: float, *, promoted_epoch: int, fenced_epoch: int | None) -> bool:
    """Whether a database that was promoted under `promoted_epoch` may be started as a primary again (rule 6)."""
    return (
        tenure.epoch is not None
        and tenure.epoch == promoted_epoch
        and tenure.live(tenure.epoch, now)
        and (fenced_epoch is None or fenced_epoch < tenure.epoch)
    )


class Delivery(StrEnum):
    """What an order to promote is, before the record is asked."""

    NEW = "new"
    DONE_BEFORE = "done before"
    """The same epoch was promoted here: say so, do nothing."""
    OLD = "old"
    """A newer epoch was accepted here: the order comes from an older plan."""
    FENCED = "fenced"
    """It was fenced under this epoch or a later one."""


def delivery(epoch: int, *, accepted_epoch: int, promoted_epoch: int, fenced_epoch: int | None) -> Delivery:
    """Judge an order to promote under `epoch` by what is durable here (rule 5)."""
    fenced = fenced_epoch is not None and fenced_epoch >= epoch
    if epoch == promoted_epoch and not fenced:
        return Delivery.DONE_BEFORE
    if epoch < accepted_epoch:
        return Delivery.OLD
    return Delivery.FENCED if fenced else Delivery.NEW
