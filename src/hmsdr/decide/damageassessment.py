"""What is left of a lost region besides its database, component by component, and the checks before it is recovered (RC-1). Pure.

A component that does not answer is unknown or gone, never intact. What was asked is given as values; judging is all that is done
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hmsdr.decide.gates import Gate, GateState, RecoveryGate
from hmsdr.decide.recovery import (
    BackupFound,
    Component,
    Condition,
    DatabasePlan,
    DatabaseSeen,
    cannot_follow_slot,
    first_unmet,
)


@dataclass(frozen=True, slots=True)
class CacheSeen:
    """The region's Redis; ``found`` says why it does not answer."""

    role: str | None
    link_up: bool | None = None
    found: str = ""


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """The region's Kubernetes, compared with the newest backup of its objects.

    ``found``: why the API does not answer. ``archive``: the backup's name, ``unread`` why there is none to compare with; then
    ``missing`` are deployments of the playbook.
    """

    found: str = ""
    nodes: int = 0
    nodes_ready: int = 0
    archive: str = ""
    unread: str = ""
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    same: int = 0


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """The buckets: how many whole backups each has, and what is wrong with each (empty when nothing is)."""

    whole: Mapping[str, int]
    problems: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NetworkSeen:
    """Ways between the regions: what each is, whether it is open, and what was found."""

    ways: tuple[tuple[str, bool | None, str], ...]


@dataclass(frozen=True, slots=True)
class DnsSeen:
    """Weights of the public record by region; ``found`` says why they are not known."""

    weights: Mapping[str, int]
    found: str = ""


@dataclass(frozen=True, slots=True)
class RegionSeen:
    """All that was asked before a recovery of ``region`` behind ``other``."""

    region: str
    other: str
    slot: str
    database: DatabaseSeen
    cache: CacheSeen
    cluster: ClusterSeen
    store: StoreSeen
    network: NetworkSeen
    dns: DnsSeen
    holds_right: bool
    """The region's own database has the right to write: it is not to be recovered."""


def components(seen: RegionSeen, database: DatabasePlan) -> tuple[Component, ...]:
    """Every component's state, the database first."""
    return (
        database.component,
        _cache(seen.cache),
        _cluster(seen.cluster),
        _backups(seen.store, seen.database.backup),
        _network(seen.network),
        _dns(seen),
    )


def _cache(seen: CacheSeen) -> Component:
    if seen.role is None:
        return Component("cache", Condition.GONE, (f"Redis does not answer: {seen.found}",))
    if seen.role == "slave" and seen.link_up:
        return Component("cache", Condition.INTACT, ("it follows, and its link is up",))
    if seen.role == "slave":
        return Component("cache", Condition.INTACT, ("it answers as a replica, and its link is down",))
    return Component(
        "cache",
        Condition.DIVERGED,
        (f"it answers as a {seen.role} of its own; what it holds is dropped when it follows",),
    )


def _cluster(seen: ClusterSeen) -> Component:
    def judged(condition: Condition, *evidence: str) -> Component:
        return Component("kubernetes", condition, evidence)

    if seen.found:
        return judged(Condition.UNKNOWN, f"its API does not answer: {seen.found}")
    words = f"{seen.nodes_ready} of {seen.nodes} nodes are ready"
    against = (
        f"compared with {seen.archive}"
        if seen.archive
        else f"no backup to compare with: {seen.unread}; deployments are those of the playbook"
    )
    changed = (f"{len(seen.different)} objects differ from the backup, and stay as they are",)
    more = changed if seen.different else ()
    if seen.missing:
        return judged(
            Condition.GONE, f"{len(seen.missing)} are gone: {', '.join(seen.missing)}", words, against, *more
        )
    if not seen.nodes_ready:
        return judged(Condition.UNKNOWN, words, against)
    return judged(Condition.INTACT, words, against, *more)


def _backups(store: StoreSeen, found: BackupFound) -> Component:
    bad = tuple(f"{bucket}: {words}" for bucket, words in store.problems.items() if words)
    had = tuple(f"{bucket}: {count} whole backups" for bucket, count in store.whole.items())
    if not store.whole:
        return Component("backups", Condition.UNKNOWN, bad or ("no bucket answers",))
    if not found.problem:
        leads = f"{found.id} in {found.bucket} and {found.wal_files} files of WAL lead to the primary"
        return Component("backups", Condition.INTACT, (leads, *had, *bad))
    if not any(store.whole.values()):
        return Component("backups", Condition.GONE, (found.problem, *had, *bad))
    return Component("backups", Condition.CORRUPT, (found.problem, *had, *bad))


def _network(seen: NetworkSeen) -> Component:
    told = tuple(f"{way}: {words}" for way, _, words in seen.ways)
    if any(state is False for _, state, _ in seen.ways):
        return Component("network", Condition.GONE, told)
    if not seen.ways or any(state is None for _, state, _ in seen.ways):
        return Component("network", Condition.UNKNOWN, told or ("nobody could look",))
    return Component("network", Condition.INTACT, told)


def _dns(seen: RegionSeen) -> Component:
    dns = seen.dns
    if dns.found:
        return Component("dns", Condition.UNKNOWN, (f"Route 53 does not answer: {dns.found}",))
    lacking = [name for name in (seen.region, seen.other) if name not in dns.weights]
    told = ", ".join(f"{name} {weight}" for name, weight in sorted(dns.weights.items()))
    if lacking:
        return Component("dns", Condition.GONE, (f"no record of {', '.join(lacking)}", told or "none at all"))
    if dns.weights[seen.region] > 0 and not seen.holds_right:
        words = f"users are sent to {seen.region} ({told}), and its database is not the one that writes"
        return Component("dns", Condition.DIVERGED, (words,))
    return Component("dns", Condition.INTACT, (f"weights {told}",))


def gates(seen: RegionSeen, database: DatabasePlan) -> tuple[Gate, ...]:
    """The checks before a recovery: infrastructure, connectivity, the state of things, a plan."""
    local, primary = seen.database.local, seen.database.primary
    return (
        _gate(
            RecoveryGate.PRIMARY_WRITES,
            primary.writes and not seen.holds_right,
            f"{seen.region} itself has the right to write"
            if seen.holds_right
            else primary.found or "it writes",
            f"{seen.other} has the right to write, and writes",
            f"`hmsdr authority show`; fail over to {seen.other} first",
        ),
        _gate(
            RecoveryGate.INFRASTRUCTURE,
            local is not None and not seen.cluster.found and seen.cluster.nodes_ready > 0,
            "; ".join(_infrastructure(seen)),
            f"the agent and the Kubernetes API of {seen.region} answer, a node is ready",
            f"Bring the machines of {seen.region} back first, and see that agent and API run",
        ),
        _connected(seen),
        _slot(seen),
        _gate(
            RecoveryGate.RECOVERY_PLAN,
            database.picked is not None,
            f"the database is {database.component.condition}: {database.picked}"
            if database.picked
            else f"the database is {database.component.condition}; {first_unmet(database.options)}",
            "a path that is safe, and possible now",
            "Mend what stands in its way; `hmsdr plan recover` says what that is for each path",
        ),
    )


def _infrastructure(seen: RegionSeen) -> Sequence[str]:
    told = [f"agent {'answers' if seen.database.local is not None else seen.database.found}"]
    if seen.cluster.found:
        return [*told, f"Kubernetes {seen.cluster.found}"]
    return [*told, f"{seen.cluster.nodes_ready} of {seen.cluster.nodes} nodes ready"]


def _connected(seen: RegionSeen) -> Gate:
    state = GateState.PASSED
    if any(open_ is None for _, open_, _ in seen.network.ways) or not seen.network.ways:
        state = GateState.UNKNOWN
    if any(open_ is False for _, open_, _ in seen.network.ways):
        state = GateState.FAILED
    observed = "; ".join(f"{way}: {words}" for way, _, words in seen.network.ways) or "nobody could look"
    remedy = "" if state is GateState.PASSED else "Join the regions first: routes, security groups, VPN"
    return Gate(
        RecoveryGate.CONNECTIVITY, state, observed, "each side reaches the other's database and agent", remedy
    )


def _slot(seen: RegionSeen) -> Gate:
    problem = cannot_follow_slot(seen.database.primary, seen.slot)
    slot = seen.database.primary.slot
    observed = problem or (
        f"{seen.slot} is to be made"
        if slot is None
        else f"{seen.slot} is there"
        + (", without its WAL: it is made anew" if slot.lost else ", in use" if slot.active else "")
    )
    remedy = (
        f"Look at pg_replication_slots of {seen.other}: drop what nobody uses, or raise max_replication_slots"
    )
    return _gate(RecoveryGate.SLOT, not problem, observed, "there, or can be made", remedy)


def _gate(name: RecoveryGate, holds: bool, observed: str, limit: str, remedy: str) -> Gate:
    return Gate(
        name, GateState.PASSED if holds else GateState.FAILED, observed, limit, "" if holds else remedy
    )
