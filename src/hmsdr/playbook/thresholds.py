"""The figures that decisions are made by: hold-downs, gates, deadlines, targets. Frozen data only."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from hmsdr.playbook.base import Duration, Section


class Probing(Section):
    """How often and how patiently the systems are asked."""

    interval: Duration
    """Time from one probe of a system to the next."""
    timeout: Duration
    """A probe that takes longer counts as no answer."""


class Triggers(Section):
    """How long a condition must last before a failover is decided (FA-1)."""

    region_unreachable: Duration
    """The active region cannot be reached for this long."""
    critical_services_unavailable: Duration
    """Critical services do not answer for this long."""
    critical_services: Annotated[int, Field(ge=1)] = 1
    """So many critical services must be unavailable at once."""
    critical_services_recovery: Duration = timedelta(seconds=30)
    """A service must answer again for this long before its clock is set back: a single answer does not."""


Policy = Literal["automatic", "propose"]


class Automation(Section):
    """What is done without a person."""

    region_unreachable: Policy = "automatic"
    """The active region is confirmed lost: fail over, or propose it and wait for `veto`."""
    critical_services_unavailable: Policy = "automatic"
    """Critical services are confirmed unavailable, and could run in the other region: the same."""
    database_corruption: Policy = "propose"
    """The active region's database is damaged, and the other one is not: the same."""
    veto: Duration = timedelta(minutes=2)
    """How long a proposal waits for somebody to stop it."""
    cool_down: Duration = timedelta(minutes=30)
    """After a failover, the next one within this long takes a person."""


class Verification(Section):
    """What independent evidence a failover needs (FA-3)."""

    sites: Annotated[int, Field(ge=2)] = 2
    """Sites that must agree."""
    kinds: Annotated[int, Field(ge=2, le=4)] = 2
    """Kinds of path (public, the region's own, database …) that must agree."""
    deadline: Duration
    """Verification that takes longer holds the failover and alerts."""


def _room_for_lag(count: int) -> int:
    if count > 0:
        return count
    raise PydanticCustomError(
        "room_for_lag",
        "more than 0, such as 67108864 (64 MiB)",
        {
            "remedy": "A standby is always some bytes behind a primary that writes: 0 would refuse every failover."
        },
    )


class Gates(Section):
    """The prerequisites of a failover (FM-1)."""

    replication_lag: Duration
    """Largest replication lag, in time."""
    replication_lag_bytes: Annotated[int, AfterValidator(_room_for_lag)]
    """Largest replication lag, in bytes."""
    last_known_lag_age: Duration
    """With the primary gone, its last measured lag counts only when it is not older than this."""
    backup_age: Duration
    """Largest age of the newest backup."""
    backup_bytes: Annotated[int, Field(ge=1)] = 65536
    """A smaller object under the backups' prefix is no backup of a database."""


class Targets(Section):
    """Recovery objectives."""

    rto: Duration
    """From the first failed user request to the first success."""
    rpo: Duration
    """Writes of this long may be lost."""


class Thresholds(Section):
    """All figures."""

    probing: Probing
    """How the systems are asked."""
    triggers: Triggers
    """When a failover is decided."""
    verification: Verification
    """What must be proved first."""
    automation: Automation = Automation()
    """What is done without a person."""
    gates: Gates
    """What must hold before a failover."""
    targets: Targets
    """What it is measured against."""
