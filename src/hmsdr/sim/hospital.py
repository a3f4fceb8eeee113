"""The simulated hospital: three sites, two databases with guard and agent, three controllers, one store."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hmsdr.decide.authority import Holder, grant
from hmsdr.sim.agent import Agent
from hmsdr.sim.controller import Controller, Figures
from hmsdr.sim.database import Database, Guard
from hmsdr.sim.services import Services
from hmsdr.sim.store import Store
from hmsdr.sim.world import EAST, SITES, WEST, Machine, Process, World

if TYPE_CHECKING:
    from hmsdr.sim.checkers import Checkers


class Hospital:
    """All of it, in calm: east holds the right under epoch 1, west follows.

    Args:
        world: where it stands.
        figures: the playbook's.
        checkers: who watches from outside.
    """

    def __init__(self, world: World, figures: Figures, checkers: Checkers) -> None:
        self.world = world
        self.figures = figures
        draw = random.Random(f"{world.seed}/clocks")
        # Rates differ by less than the drift margin: that is what is assumed (SAFETY.md).
        # Half of them at an extreme: that is where a margin that is too small shows.
        extremes = (-0.5, 0.5, draw.random() - 0.5, draw.random() - 0.5)
        rates = [1 + draw.choice(extremes) * 0.97 * figures.drift_margin for _ in SITES]
        self.machines = {
            site: Machine(world, site, rate, draw.random() * 1000)
            for site, rate in zip(SITES, rates, strict=True)
        }
        self.store = Store(world, self.machines, figures.lease)
        self.services = Services(world, self.machines)
        self.databases: dict[str, Database] = {}
        self.guards: dict[str, Guard] = {}
        self.agents: dict[str, Agent] = {}
        for region in (EAST, WEST):
            machine = self.machines[region]
            database = Database(world, machine, f"db-{region}", f"{world.seed}/{region}")
            guard = Guard(world, machine, database)
            self.databases[region], self.guards[region] = database, guard
            self.agents[region] = Agent(
                world, machine, database, guard, self.store, figures.lease, figures.drift_margin
            )
            database.witness = checkers
        east, west = self.databases[EAST], self.databases[WEST]
        east.other, west.other = west, east
        self.agents[EAST].peer, self.agents[WEST].peer = self.agents[WEST], self.agents[EAST]
        self.controllers = {
            site: Controller(
                world, self.machines[site], self.store, self.agents, self.services, figures, checkers.decided
            )
            for site in SITES
        }

    def begin(self) -> None:
        """Everything starts; the first grant was made when the hospital was set up."""
        west = self.databases[WEST]
        west.follows = True
        self.store.contents.authority = grant(self.store.contents.authority, Holder("db-east", "set up"))
        self.store.contents.traffic = (EAST, 1)
        for database in self.databases.values():
            database.start_standby()
        for process in self.processes():
            process.start()

    def processes(self) -> list[Process]:
        """Every process that can be killed or paused."""
        return [*self.guards.values(), *self.agents.values(), *self.controllers.values()]

    def on(self, site: str) -> list[Process]:
        """Those on one machine."""
        return [process for process in self.processes() if process.machine.site == site]

    def lose(self, site: str) -> None:
        """The machine dies with everything on it; disks stay."""
        machine = self.machines[site]
        if not machine.up:
            return
        self.world.say(site, "the machine dies")
        machine.up = False
        for process in self.on(site):
            process.kill()
        if site in self.databases:
            self.databases[site].kill()
            self.guards[site].publish(None)
        self.world.notify()

    def bring_back(self, site: str) -> None:
        """The machine boots: its agents start what may be started."""
        machine = self.machines[site]
        if machine.up:
            return
        self.world.say(site, "the machine boots")
        machine.boot()
        self.world.notify()
        for process in self.on(site):
            process.start()
