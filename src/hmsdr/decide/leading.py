"""What the leading controller decides about a failover, and why it decides nothing (FA-1, FA-3, FA-4). Pure.

It proposes; carrying it out is a run of a runbook, which begins with the revocation of exactly the epoch named here: a
decision made on an older epoch is void wherever it was queued.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.testimony import Finding, Verdict


class Why(StrEnum):
    """Why nothing is decided."""

    NOBODY_HOLDS = "nobody holds the right to write: what was begun is finished first"
    WELL = "the active region is not lost"
    WAITING = "not enough sites have found it lost for long enough"
    DISAGREEMENT = "the sites disagree: a person must look"
    COOLING_DOWN = "the last failover was too recent for another one without a person"
    TARGET_NOT_READY = "the other region's database cannot take over"


@dataclass(frozen=True, slots=True)
class Target:
    """The side that would take over, as its agent told last.

    ``age`` is how old that is, in seconds; ``following`` says that it is a standby of the holder which was streaming
    from it, or did until the holder was lost; ``sound`` that nothing speaks against its data.
    """

    instance: str
    incarnation: str
    age: float
    following: bool
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing is done, for this reason."""

    why: Why


@dataclass(frozen=True, slots=True)
class FailOver:
    """Take the right from the holder of ``epoch`` and give it to ``target``; void once another epoch is current."""

    epoch: int
    source: str
    target: str


Decision = Stay | FailOver


def decide(
    record: Authority,
    finding: Finding,
    target: Target | None,
    *,
    since_last: float | None,
    cool_down: float,
    fresh: float,
) -> Decision:
    """Whether the holder's region is failed over now, without a person.

    Args:
        record: the authority record.
        finding: what the sites say of the holder's region.
        target: the other side; None when it never told.
        since_last: seconds since the last failover, as long as this controller knows; None when there was none.
        cool_down: that must pass between an automatic failover and the next, in seconds.
        fresh: how long the word of the target's agent counts, in seconds.
    """
    if record.phase is not Phase.HELD or record.holder is None:
        return Stay(Why.NOBODY_HOLDS)
    if finding.verdict is not Verdict.CONFIRMED:
        return Stay(Why[finding.verdict.name])
    if since_last is not None and since_last < cool_down:
        return Stay(Why.COOLING_DOWN)
    ready = target is not None and target.age <= fresh and target.following and target.sound
    if target is None or not ready or target.instance == record.holder.instance:
        return Stay(Why.TARGET_NOT_READY)
    return FailOver(record.epoch, record.holder.instance, target.instance)
