"""What the leading controller decides about a failover, and why it decides nothing (FA-1, FA-3, FA-4). Pure.

It proposes; carrying it out is a run of a runbook, which begins with the revocation of exactly the epoch named here: a
decision made on an older epoch is void wherever it was queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.testimony import Finding, Verdict


class Cause(StrEnum):
    """Why a region would be left without a person (FA-1). The fourth trigger is a person: a declared disaster."""

    REGION = "region-unreachable"
    SERVICES = "critical-services-unavailable"
    CORRUPTION = "database-corruption"


class Why(StrEnum):
    """Why nothing is decided."""

    NOBODY_HOLDS = "nobody holds the right to write: what was begun is finished first"
    WELL = "nothing speaks for leaving the active region"
    WAITING = "not enough sites have found it lost for long enough"
    DISAGREEMENT = "the sites disagree: a person must look"
    COOLING_DOWN = "the last failover was too recent for another one without a person"
    TARGET_NOT_READY = "the other region's database cannot take over"
    TARGET_DAMAGED = (
        "the other region's database is damaged, or may have replayed the damage: it is never promoted"
    )
    TARGET_UNSERVING = (
        "the services could not run in the other region either: failing over would mend nothing"
    )


@dataclass(frozen=True, slots=True)
class Target:
    """The side that would take over, as its agent told last.

    ``age`` is how old that is, in seconds; ``following`` says that it is a standby of the holder which was streaming
    from it, or did until the holder was lost; ``sound`` that nothing speaks against its data; ``serving`` that its own way in
    answers and the lost services are ready to run there.
    """

    instance: str
    incarnation: str
    age: float
    following: bool
    sound: bool = True
    serving: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """What speaks for leaving the active region."""

    cause: Cause
    finding: Finding


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing is done, for this reason; ``cause`` is what nearly sufficed, None when nothing speaks for leaving."""

    why: Why
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class FailOver:
    """Take the right from the holder of ``epoch`` and give it to ``target``; void once another epoch is current."""

    epoch: int
    source: str
    target: str
    cause: Cause = Cause.REGION


Decision = Stay | FailOver

_TELLING = (Verdict.DISAGREEMENT, Verdict.WAITING)
"""Of verdicts that are no reason to act, the more telling first."""


def decide(
    record: Authority,
    cases: Sequence[Case],
    target: Target | None,
    *,
    since_last: float | None,
    cool_down: float,
    fresh: float,
) -> Decision:
    """Whether the holder's region is failed over now, without a person.

    Args:
        record: the authority record.
        cases: what may speak for leaving the holder's region, the gravest first.
        target: the other side; None when it never told.
        since_last: seconds since the last failover, as long as this controller knows; None when there was none.
        cool_down: that must pass between an automatic failover and the next, in seconds.
        fresh: how long the word of the target's agent counts, in seconds.
    """
    if record.phase is not Phase.HELD or record.holder is None:
        return Stay(Why.NOBODY_HOLDS)
    confirmed = [case for case in cases if case.finding.verdict is Verdict.CONFIRMED]
    if not confirmed:
        return _short_of(cases)
    return _for(record, confirmed, target, since_last, cool_down, fresh)


def _for(
    record: Authority,
    confirmed: Sequence[Case],
    target: Target | None,
    since_last: float | None,
    cool_down: float,
    fresh: float,
) -> Decision:
    """The same, once something was confirmed."""
    assert record.holder is not None  # noqa: S101 - held
    if since_last is not None and since_last < cool_down:
        return Stay(Why.COOLING_DOWN, confirmed[0].cause)
    ready = target is not None and target.age <= fresh and target.following
    if target is None or not ready or target.instance == record.holder.instance:
        return Stay(Why.TARGET_NOT_READY, confirmed[0].cause)
    if not target.sound:
        return Stay(Why.TARGET_DAMAGED, confirmed[0].cause)
    # A failover for the services' sake must mend them; one for the sake of the region or of the data need not.
    mended = [case.cause for case in confirmed if case.cause is not Cause.SERVICES or target.serving]
    if not mended:
        return Stay(Why.TARGET_UNSERVING, Cause.SERVICES)
    return FailOver(record.epoch, record.holder.instance, target.instance, mended[0])


def _short_of(cases: Sequence[Case]) -> Stay:
    for verdict in _TELLING:
        for case in cases:
            if case.finding.verdict is verdict:
                return Stay(Why[verdict.name], case.cause)
    return Stay(Why.WELL)
