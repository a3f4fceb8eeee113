"""What one agent is told: which database it keeps, where, and by which figures. Frozen values, made from the playbook."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hmsdr.control import guarding
from hmsdr.control.archive import Archive, of_region
from hmsdr.control.state import Upstream
from hmsdr.errors import RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.topology import AgentEndpoint, PostgresInstance

_LONGEST_SOCKET = 107
_SOCKET_NAME = len("/.s.PGSQL.65535.lock")


class OnCrash(StrEnum):
    """What the agent does when a primary dies by itself while the lease lives."""

    RESTART = "restart"
    """Start it again at once, as the primary; after three crashes in a minute, hold."""
    HOLD = "hold"
    """Leave it stopped and say so; a failover or a person decides."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent needs to know. Durations in seconds."""

    region: str
    instance: PostgresInstance
    upstream: Upstream
    """Whom to follow when nobody said otherwise: the other region's server."""
    other_slot: str
    """The slot that the other region's server follows us through, when we are the primary."""
    peer: AgentEndpoint
    """The other region's agent (SAFETY rule 7)."""
    key: str
    lease: float
    drift_margin: float
    data_directory: Path
    state_directory: Path
    on_crash: OnCrash = OnCrash.RESTART
    guard_command: tuple[str, ...] = guarding.DEFAULT_COMMAND
    listen: str = "127.0.0.1"
    """Address that PostgreSQL listens on."""
    start_deadline: float = 120.0
    stop_deadline: float = 10.0
    promote_deadline: float = 15.0
    kill_deadline: float = 10.0
    check_every: float = 6 * 3600.0
    """From one check of the data to the next."""
    check_at_most: float = 3600.0
    archive: Archive | None = None
    """Where its WAL is archived; None: nowhere."""

    @property
    def sockets(self) -> Path | None:
        """Directory of PostgreSQL's Unix socket; None when its path would be too long for one."""
        if len(str(self.state_directory)) + _SOCKET_NAME > _LONGEST_SOCKET:
            return None
        return self.state_directory

    @property
    def local_host(self) -> str:
        """How the agent itself reaches the server."""
        if self.sockets is not None:
            return str(self.sockets)
        return self.instance.host if self.listen == "*" else self.listen


def from_playbook(
    playbook: Playbook,
    region: str,
    *,
    data_directory: Path,
    state_directory: Path,
    on_crash: OnCrash,
    guard_command: tuple[str, ...] = (),
) -> AgentConfig:
    """The configuration of the agent of `region`.

    Raises:
        RefusedError: there is no such region.
    """
    if region not in playbook.regions:
        raise RefusedError(
            f"starting the agent of {region!r}",
            "the playbook has no such region",
            nearest(region, playbook.regions) or f"Known: {', '.join(playbook.regions)}",
        )
    own, other = playbook.regions[region], playbook.regions[playbook.other_region(region)]
    return AgentConfig(
        region=region,
        instance=own.postgres,
        upstream=Upstream(other.postgres.host, other.postgres.port, own.postgres.slot),
        other_slot=other.postgres.slot,
        peer=other.agent,
        key=own.agent.key.get_secret_value(),
        lease=playbook.database.lease.total_seconds(),
        drift_margin=playbook.database.drift_margin,
        data_directory=data_directory.resolve(),
        state_directory=state_directory.resolve(),
        on_crash=on_crash,
        guard_command=guard_command or guarding.DEFAULT_COMMAND,
        check_every=playbook.database.integrity.every.total_seconds(),
        check_at_most=playbook.database.integrity.at_most.total_seconds(),
        archive=of_region(playbook, region) if playbook.backups.archive_wal else None,
        listen=own.postgres.host if _is_address(own.postgres.host) else "*",
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
