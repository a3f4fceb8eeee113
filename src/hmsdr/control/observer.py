"""What one site sees of both regions, and how it says so to the others. Looks and tells; it decides nothing.

The looks stay here; the word for the council is their summary. A change of what is seen goes into the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hmsdr.control.watch import KINDS, RegionWatch
from hmsdr.decide.outage import Sight, Watch
from hmsdr.decide.testimony import Testimony
from hmsdr.drivers.agent import AgentStatus
from hmsdr.runbook.systems import Systems


class Observer:
    """The eyes of `site`.

    Args:
        systems: the hospital.
        site: where we are.
        on_change: told when a region begins or ceases to be seen: region, from, to, evidence.
    """

    def __init__(
        self,
        systems: Systems,
        site: str,
        on_change: Callable[[str, Sight | None, Sight, Mapping[str, str]], None],
    ) -> None:
        self.site = site
        self._seen: dict[str, Sight] = {}
        self._on_change = on_change
        self.watches = {
            region: RegionWatch(systems, region, site, self._noticing(region))
            for region in systems.playbook.regions
        }

    async def run(self) -> None:
        """Look, for ever."""
        async with asyncio.TaskGroup() as group:
            for watch in self.watches.values():
                group.create_task(watch.run())

    @property
    def looked(self) -> bool:
        """Whether both regions were looked at."""
        return all(watch.watch.last is not None for watch in self.watches.values())

    def sight(self, region: str) -> Sight | None:
        """What the last look at `region` gave."""
        last = self.watches[region].watch.last
        return None if last is None else last.sight

    def told(self, region: str) -> tuple[float, AgentStatus] | None:
        """What the agent of `region` said last, and when (boot-time clock)."""
        return self.watches[region].told

    def word(self, life: str, number: int) -> dict[str, Any]:
        """The word for the council: what is seen of each region now."""
        return {
            "life": life,
            "number": number,
            "testimonies": [
                said
                for region, watch in self.watches.items()
                if (said := _testimony(region, watch.watch)) is not None
            ],
        }

    def _noticing(self, region: str) -> Callable[[Watch], None]:
        def noticed(watch: Watch) -> None:
            assert watch.last is not None  # noqa: S101 - it has just looked
            before, now = self._seen.get(region), watch.last.sight
            self._seen[region] = now
            self._on_change(region, before, now, watch.last.evidence)

        return noticed


def _testimony(region: str, watch: Watch) -> dict[str, Any] | None:
    last = watch.last
    if last is None:
        return None
    since = last.at if watch.since is None else watch.since
    return {
        "region": region,
        "sight": str(last.sight),
        "lost_for": round(last.at - since, 3),
        "kinds": sorted(KINDS) if last.sight is Sight.UNREACHABLE else [],
        "evidence": dict(last.evidence),
    }


def testimonies(site: str, word: Mapping[str, Any], heard: float) -> list[Testimony]:
    """What `site` said, heard at `heard` on our clock. A word that is none, by another version say, says nothing."""
    try:
        return [
            Testimony(
                site,
                str(each["region"]),
                Sight(each["sight"]),
                float(each["lost_for"]),
                frozenset(map(str, each["kinds"])),
                heard,
            )
            for each in word["testimonies"]
        ]
    except (KeyError, TypeError, ValueError):
        return []
