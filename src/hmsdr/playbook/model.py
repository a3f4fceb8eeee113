"""The whole playbook as one frozen value. What was decided beforehand; reading it is all that may be done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hmsdr.playbook.backups import BackupPolicy
from hmsdr.playbook.base import Section
from hmsdr.playbook.endpoints import Endpoint
from hmsdr.playbook.oncall import OnCall
from hmsdr.playbook.people import (
    Audience,
    Cadence,
    Contacts,
    InternalChannels,
    Person,
    Role,
    Severity,
    SeverityName,
    StatusPage,
)
from hmsdr.playbook.procedures import Procedures
from hmsdr.playbook.thresholds import Thresholds
from hmsdr.playbook.topology import (
    Aws,
    CachePolicy,
    ControllerEndpoint,
    DatabasePolicy,
    Prometheus,
    Region,
    RegionName,
    Service,
    Store,
    Traffic,
    Witness,
)


class Playbook(Section):
    """A hospital's disaster-recovery playbook."""

    schema_version: Literal[1] = Field(alias="schema", default=1)
    """Version of this format."""
    name: str
    """What the playbook is called in reports."""
    overlay: str | None = None
    """Name of the overlay that was laid over the base, when there was one; shown in every report."""
    regions: Annotated[dict[RegionName, Region], Field(min_length=2, max_length=2)]
    """The two regions, by name."""
    home_region: RegionName
    """The region that is active in calm times."""
    witness: Witness
    """The third site."""
    services: Annotated[dict[str, Service], Field(min_length=1)]
    """The hospital's services, by short name."""
    watch: dict[str, Endpoint] = Field(default_factory=dict)
    """Further endpoints to watch, by name."""
    traffic: Traffic
    """How users find the active region."""
    aws: Aws = Aws()
    """The AWS APIs."""
    prometheus: Prometheus
    """The monitoring."""
    database: DatabasePolicy
    """Promises about PostgreSQL and the right to write."""
    cache: CachePolicy = CachePolicy()
    """Promises about Redis."""
    backups: BackupPolicy = BackupPolicy()
    """What is kept, how often, for how long."""
    store: Store
    """Event log and write authority."""
    thresholds: Thresholds
    """Figures that decisions are made by."""
    severities: dict[SeverityName, Severity]
    """The four severities."""
    people: tuple[Person, ...]
    """Everybody who can be called."""
    roles: dict[str, Role]
    """Roles of the response team, by short name."""
    on_call: OnCall = OnCall()
    """Who holds a role when, and how people are called."""
    contacts: Contacts
    """Contact lists."""
    audiences: dict[str, Audience]
    """Groups outside the response team, by short name."""
    cadence: Cadence
    """When words are due."""
    channels: InternalChannels
    """Internal channels."""
    status_page: StatusPage | None = None
    """The public status page; None: there is none."""
    procedures: Procedures
    """When things around a failover are due."""

    def sites(self) -> tuple[str, str, str]:
        """Both regions and the witness."""
        first, second = self.regions
        return first, second, self.witness.name

    def controller(self, site: str) -> ControllerEndpoint | None:
        """The controller of a site."""
        return self.witness.controller if site == self.witness.name else self.regions[site].controller

    def other_region(self, name: str) -> str:
        """The region that is not `name`."""
        first, second = self.regions
        return second if name == first else first
