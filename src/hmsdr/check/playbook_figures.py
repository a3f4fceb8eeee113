"""Whether a playbook's figures fit together: orders, ratios, promises that cannot be kept. Reads, never repairs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel

from hmsdr.playbook.base import format_duration
from hmsdr.playbook.findings import Finding, Keys
from hmsdr.playbook.model import Playbook

Level = Literal["error", "warning"]
_WHOLE = 100
_SITES = 3
_KINDS_OF_SERVICES = 2
_PROBES_TO_BELIEVE = 3
"""Probes that a hold-down should span, so that one lost answer is not a disaster."""


def check(playbook: Playbook) -> Iterator[Finding]:
    """Findings about durations and shares."""
    yield from _positive(playbook)
    yield from _orders(playbook)
    yield from _severities(playbook)
    yield from _switchback(playbook)
    yield from _objectives(playbook)
    yield from _gates(playbook)
    yield from _services(playbook)
    if playbook.thresholds.verification.sites > _SITES:
        keys = ("thresholds", "verification", "sites")
        remedy = "With more, no failover would ever be verified."
        yield Finding(
            keys, str(playbook.thresholds.verification.sites), "2 or 3: regions and witness", remedy
        )
    if playbook.database.mode == "synchronous":
        # A promise that nobody keeps is worse than none: the hospital would count on it in its worst hour.
        yield Finding(
            ("database", "mode"),
            "synchronous: commits would have to wait for the standby, and this version does not make them",
            "asynchronous",
            "Set it to asynchronous; thresholds.gates.replication_lag bounds what a failover may lose.",
        )
    if playbook.database.failover_without_fencing_proof:
        yield Finding(
            ("database", "failover_without_fencing_proof"),
            "true: a failover may start a second writer beside the first",
            "false",
            "Set it to false unless two histories of the same patients are the smaller evil.",
            "warning",
        )


def value_at(playbook: Playbook, keys: Keys) -> Any:
    """The value at `keys`, through models and mappings."""
    value: Any = playbook
    for key in keys:
        value = getattr(value, str(key)) if isinstance(value, BaseModel) else value[key]
    return value


def _positive(playbook: Playbook) -> Iterator[Finding]:
    def walk(value: Any, keys: Keys) -> Iterator[Finding]:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                yield from walk(getattr(value, name), (*keys, name))
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, (*keys, name))
        elif isinstance(value, timedelta) and value <= timedelta(0):
            yield Finding(keys, format_duration(value), "a duration longer than nothing")

    yield from walk(playbook, ())


_PROBING = ("thresholds", "probing")
_TRIGGERS = ("thresholds", "triggers")
_VERIFICATION: Keys = ("thresholds", "verification", "deadline")
_LEASE: Keys = ("database", "lease")
_RTO: Keys = ("thresholds", "targets", "rto")
_PHASES = ("procedures", "response")
_REVIEWS = ("procedures", "reviews")

# (shorter, longer, may they be equal, why)
_ORDERS: tuple[tuple[Keys, Keys, bool, str], ...] = (
    ((*_PROBING, "timeout"), (*_PROBING, "interval"), True, "A probe must end before the next one starts."),
    (
        (*_PROBING, "interval"),
        (*_TRIGGERS, "region_unreachable"),
        False,
        "One probe cannot span a hold-down.",
    ),
    (
        (*_TRIGGERS, "region_unreachable"),
        (*_TRIGGERS, "critical_services_unavailable"),
        True,
        "An unreachable region takes its services with it: reversed, the region's own trigger never fires first.",
    ),
    ((*_PROBING, "timeout"), _VERIFICATION, False, "Verification needs at least one whole probe."),
    ((*_PROBING, "timeout"), _LEASE, False, "One slow answer must not cost a healthy database its lease."),
    (_LEASE, _RTO, False, "A failover without proof of fencing waits out the lease first."),
    (("cadence", "first_word"), ("cadence", "update"), True, "The first word is more urgent than an update."),
    ((*_PHASES, "initial"), (*_PHASES, "assessment"), False, "The phases follow one another."),
    ((*_PHASES, "assessment"), (*_PHASES, "mitigation"), False, "The phases follow one another."),
    (
        (*_REVIEWS, "immediate", "opens"),
        (*_REVIEWS, "immediate", "due"),
        True,
        "A review opens before it is due.",
    ),
    ((*_REVIEWS, "formal", "opens"), (*_REVIEWS, "formal", "due"), True, "A review opens before it is due."),
    (
        (*_REVIEWS, "follow_up", "opens"),
        (*_REVIEWS, "follow_up", "due"),
        True,
        "A review opens before it is due.",
    ),
    ((*_REVIEWS, "immediate", "due"), (*_REVIEWS, "formal", "due"), False, "The reviews follow one another."),
    ((*_REVIEWS, "formal", "due"), (*_REVIEWS, "follow_up", "due"), False, "The reviews follow one another."),
    (
        ("procedures", "actions", "immediate"),
        ("procedures", "actions", "medium_term"),
        False,
        "Horizons rise.",
    ),
    (
        ("backups", "every"),
        ("thresholds", "gates", "backup_age"),
        True,
        "Between two backups the gate would refuse every failover.",
    ),
    (
        ("procedures", "switchback", "latency_p50"),
        ("procedures", "switchback", "latency_p95"),
        True,
        "Of more requests none is answered sooner.",
    ),
    (
        ("procedures", "switchback", "latency_p95"),
        ("procedures", "switchback", "latency_p99"),
        True,
        "Of more requests none is answered sooner.",
    ),
    (("backups", "every"), ("backups", "keep"), False, "Nothing would be kept until the next backup."),
    (("backups", "wal_every"), ("backups", "wal_late"), False, "An archive that works would count as late."),
)


def _orders(playbook: Playbook) -> Iterator[Finding]:
    for shorter, longer, equal, why in _ORDERS:
        short, long = value_at(playbook, shorter), value_at(playbook, longer)
        if short > long or (short == long and not equal):
            name = ".".join(map(str, longer))
            relation = "at most" if equal else "less than"
            yield Finding(
                shorter, format_duration(short), f"{relation} {name}, which is {format_duration(long)}", why
            )


def _severities(playbook: Playbook) -> Iterator[Finding]:
    names = sorted(playbook.severities)
    for graver, milder in pairwise(names):
        first, second = playbook.severities[graver].response, playbook.severities[milder].response
        if first >= second:
            yield Finding(
                ("severities", milder, "response"),
                format_duration(second),
                f"more than {graver}'s, which is {format_duration(first)}",
                "A graver incident is answered sooner.",
            )


def _switchback(playbook: Playbook) -> Iterator[Finding]:
    shares = playbook.procedures.switchback.home_shares
    rising = all(first < second for first, second in pairwise(shares))
    if not rising or shares[-1] != _WHOLE:
        yield Finding(
            ("procedures", "switchback", "home_shares"),
            ", ".join(map(str, shares)),
            "rising shares of which the last is 100",
        )


def _objectives(playbook: Playbook) -> Iterator[Finding]:
    """Recovery objectives against what a failover must wait for."""
    figures = playbook.thresholds
    rto, ttl = figures.targets.rto, timedelta(seconds=playbook.traffic.ttl)
    if ttl >= rto:
        yield Finding(
            ("traffic", "ttl"),
            f"{playbook.traffic.ttl} seconds",
            f"less than thresholds.targets.rto, which is {format_duration(rto)}",
            "Resolvers keep the dead region's answer for this long.",
        )
    waits = figures.verification.deadline + playbook.database.lease + ttl
    for name in ("region_unreachable", "critical_services_unavailable"):
        trigger: timedelta = getattr(figures.triggers, name)
        if trigger + waits > rto:
            yield Finding(
                _RTO,
                format_duration(rto),
                f"at least {format_duration(trigger + waits)}: {name}, verification, lease and ttl together",
                "The objective cannot be met when every wait takes its full length.",
                "warning",
            )
    hold, interval = figures.triggers.region_unreachable, figures.probing.interval
    if interval < hold < _PROBES_TO_BELIEVE * interval:
        yield Finding(
            (*_TRIGGERS, "region_unreachable"),
            format_duration(hold),
            f"at least {_PROBES_TO_BELIEVE} probes, which is {format_duration(_PROBES_TO_BELIEVE * interval)}",
            "Fewer make a lost packet look like a lost region.",
            "warning",
        )


def _services(playbook: Playbook) -> Iterator[Finding]:
    """Whether the trigger of the critical services could ever fire, and whether its clock could ever be set back."""
    triggers, kinds = playbook.thresholds.triggers, playbook.thresholds.verification.kinds
    critical = sum(service.critical for service in playbook.services.values())
    if critical and triggers.critical_services > critical:
        yield Finding(
            (*_TRIGGERS, "critical_services"),
            str(triggers.critical_services),
            f"at most {critical}, the number of critical services",
            "The trigger critical_services_unavailable would never fire.",
        )
    if triggers.critical_services_recovery >= triggers.critical_services_unavailable:
        yield Finding(
            (*_TRIGGERS, "critical_services_recovery"),
            format_duration(triggers.critical_services_recovery),
            "less than critical_services_unavailable, which is "
            f"{format_duration(triggers.critical_services_unavailable)}",
            "A service that is well again for most of the time would still be failed over for.",
            "warning",
        )
    if kinds > _KINDS_OF_SERVICES:
        yield Finding(
            ("thresholds", "verification", "kinds"),
            str(kinds),
            f"{_KINDS_OF_SERVICES}: services are looked at on the public path and on the region's own",
            "With more, the trigger critical_services_unavailable would never fire.",
            "warning",
        )


def _gates(playbook: Playbook) -> Iterator[Finding]:
    figures = playbook.thresholds
    needed = figures.triggers.region_unreachable + figures.verification.deadline
    if figures.gates.last_known_lag_age < needed:
        yield Finding(
            ("thresholds", "gates", "last_known_lag_age"),
            format_duration(figures.gates.last_known_lag_age),
            f"at least {format_duration(needed)}: region_unreachable and verification together",
            "By then the last measured lag is that old, and the gate would refuse every failover.",
        )
    lag, rpo = figures.gates.replication_lag, figures.targets.rpo
    if lag > rpo:
        yield Finding(
            ("thresholds", "gates", "replication_lag"),
            format_duration(lag),
            f"at most thresholds.targets.rpo, which is {format_duration(rpo)}",
            "The gate would let a failover pass that misses its objective.",
            "warning",
        )
