"""The hospital's critical services, simulated: whether a region's do their work, and which sites cannot see them.

One stands for all. They fail by themselves here; that they fail with their region or its database is shown by the region's own loss.
"""

from __future__ import annotations

from collections.abc import Callable

from hmsdr.sim.world import EAST, SILENCE, WEST, Machine, World

SERVICE = "care"


class Services:
    """Those of both regions.

    Args:
        world: where they are.
        machines: what they run on.
    """

    def __init__(self, world: World, machines: dict[str, Machine]) -> None:
        self.world = world
        self._machines = machines
        self._up = {EAST: True, WEST: True}
        self.hidden: set[tuple[str, str]] = set()
        """Regions and the sites from which neither path to the services there works."""

    def set(self, region: str, *, up: bool) -> None:
        """They fail, or work again."""
        if self._up[region] != up:
            self._up[region] = up
            self.world.notify()

    def hide(self, region: str, site: str) -> None:
        """From `site` those of `region` cannot be seen any more."""
        self.hidden.add((region, site))
        self.world.notify()

    def heal(self) -> None:
        """All is well."""
        self.hidden.clear()
        for region in (EAST, WEST):
            self.set(region, up=True)
        self.world.notify()

    def work(self, region: str) -> bool:
        """Whether they do their work there."""
        return self._up[region] and self._machines[region].up

    def asked(self, region: str, site: str) -> Callable[[], object]:
        """What `site` hears from them: that they serve, that they do not, or nothing."""

        def answer() -> object:
            if not self._machines[region].up or (region, site) in self.hidden:
                return SILENCE
            return self._up[region]

        return answer
