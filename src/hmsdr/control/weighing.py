"""What everybody's last words come to for the leader: the cases for leaving a region, and the side that would take over.

It puts words, our own eyes and the playbook's figures before the pure judges of decide/, and says for the record who said what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hmsdr.control.observer import Observer, damage_heard, testimonies
from hmsdr.control.proctable import boottime
from hmsdr.control.services import critical
from hmsdr.control.watch import fresh
from hmsdr.decide.authority import Authority
from hmsdr.decide.leading import Case, Cause, Target
from hmsdr.decide.outage import Sight
from hmsdr.decide.services import together
from hmsdr.decide.severity import Situation, propose
from hmsdr.decide.soundness import Doubt, Health, doubt, heard_damage
from hmsdr.decide.testimony import Finding, Rules, Testimony, Verdict, of_service, weigh
from hmsdr.playbook.model import Playbook


@dataclass(frozen=True, slots=True)
class Heard:
    """A site's last word, and when we first saw it (boot-time clock)."""

    word: Mapping[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class Weighed:
    """The cases, the gravest first, with what is recorded of each that is acted on."""

    cases: tuple[Case, ...]
    shown: Mapping[Cause, Mapping[str, Any]]
    lost_services: tuple[str, ...] = ()


def weigh_all(playbook: Playbook, region: str, heard: Mapping[str, Heard], observer: Observer) -> Weighed:
    """Every case for leaving `region`; what its agent tells of damage is shown as our own eyes heard it."""
    now, triggers = boottime(), playbook.thresholds.triggers
    words = [each for site, said in heard.items() for each in testimonies(site, said.word, said.at)]
    lost = weigh(words, region, _rules(playbook, triggers.region_unreachable.total_seconds()), now)
    services, missing = _services(playbook, region, words, now)
    damage = _damage(playbook, region, heard, now)
    return Weighed(
        (Case(Cause.REGION, lost), Case(Cause.CORRUPTION, damage), Case(Cause.SERVICES, services)),
        {
            Cause.REGION: {
                **_finding(lost),
                "hold_down_seconds": triggers.region_unreachable.total_seconds(),
                "said": _said(heard, "testimonies", region),
            },
            Cause.SERVICES: {
                **_finding(services),
                "hold_down_seconds": triggers.critical_services_unavailable.total_seconds(),
                "services": list(missing),
                "said": _said_of_services(heard, region, missing),
            },
            Cause.CORRUPTION: {**_finding(damage), "signs": _signs(health_of(observer, region))},
        },
        missing,
    )


def target_of(
    playbook: Playbook, region: str, observer: Observer, lost_services: tuple[str, ...]
) -> Target | None:
    """The other side, as our own eyes see it; None when its agent never told."""
    told = observer.told(region)
    if told is None:
        return None
    at, status = told
    now, seen, pilot = boottime(), status.replication, observer.services.pilot
    asked = pilot is not None and pilot.region == region and now - pilot.at <= fresh(playbook)
    return Target(
        status.instance,
        status.incarnation,
        now - at,
        following=status.database.state == "standby" and (seen.streaming or seen.measured_at is not None),
        sound=doubt_of(playbook, region, observer) is None,
        serving=asked and pilot is not None and pilot.ready >= set(lost_services),
    )


def severity_of(
    playbook: Playbook, region: str, weighed: Weighed, observer: Observer, *, declared: bool
) -> dict[str, Any] | None:
    """The severity that is proposed while `region` is active, for the record (CL-1, CL-3)."""
    other = playbook.other_region(region)
    confirmed = {case.cause for case in weighed.cases if case.finding.verdict is Verdict.CONFIRMED}
    lost = {name for name in (region, other) if observer.sight(name) is Sight.UNREACHABLE}
    watches = observer.services.watches
    down = {name for name, watch in watches.items() if watch.since is not None} | set(weighed.lost_services)
    damaged = [
        name for name in (region, other) if (told := health_of(observer, name)) is not None and told.signs
    ]
    found = propose(
        Situation(
            regions=len(playbook.regions),
            lost=tuple(sorted(lost | ({region} if declared or Cause.REGION in confirmed else set()))),
            active=region,
            services=len(playbook.services),
            down=tuple(sorted(down)),
            damaged=tuple(damaged),
            # Whom a hospital reaches is known from here only when it is nobody.
            reached=0.0 if watches and len(down) == len(watches) else None,
        )
    )
    return None if found is None else {"proposed": found.severity, "reasons": list(found.reasons)}


def doubt_of(playbook: Playbook, region: str, observer: Observer) -> Doubt | None:
    """What speaks against the data of `region`, were it promoted."""
    told = observer.told(region)
    replayed = None if told is None else told[1].database.lsn
    other = health_of(observer, playbook.other_region(region))
    return doubt(health_of(observer, region), replayed, other)


def health_of(observer: Observer, region: str) -> Health | None:
    """What the region's agent told last of its data, however long ago: damage does not pass with time."""
    told = observer.told(region)
    return None if told is None else told[1].health


def region_of(playbook: Playbook, record: Authority) -> str | None:
    """The region whose database holds the right to write; None when nobody does, or one that the playbook does not know."""
    holder = record.holder
    for name, region in playbook.regions.items():
        if holder is not None and region.postgres.instance == holder.instance:
            return name
    return None


def _rules(playbook: Playbook, hold_down: float) -> Rules:
    verification = playbook.thresholds.verification
    return Rules(hold_down, verification.sites, verification.kinds, fresh(playbook))


def _services(
    playbook: Playbook, region: str, words: list[Testimony], now: float
) -> tuple[Finding, tuple[str, ...]]:
    triggers = playbook.thresholds.triggers
    rules = _rules(playbook, triggers.critical_services_unavailable.total_seconds())
    found = together(
        {name: weigh(words, of_service(name, region), rules, now) for name in critical(playbook)},
        triggers.critical_services,
    )
    return found.finding, found.lost


def _damage(playbook: Playbook, region: str, heard: Mapping[str, Heard], now: float) -> Finding:
    told: dict[str, bool | None] = {}
    for site, said in heard.items():
        told |= damage_heard(site, said.word if now - said.at <= fresh(playbook) else {}, region)
    return heard_damage(told, playbook.thresholds.verification.sites)


def _signs(health: Health | None) -> list[dict[str, Any]]:
    return [asdict(sign) for sign in health.signs] if health is not None else []


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "finding": {
            "verdict": str(finding.verdict),
            "lost": finding.lost,
            "reach": finding.reach,
            "silent": finding.silent,
        }
    }


def _said(heard: Mapping[str, Heard], key: str, region: str) -> dict[str, Any]:
    """Who said what of the region, for the record."""
    return {
        site: each
        for site, word in heard.items()
        for each in word.word.get(key, ())
        if isinstance(each, Mapping) and each.get("region") == region
    }


def _said_of_services(heard: Mapping[str, Heard], region: str, services: tuple[str, ...]) -> dict[str, Any]:
    """The same of services: each site's longest clock, and what it found on each path to each service."""
    said: dict[str, Any] = {}
    for site, word in heard.items():
        mine = [
            each
            for each in word.word.get("services", ())
            if isinstance(each, Mapping) and each.get("region") == region and each.get("service") in services
        ]
        if mine:
            said[site] = {
                "region": region,
                "lost_for": max(float(each.get("lost_for", 0)) for each in mine),
                "evidence": {
                    f"{each['service']} {path}": words
                    for each in mine
                    for path, words in dict(each.get("evidence", {})).items()
                },
            }
    return said
