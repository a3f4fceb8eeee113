"""Independent confirmation that a region, or a service of it, is lost (FA-3): what several sites say, weighed. Pure.

One site's own judgement over time is `hmsdr.decide.outage`; here several are compared. Who is blind does not count; one
fresh word that it answers is a disagreement, and a disagreement holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.outage import Sight


@dataclass(frozen=True, slots=True)
class Testimony:
    """What one site last said of one subject: a region, or a service of a region as `of_service` names it.

    ``lost_for`` is for how many seconds, without a break, the site had found it unreachable; ``kinds`` are the kinds of
    path that it tried in vain; ``heard`` is when the judge received it, on the judge's clock.
    """

    site: str
    subject: str
    sight: Sight
    lost_for: float
    kinds: frozenset[str]
    heard: float


class Verdict(StrEnum):
    """What the sites say together."""

    WELL = "well"
    """Nobody with fresh eyes finds it unreachable."""
    WAITING = "waiting"
    """Some find it unreachable: not for long enough, on too few kinds of path, or too few of them."""
    DISAGREEMENT = "disagreement"
    """One finds it lost, another one reaches it: hold, and alert."""
    CONFIRMED = "confirmed"
    """Enough sites, on enough kinds of path, for the whole hold-down; nobody reaches it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict and who stands where."""

    verdict: Verdict
    lost: tuple[str, ...] = ()
    """Sites that have found it unreachable for the whole hold-down."""
    reach: tuple[str, ...] = ()
    """Sites that reach it."""
    silent: tuple[str, ...] = ()
    """Sites that are blind, or whose last word is too old."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How much is enough. ``hold_down`` and ``fresh`` (how long a word counts) in seconds."""

    hold_down: float
    sites: int
    kinds: int
    fresh: float


def of_service(service: str, region: str) -> str:
    """The subject that `service` of `region` is."""
    return f"{service}@{region}"


def weigh(testimonies: Iterable[Testimony], subject: str, rules: Rules, now: float) -> Finding:
    """The verdict on `subject` from everybody's last word, as heard by `now` on the judge's clock."""
    lost, reach, silent, doubtful = [], [], [], []
    for each in testimonies:
        if each.subject != subject:
            continue
        if now - each.heard > rules.fresh or each.sight is Sight.BLIND:
            silent.append(each.site)
        elif each.sight is Sight.REACHABLE:
            reach.append(each.site)
        elif each.lost_for >= rules.hold_down and len(each.kinds) >= rules.kinds:
            lost.append(each.site)
        else:
            doubtful.append(each.site)
    if lost and reach:
        verdict = Verdict.DISAGREEMENT
    elif len(set(lost)) >= rules.sites:
        verdict = Verdict.CONFIRMED
    elif lost or doubtful:
        verdict = Verdict.WAITING
    else:
        verdict = Verdict.WELL
    return Finding(verdict, tuple(sorted(lost)), tuple(sorted(reach)), tuple(sorted(silent)))
