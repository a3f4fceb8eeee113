"""The simulated hospital: three sites, two databases with guard and agent, three controllers, one store."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hmsdr.control.state import Promotion
from hmsdr.decide.authority import Holder, grant
from hmsdr.sim.agent import Agent
from hmsdr.sim.controller import Controller
from hmsdr.sim.database import Database
from hmsdr.sim.edges import SYSTEM
from hmsdr.sim.guard import Guard
from hmsdr.sim.person import Person
from hmsdr.sim.services import Services
from hmsdr.sim.settings import Figures, agent_config, playbook
from hmsdr.sim.store import Store
from hmsdr.sim.systems import Dns
from hmsdr.sim.world import EAST, SITES, WEST, WITNESS, Machine, Process, World

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
        self.store.contents.told = checkers.appended
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
                world, machine, database, guard, self.store, agent_config(region, figures)
            )
            database.witness = checkers
        east, west = self.databases[EAST], self.databases[WEST]
        east.other, west.other = west, east
        self.agents[EAST].peer, self.agents[WEST].peer = self.agents[WEST], self.agents[EAST]
        self.dns = Dns(playbook(figures), EAST, 1)
        self.controllers = {site: Controller(self, site) for site in SITES}
        self.person = Person(self)
        self.struck_at: float | None = None
        """When who was to receive the right was lost, by world time."""
        self.runs = 0
        """How many were begun."""

    def begin(self) -> None:
        """Everything starts; the first grant was made when the hospital was set up."""
        self.store.contents.authority = grant(self.store.contents.authority, Holder("db-east", "set up"))
        east = self.agents[EAST]
        east.disk.state = replace(
            east.disk.state, accepted_epoch=1, promotion=Promotion(1, "", 0, 2, 0.0), system_identifier=SYSTEM
        )
        for database in self.databases.values():
            database.epoch, database.history = 1, ((1, 0),)
        for process in self.processes():
            process.start()
        self.person.start()

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
        if site == WITNESS:
            self.person.kill()
        if site in self.databases:
            self.databases[site].kill()
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
        self.person.start()
