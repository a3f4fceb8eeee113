"""What the leader makes of words on a real log: decided, proposed, withdrawn, vetoed, held. The runs it begins are refused
here (nothing answers), which is on the record too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from hospital import EAST, WEST
from ports import World

from hmsdr.control.chronicle import DECIDED, HELD, PROPOSED, VETOED, WITHDRAWN, Chronicle
from hmsdr.control.leader import Leader
from hmsdr.control.observer import Observer
from hmsdr.control.proctable import boottime
from hmsdr.control.services import Pilot
from hmsdr.control.weighing import Heard
from hmsdr.decide.authority import Holder, grant
from hmsdr.decide.soundness import DamageKind, Health, Sign
from hmsdr.drivers.agent_answers import AgentDatabase, AgentLease, AgentReplication, AgentStatus
from hmsdr.errors import RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import Event, NewEvent
from hmsdr.playbook.thresholds import Automation, Verification
from hmsdr.runbook.launch import begin

SITES = (WEST, "us-east-2")
ALL = ("ingress", "agent", "database")
KINDS = ("ingress", "public")


BROKEN = (Sign(DamageKind.INDEX, "public.patients_pkey", "2026-01-01", "order", 50),)


def agent(region: str, instance: str, state: str, health: Health) -> AgentStatus:
    return AgentStatus(
        region,
        instance,
        "w1",
        1,
        AgentDatabase(state, 1, 100, 1),
        AgentReplication(True, 0.0, 0, datetime.now(UTC)),
        None,
        AgentLease(False, None, None),
        health,
    )


class Lead:
    """A leader with a real store and log, and words put into the sites' mouths."""

    def __init__(self, world: World, automation: Automation, deadline: str) -> None:
        self.world, self.store = world, world.store
        playbook = world.systems.playbook
        verification = Verification(deadline=deadline)  # type: ignore[arg-type]
        thresholds = playbook.thresholds.model_copy(
            update={"automation": automation, "verification": verification}
        )
        self.playbook = playbook.model_copy(update={"thresholds": thresholds})
        self.observer = Observer(world.systems, WEST, lambda *_: None, lambda *_: None)
        self.observer.services.look_at(EAST)
        self.chronicle = Chronicle()
        self.heard: dict[str, Heard] = {}
        self.health: dict[str, Health] = {}
        """What each region's agent tells of its data."""
        self._folded = 0
        self.leader: Leader | None = None

    async def begin(self) -> None:
        record = await self.store.read_authority()
        holder = Holder(self.playbook.regions[EAST].postgres.instance, "e1")
        assert await self.store.swap_authority(record, grant(record, holder))
        head = await self.store.begin_term("tester")
        self.leader = Leader(
            self.playbook, self.store, self.world.systems, self.observer, self.chronicle, "tester", head.term
        )

    def say(
        self,
        *,
        region: str = "reachable",
        services: str = "reachable",
        damage: bool | None = False,
        sites: tuple[str, ...] = SITES,
    ) -> None:
        lost_for = 100.0
        for site in sites:
            word: dict[str, Any] = {
                "testimonies": [
                    {
                        "region": EAST,
                        "sight": region,
                        "lost_for": lost_for if region == "unreachable" else 0,
                        "kinds": list(ALL) if region == "unreachable" else [],
                        "evidence": {"agent": "refused"},
                    }
                ],
                "damage": [{"region": EAST, "seen": damage}] if damage is not None else [],
                "services": [
                    {
                        "service": name,
                        "region": EAST,
                        "sight": services if name == "patient" else "reachable",
                        "lost_for": lost_for if services == "unreachable" else 0,
                        "kinds": list(KINDS) if services == "unreachable" else [],
                        "evidence": {"public": "HTTP 503", "ingress": "HTTP 503"},
                    }
                    for name in ("patient", "auth")
                ],
            }
            self.heard[site] = Heard(word, boottime())

    async def round(self, *, pilot: bool = True, told: bool = True) -> list[str]:
        """One round; gives the kinds of the events that are in the log by then."""
        assert self.leader is not None
        now = boottime()
        if told:
            for region, state in ((EAST, "primary"), (WEST, "standby")):
                instance = self.playbook.regions[region].postgres.instance
                self.observer.watches[region].told = (
                    now,
                    agent(region, instance, state, self.health.get(region, Health())),
                )
        self.observer.services.pilot = Pilot(now, WEST, ready=frozenset({"patient"} if pilot else ()))
        self.heard = {site: Heard(each.word, now) for site, each in self.heard.items()}
        await self._fold()
        await self.leader.lead(await self.store.meet(WEST, {}), self.heard)
        await self._fold()
        return [event.kind for event in await self.store.read()]

    async def _fold(self) -> None:
        events = await self.store.read(self._folded)
        self.chronicle.take(events, boottime(), datetime.now(UTC))
        self._folded += len(events)

    async def last(self, kind: str) -> Event:
        return [event for event in await self.store.read() if event.kind == kind][-1]

    async def person(self, kind: str) -> None:
        async def said() -> list[NewEvent]:
            return [NewEvent(kind, EAST, "Ada", {"epoch": 1, "reason": "not now"})]

        await append_after(self.store, said, doing="saying so")


@pytest_asyncio.fixture
async def opened(world: World) -> AsyncIterator[Any]:
    made: list[Lead] = []

    async def lead(*, deadline: str = "1m", **automation: Any) -> Lead:
        made.append(Lead(world, Automation(**automation), deadline))
        await made[-1].begin()
        return made[-1]

    yield lead
    for each in made:
        assert each.leader is not None
        await each.leader.stop()


@pytest.mark.req("FA-1", "FA-3", "CL-1", "CL-3")
async def test_services_that_two_sites_miss_are_decided_on_with_who_said_what(opened: Any) -> None:
    lead: Lead = await opened()
    lead.say()
    assert await lead.round() == []
    lead.say(services="unreachable")
    assert await lead.round() == [DECIDED]
    data = (await lead.last(DECIDED)).data
    assert (data["epoch"], data["kind"], data["to"]) == (1, "critical-services-unavailable", WEST)
    assert data["services"] == ["patient"]
    assert data["severity"] == {"proposed": "SEV-2", "reasons": ["patient is down"]}
    assert data["hold_down_seconds"] == 2, "the playbook's"
    assert set(data["said"]) == set(SITES)
    assert data["said"][WEST]["evidence"] == {"patient public": "HTTP 503", "patient ingress": "HTTP 503"}


@pytest.mark.req("FA-3")
async def test_one_site_alone_decides_nothing_and_disagreement_is_on_the_record_once(opened: Any) -> None:
    lead: Lead = await opened()
    lead.say(services="unreachable", sites=(WEST,))
    lead.say(sites=("us-east-2",))
    for _ in range(3):
        assert await lead.round() == [HELD]
    data = (await lead.last(HELD)).data
    assert (data["kind"], data["epoch"]) == ("critical-services-unavailable", 1)
    assert "disagree" in data["why"]
    lead.say()
    await lead.round()
    lead.say(services="unreachable", sites=(WEST,))
    assert await lead.round() == [HELD, HELD], "it came back: that is said again"


@pytest.mark.req("FA-1")
async def test_nothing_is_decided_where_the_other_region_could_not_run_them(opened: Any) -> None:
    lead: Lead = await opened()
    lead.say(services="unreachable")
    assert await lead.round(pilot=False) == []
    assert lead.leader is not None
    assert "mend nothing" in lead.leader.why
    assert await lead.round() == [DECIDED]


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("cause", ["region", "services"])
async def test_a_proposal_waits_for_a_veto_and_is_carried_out_without_one(opened: Any, cause: str) -> None:
    lead: Lead = await opened(
        region_unreachable="propose", critical_services_unavailable="propose", veto="500ms"
    )
    lead.say(**{cause: "unreachable"})
    assert await lead.round() == [PROPOSED]
    assert (await lead.last(PROPOSED)).data["veto_seconds"] == 0.5
    assert await lead.round() == [PROPOSED]
    await asyncio.sleep(0.6)  # the time that people have is what is tested
    assert await lead.round() == [PROPOSED, DECIDED]


@pytest.mark.req("FA-1")
async def test_a_proposal_whose_cause_went_away_is_withdrawn_and_gives_people_their_time_again(
    opened: Any,
) -> None:
    lead: Lead = await opened(critical_services_unavailable="propose", veto="500ms")
    lead.say(services="unreachable")
    await lead.round()
    lead.say()
    assert await lead.round() == [PROPOSED, WITHDRAWN]
    assert await lead.round() == [PROPOSED, WITHDRAWN]
    await asyncio.sleep(0.6)
    lead.say(services="unreachable")
    assert await lead.round() == [PROPOSED, WITHDRAWN, PROPOSED], "an old proposal is no consent"


@pytest.mark.req("FA-1")
async def test_the_region_that_dies_while_its_services_are_proposed_is_left_at_once(opened: Any) -> None:
    lead: Lead = await opened(critical_services_unavailable="propose", veto="1m")
    lead.say(services="unreachable")
    await lead.round()
    lead.say(region="unreachable", services="unreachable")
    assert await lead.round() == [PROPOSED, DECIDED]
    data = (await lead.last(DECIDED)).data
    assert (data["kind"], data["severity"]["proposed"]) == ("region-unreachable", "SEV-1")


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("cause", ["region", "services"])
async def test_a_veto_stops_every_automatic_one(opened: Any, cause: str) -> None:
    lead: Lead = await opened()
    await lead.person(VETOED)
    lead.say(**{cause: "unreachable"})
    assert await lead.round() == [VETOED]
    assert lead.leader is not None
    assert "Ada stopped it" in lead.leader.why


@pytest.mark.req("FA-1", "FA-3")
async def test_damage_that_two_sites_heard_of_is_decided_on_by_policy(opened: Any) -> None:
    lead: Lead = await opened(veto="500ms")
    lead.health = {EAST: Health(BROKEN), WEST: Health(checked_lsn=60)}
    lead.say(damage=True, sites=(WEST,))
    assert await lead.round() == [], "one site alone"
    lead.say(damage=True)
    assert await lead.round() == [PROPOSED]
    data = (await lead.last(PROPOSED)).data
    assert data["kind"] == "database-corruption"
    assert [(sign["kind"], sign["where"]) for sign in data["signs"]] == [("index", "public.patients_pkey")]
    await asyncio.sleep(0.6)
    assert await lead.round() == [PROPOSED, DECIDED]


@pytest.mark.req("FA-1")
@pytest.mark.parametrize(
    ("standby", "because"),
    [
        (Health(BROKEN), "it shows signs of damage itself"),
        (Health(), "the primary is damaged, and the standby was not checked since"),
        (Health(checked_lsn=49), "the primary is damaged, and the standby was not checked since"),
    ],
)
@pytest.mark.parametrize("cause", ["damage", "region", "services"])
async def test_a_standby_whose_data_are_in_doubt_is_never_promoted(
    opened: Any, standby: Health, because: str, cause: str
) -> None:
    lead: Lead = await opened(database_corruption="automatic", deadline="100ms")
    lead.health = {EAST: Health(BROKEN), WEST: standby}
    lead.say(**({"damage": True} if cause == "damage" else {cause: "unreachable"}))
    assert await lead.round() == []
    assert lead.leader is not None
    assert "it is never promoted" in lead.leader.why
    await asyncio.sleep(0.2)  # how long verification may take is what is tested
    assert await lead.round() == [HELD]
    assert (await lead.last(HELD)).data["because"].startswith(because)
    lead.health[WEST] = Health(checked_lsn=50)
    assert await lead.round() == [HELD, DECIDED]


@pytest.mark.req("FA-4")
async def test_a_decision_of_another_epoch_is_void(opened: Any) -> None:
    """Between the decision and the run the right changed hands: the run is not begun."""
    lead: Lead = await opened()
    systems = lead.world.systems
    before = await lead.store.head()
    with pytest.raises(RefusedError, match="decided under epoch 7, and the plan would be for epoch 1: void"):
        await begin(lead.store, systems, {"from": EAST, "to": WEST}, by="tester", term=None, epoch=7)
    assert await lead.store.head() == before
