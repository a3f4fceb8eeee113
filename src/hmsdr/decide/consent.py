"""What the playbook's policy makes of a decided failover: at once, or a proposal that people have time to stop (FA-1). Pure.

A veto stops every cause for as long as the region keeps its epoch. A proposal whose cause went away is withdrawn, so that an old
one never stands for the time that people were promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.leading import Cause
from hmsdr.playbook.thresholds import Automation, Policy


class Consent(StrEnum):
    """What comes next."""

    GO = "go"
    PROPOSE = "propose"
    """Say it, and wait."""
    WAIT = "wait"
    """It is proposed, and somebody may still stop it."""
    STOPPED = "stopped"
    """Somebody did."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the log says under the current epoch: whether anybody stopped it, and when the cause was proposed (None: not yet)."""

    vetoed: bool
    proposed_at: float | None


def policy(automation: Automation, cause: Cause) -> Policy:
    """The playbook's policy for a cause."""
    match cause:
        case Cause.REGION:
            return automation.region_unreachable
        case Cause.SERVICES:
            return automation.critical_services_unavailable
        case Cause.CORRUPTION:
            return automation.database_corruption


def consent(automation: Automation, cause: Cause, heard: Heard, now: float) -> Consent:
    """Whether a failover that was decided for `cause` is carried out at `now`."""
    if heard.vetoed:
        return Consent.STOPPED
    if policy(automation, cause) == "automatic":
        return Consent.GO
    if heard.proposed_at is None:
        return Consent.PROPOSE
    return Consent.GO if now - heard.proposed_at >= automation.veto.total_seconds() else Consent.WAIT
