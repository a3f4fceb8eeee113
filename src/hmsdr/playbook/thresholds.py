"""The figures that decisions are made by: hold-downs, gates, deadlines, targets. Frozen data only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hmsdr.playbook.base import Duration, Model


class Probing(Model):
    """How often and how patiently the systems are asked."""

    interval: Duration
    timeout: Duration


class Triggers(Model):
    """How long a condition must last before a failover is decided (FA-1)."""

    region_unreachable: Duration
    critical_services_unavailable: Duration


class Verification(Model):
    """What independent evidence a failover needs (FA-3)."""

    sites: Annotated[int, Field(ge=2)] = 2
    kinds: Annotated[int, Field(ge=2)] = 2
    deadline: Duration


class Gates(Model):
    """The prerequisites of a failover (FM-1)."""

    replication_lag: Duration
    replication_lag_bytes: Annotated[int, Field(ge=0)]
    last_known_lag_age: Duration
    """With the primary gone, its last measured lag counts only when it is not older than this."""
    backup_age: Duration


class Targets(Model):
    """Recovery objectives."""

    rto: Duration
    rpo: Duration


class Thresholds(Model):
    """All figures."""

    probing: Probing
    triggers: Triggers
    verification: Verification
    gates: Gates
    targets: Targets
