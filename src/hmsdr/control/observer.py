"""What one site sees of both regions and of the active one's services, and how it says so to the others. Looks and tells; it decides nothing.

The looks stay here; the word for the council is their summary. A change of what is seen goes into the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hmsdr.control.proctable import boottime
from hmsdr.control.services import ServicesWatch, critical, failing
from hmsdr.control.watch import KINDS, RegionWatch, fresh
from hmsdr.decide.outage import Sight, Watch
from hmsdr.decide.testimony import Testimony, of_service
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.runbook.systems import Systems


class Observer:
    """The eyes of `site`.

    Args:
        systems: the hospital.
        site: where we are.
        on_change: told when a region begins or ceases to be seen: region, from, to, evidence.
        on_service: told when a critical service's clock starts or is set back: region, service, what is known.
    """

    def __init__(
        self,
        systems: Systems,
        site: str,
        on_change: Callable[[str, Sight | None, Sight, Mapping[str, str]], None],
        on_service: Callable[[str, str, Watch], None],
    ) -> None:
        self.site = site
        self._seen: dict[str, Sight] = {}
        self._on_change = on_change
        self.watches = {
            region: RegionWatch(systems, region, site, self._noticing(region))
            for region in systems.playbook.regions
        }
        self.services = ServicesWatch(systems, site, on_service)
        self._fresh = fresh(systems.playbook)
        self._critical = critical(systems.playbook)

    async def run(self) -> None:
        """Look, for ever."""
        async with asyncio.TaskGroup() as group:
            for watch in self.watches.values():
                group.create_task(watch.run())
            group.create_task(self.services.run())

    @property
    def looked(self) -> bool:
        """Whether both regions were looked at."""
        return all(watch.watch.last is not None for watch in self.watches.values())

    @property
    def sees(self) -> bool:
        """Whether anything is seen from here: a region, or what stands apart from it. Not yet known is not seen."""
        return any(self.sight(region) not in (None, Sight.BLIND) for region in self.watches)

    def sight(self, region: str) -> Sight | None:
        """What the last look at `region` gave."""
        last = self.watches[region].watch.last
        return None if last is None else last.sight

    def told(self, region: str) -> tuple[float, AgentStatus] | None:
        """What the agent of `region` said last, and when (boot-time clock)."""
        return self.watches[region].told

    def word(self, life: str, number: int) -> dict[str, Any]:
        """The word for the council: what is seen of each region, and of the active one's services, now."""
        return {
            "life": life,
            "number": number,
            "testimonies": [
                said
                for region, watch in self.watches.items()
                if (said := _testimony(region, watch.watch, KINDS)) is not None
            ],
            "damage": [
                {"region": region, "seen": seen}
                for region in self.watches
                if (seen := self._damage(region)) is not None
            ],
            # Apart from the regions: a controller of an older version must not take a service for one.
            "services": [
                {"service": service, **said}
                for service in self._critical
                if (watch := self.services.watches.get(service)) is not None
                and (said := _testimony(str(self.services.region), watch, failing(watch))) is not None
            ],
        }

    def _damage(self, region: str) -> bool | None:
        """Whether the region's agent tells of damage; None when it told nothing that is fresh."""
        told = self.told(region)
        if told is None or told[1].health is None or boottime() - told[0] > self._fresh:
            return None
        return bool(told[1].health.signs)

    def _noticing(self, region: str) -> Callable[[Watch], None]:
        def noticed(watch: Watch) -> None:
            assert watch.last is not None  # noqa: S101 - it has just looked
            before, now = self._seen.get(region), watch.last.sight
            self._seen[region] = now
            self._on_change(region, before, now, watch.last.evidence)

        return noticed


def _testimony(region: str, watch: Watch, kinds: frozenset[str]) -> dict[str, Any] | None:
    last = watch.last
    if last is None:
        return None
    since = last.at if watch.since is None else watch.since
    return {
        "region": region,
        "sight": str(last.sight),
        "lost_for": round(last.at - since, 3),
        "kinds": sorted(kinds) if last.sight is Sight.UNREACHABLE else [],
        "evidence": dict(last.evidence),
    }


def testimonies(site: str, word: Mapping[str, Any], heard: float) -> list[Testimony]:
    """What `site` said, heard at `heard` on our clock. A word that is none, by another version say, says nothing."""
    try:
        regions = [_read(site, str(each["region"]), each, heard) for each in word["testimonies"]]
        services = [
            _read(site, of_service(str(each["service"]), str(each["region"])), each, heard)
            for each in word.get("services", ())
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
    return [*regions, *services]


def damage_heard(site: str, word: Mapping[str, Any], region: str) -> dict[str, bool | None]:
    """Whether `site` heard of damage in `region` from its agent; None when it heard nothing, or says it otherwise."""
    said = word.get("damage")
    for each in said if isinstance(said, list) else ():
        if isinstance(each, Mapping) and each.get("region") == region and isinstance(each.get("seen"), bool):
            return {site: each["seen"]}
    return {site: None}


def _read(site: str, subject: str, said: Mapping[str, Any], heard: float) -> Testimony:
    return Testimony(
        site,
        subject,
        Sight(said["sight"]),
        float(said["lost_for"]),
        frozenset(map(str, said["kinds"])),
        heard,
    )
