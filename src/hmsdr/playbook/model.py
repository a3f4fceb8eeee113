"""The whole playbook as one frozen value. What was decided beforehand; reading it is all that may be done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hmsdr.playbook.base import Model
from hmsdr.playbook.people import (
    Audience,
    Cadence,
    Contacts,
    InternalChannels,
    Person,
    Role,
    Severity,
    SeverityName,
)
from hmsdr.playbook.thresholds import Thresholds
from hmsdr.playbook.topology import (
    Aws,
    CachePolicy,
    DatabasePolicy,
    Prometheus,
    Region,
    RegionName,
    Service,
    Store,
    Traffic,
    Witness,
)


class Playbook(Model):
    """A hospital's disaster-recovery playbook."""

    schema_version: Literal[1] = Field(alias="schema", default=1)
    name: str
    overlay: str | None = None
    """Name of the overlay that was laid over the base, when there was one; shown in every report."""
    regions: Annotated[dict[RegionName, Region], Field(min_length=2, max_length=2)]
    home_region: RegionName
    """The region that is active in calm times."""
    witness: Witness
    services: Annotated[dict[str, Service], Field(min_length=1)]
    traffic: Traffic
    aws: Aws = Aws()
    prometheus: Prometheus
    database: DatabasePolicy
    cache: CachePolicy = CachePolicy()
    store: Store
    thresholds: Thresholds
    severities: dict[SeverityName, Severity]
    people: tuple[Person, ...]
    roles: dict[str, Role]
    contacts: Contacts
    audiences: dict[str, Audience]
    cadence: Cadence
    channels: InternalChannels

    def other_region(self, name: str) -> str:
        """The region that is not `name`."""
        first, second = self.regions
        return second if name == first else first
