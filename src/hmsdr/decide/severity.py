"""Which severity an incident would be declared with, proposed from what is seen (CL-1, CL-3). Pure.

It proposes; a person declares, and may know better. Each reason is something that was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmsdr.playbook.people import SeverityName

_SEVERAL = 2
_NOBODY = 0.0
_EVERYBODY = 1.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What is seen. Names are the playbook's."""

    regions: int
    """How many there are."""
    lost: tuple[str, ...] = ()
    """Regions that are unreachable."""
    active: str | None = None
    """The region with the right to write, when it is known."""
    services: int = 0
    """How many there are."""
    down: tuple[str, ...] = ()
    """Services that nobody reaches on any path."""
    damaged: tuple[str, ...] = ()
    """Regions whose database shows signs of damage."""
    unwritable: bool = False
    """No region may write: what the wards enter cannot be saved."""
    degraded: tuple[str, ...] = ()
    """What is slow, or not as it should be, in words."""
    reached: float | None = None
    """Part of the patients whose care still reaches the hospital's systems, 0 to 1; None when nobody can tell."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A severity, and why."""

    severity: SeverityName
    reasons: tuple[str, ...]


def propose(seen: Situation) -> Proposal | None:
    """The gravest severity that what is seen gives reason for; None when nothing is the matter."""
    return _complete(seen) or _regional(seen) or _single(seen) or _limited(seen)


def _complete(seen: Situation) -> Proposal | None:
    """SEV-0: a complete outage, all patients."""
    reasons = []
    if seen.regions and len(seen.lost) >= seen.regions:
        reasons.append(f"every region is lost: {', '.join(seen.lost)}")
    if seen.services and len(seen.down) >= seen.services:
        reasons.append("no service answers on any path")
    if seen.reached is not None and seen.reached <= _NOBODY:
        reasons.append("no patient is reached")
    return Proposal("SEV-0", tuple(reasons)) if reasons else None


def _regional(seen: Situation) -> Proposal | None:
    """SEV-1: a region, several services."""
    reasons = []
    if seen.active is not None and seen.active in seen.lost:
        reasons.append(f"the active region {seen.active} is lost")
    if len(seen.down) >= _SEVERAL:
        reasons.append(f"{len(seen.down)} services are down: {', '.join(seen.down)}")
    if seen.active is not None and seen.active in seen.damaged:
        reasons.append(f"the database of {seen.active}, which all services use, is damaged")
    if seen.unwritable:
        reasons.append("no region may write: nothing can be saved")
    return Proposal("SEV-1", tuple(reasons)) if reasons else None


def _single(seen: Situation) -> Proposal | None:
    """SEV-2: one service, some patients."""
    reasons = [f"{service} is down" for service in seen.down]
    if seen.reached is not None and seen.reached < _EVERYBODY:
        reasons.append(f"{seen.reached:.0%} of the patients are reached")
    return Proposal("SEV-2", tuple(reasons)) if reasons else None


def _limited(seen: Situation) -> Proposal | None:
    """SEV-3: degraded performance or limited impact; what only protects the hospital is among it."""
    reasons = [f"{region} is lost, and serves nobody now" for region in seen.lost]
    reasons += [f"the database of {region} is damaged, and serves nobody now" for region in seen.damaged]
    reasons += seen.degraded
    return Proposal("SEV-3", tuple(reasons)) if reasons else None
