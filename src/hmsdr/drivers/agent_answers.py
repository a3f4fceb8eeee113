"""What an agent answers, as values, and how they are read from JSON. Data only: `hmsdr.drivers.agent` asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hmsdr.decide.authority import Authority
from hmsdr.decide.recovery import LocalData
from hmsdr.decide.recoverytime import Rates
from hmsdr.decide.soundness import DamageKind, Health, Sign


@dataclass(frozen=True, slots=True)
class AgentDatabase:
    """The agent's database. ``lsn`` in bytes of WAL."""

    state: str
    """absent, stopped, standby, primary or fenced."""
    pid: int | None
    lsn: int | None
    timeline: int | None
    held: str | None = None
    """Why the agent leaves it stopped, in words."""


@dataclass(frozen=True, slots=True)
class AgentReplication:
    """Replication as the agent last measured it; the figures stay when the stream is gone."""

    streaming: bool
    lag_seconds: float | None
    lag_bytes: int | None
    measured_at: datetime | None
    primary_lsn: int | None = None
    """Where the primary's WAL was when this standby last saw it, by the stream or by the other agent's word."""
    primary_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FenceAnswer:
    """A fence receipt: no process of the database was alive at `fenced_at`, and none becomes writable under `epoch`."""

    instance: str
    incarnation: str
    epoch: int
    fenced_at: datetime
    last_lsn: int | None
    timeline: int | None
    clean: bool
    killed: int
    survivors: int
    unused: bool = False


@dataclass(frozen=True, slots=True)
class AgentLease:
    """The right to write, as the agent holds it."""

    held: bool
    epoch: int | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class RecoveryAnswer:
    """The last recovery of its database. ``state`` is none, running, done or failed; ``part`` from 0 to 1, of the present stage."""

    state: str
    path: str = ""
    backup: str | None = None
    epoch: int = 0
    stage: str = ""
    words: str = ""
    part: float | None = None
    seconds_left: float | None = None
    began_at: str = ""
    ended_at: str | None = None
    kept: str | None = None
    """Where the directory lies that was there before."""
    made: str = ""
    lost: Mapping[str, Any] | None = None
    found: str = ""
    remedy: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What an agent says about itself and its database. ``health`` is None when it knows nothing of damage."""

    region: str
    instance: str
    incarnation: str
    accepted_epoch: int
    database: AgentDatabase
    replication: AgentReplication
    fence: FenceAnswer | None
    lease: AgentLease
    health: Health | None = None
    recovery: RecoveryAnswer = RecoveryAnswer("none")


@dataclass(frozen=True, slots=True)
class PromoteAnswer:
    """A promotion; ``already`` says that it had taken place before this order. ``lsn`` in bytes of WAL."""

    epoch: int
    promoted_at: datetime
    lsn: int
    timeline: int
    already: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class FollowAnswer:
    """A standby follows; ``rewound`` says that it had diverged and was set back first."""

    primary_host: str
    primary_port: int
    slot: str
    rewound: bool
    streaming: bool
    lost: Mapping[str, Any] | None = None
    """What it had committed that the new primary never saw (`LostAnswer`); None when they had not parted."""


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """What a region's old primary committed that the new one never saw, fork by fork, and where the files are."""

    directory: str
    lost: tuple[Mapping[str, Any], ...]
    """Counts, places, name and digest of each, as `hmsdr.control.lost.Lost` has them: no values."""


@dataclass(frozen=True, slots=True)
class ClearingAnswer:
    """How far the order to clear damage is. ``state`` is none, running, cleared, refused or failed; ``part`` from 0 to 1."""

    state: str
    by: str
    reason: str
    stage: str
    part: float | None
    found: str
    began_at: str
    ended_at: str


@dataclass(frozen=True, slots=True)
class DamageAnswer:
    """What an agent tells of damage: the signs that stand, what became of the last check, whether one runs, the last order to clear."""

    signs: tuple[Sign, ...]
    checked_at: str | None
    check: str
    checking: bool
    clearing: ClearingAnswer
    whole: bool = False
    """The last check looked at everything, whatever it found."""


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """What a peer says to a holder that cannot reach the store (SAFETY rule 7). Neither: the holder is not helped, and why.

    ``record`` is the authority record as it is now, renewed by the peer if it could be. ``promised`` is for how many seconds
    the peer accepts no grant, counted from before the question.
    """

    record: Authority | None
    promised: float | None
    why: str


def status_of(raw: dict[str, Any]) -> AgentStatus:
    """A status as the agent sent it. Raises KeyError, TypeError or ValueError when it is none."""
    replication = dict(raw["replication"])
    for name in ("measured_at", "primary_seen_at"):
        at = replication.get(name)
        replication[name] = None if at is None else datetime.fromisoformat(at)
    return AgentStatus(
        region=raw["region"],
        instance=raw["instance"],
        incarnation=raw["incarnation"],
        accepted_epoch=raw["accepted_epoch"],
        database=AgentDatabase(**raw["database"]),
        replication=AgentReplication(**replication),
        fence=None if raw["fence"] is None else fence_of(raw["fence"]),
        lease=AgentLease(**raw["lease"]),
        health=health_of(raw["damage"], raw["database"]["timeline"]) if raw.get("damage") else None,
        recovery=RecoveryAnswer(**raw.get("recovery", {"state": "none"})),
    )


def health_of(raw: Mapping[str, Any], timeline: int | None) -> Health:
    """What is told of damage, as decide/ weighs it: a check counts only on the timeline that the database is on."""
    signs = _signs(raw)
    valid = timeline is not None and raw["checked_timeline"] == timeline
    return Health(signs, raw["checked_lsn"] if valid else None)


def damage_of(raw: Mapping[str, Any]) -> DamageAnswer:
    """What was told of damage. Raises as `status_of`."""
    return DamageAnswer(
        _signs(raw),
        raw["checked_at"],
        raw["check"],
        raw["checking"],
        ClearingAnswer(**raw["clearing"]),
        raw.get("check_whole") is True,
    )


def _signs(raw: Mapping[str, Any]) -> tuple[Sign, ...]:
    return tuple(
        Sign(DamageKind(each["kind"]), each["where"], each["since"], each["evidence"], each["lsn"])
        for each in raw["signs"]
    )


def fence_of(raw: dict[str, Any]) -> FenceAnswer:
    """A receipt as the agent sent it. Raises as `status_of`."""
    return FenceAnswer(**{**raw, "fenced_at": datetime.fromisoformat(raw["fenced_at"])})


@dataclass(frozen=True, slots=True)
class DataAnswer:
    """What an agent tells of its data directory; ``unreachable`` says why it does not reach the primary, empty when it does."""

    data: LocalData
    unreachable: str


def data_of(raw: dict[str, Any]) -> DataAnswer:
    """What was told of a data directory. Raises as `status_of`."""
    values, rates = dict(raw), raw["rates"]
    measured = Rates(link=values.pop("link"), disk=values.pop("disk"), **rates)
    unreachable = str(values.pop("reaches_primary"))
    system = values.pop("system_identifier")
    values["system_identifier"] = None if system is None else int(system)
    return DataAnswer(LocalData(**{**values, "rates": measured}), unreachable)
