"""The simulated store keeps the contract of the real ones (tests/log): compare-and-swap, terms, silence without a majority."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hmsdr.decide.authority import Holder, grant, renew, revoke
from hmsdr.decide.leadership import taken
from hmsdr.log.events import NewEvent
from hmsdr.log.store import HeadMovedError, StoreError, TermOverError
from hmsdr.sim.process import Running
from hmsdr.sim.settings import Figures, playbook
from hmsdr.sim.store import Store, StorePort
from hmsdr.sim.systems import Dns
from hmsdr.sim.world import EAST, SITES, WEST, WITNESS, Machine, World


class Asking(Running):
    """A process that asks the store what a test wants to know."""

    def __init__(
        self, world: World, machine: Machine, store: Store, ask: Callable[[StorePort], Awaitable[Any]]
    ) -> None:
        super().__init__(world, machine, "asking")
        self.store, self.ask = store, ask
        self.found: list[Any] = []

    async def program(self) -> None:
        assert self.loop is not None
        try:
            self.found.append(await self.ask(StorePort(self.store, self.loop)))
        except StoreError as error:
            self.found.append(type(error))
        await self.loop.create_future()


class Place:
    """A store, and somebody at each site."""

    def __init__(self) -> None:
        self.world = World(1)
        self.machines = {site: Machine(self.world, site, 1.0, 0.0) for site in SITES}
        self.store = Store(self.world, self.machines, 4)

    def ask(self, site: str, ask: Callable[[StorePort], Awaitable[Any]]) -> Any:
        process = Asking(self.world, self.machines[site], self.store, ask)
        process.start()
        self.world.run(self.world.now + 2)
        process.kill()
        return process.found[0]


def test_the_authority_is_swapped_only_from_the_expected_value() -> None:
    place = Place()
    vacant = place.ask(EAST, lambda store: store.read_authority())
    east, west = Holder("east", "1"), Holder("west", "1")
    held = grant(vacant, east)
    assert place.ask(EAST, lambda store: store.swap_authority(vacant, held)) is True
    assert place.ask(WEST, lambda store: store.swap_authority(vacant, grant(vacant, west))) is False
    assert place.ask(WEST, lambda store: store.swap_authority(held, revoke(held, 1))) is True
    assert place.ask(EAST, lambda store: store.swap_authority(held, renew(held, east))) is False
    assert place.store.contents.authority == revoke(held, 1)


def test_an_append_compares_head_and_term() -> None:
    place = Place()
    told: list[int] = []
    place.store.contents.told = lambda event: told.append(event.seq)
    first = place.ask(EAST, lambda store: store.begin_term("first"))
    event = NewEvent("x", "y", "z", {"a": 1})
    appended = place.ask(EAST, lambda store: store.append([event, event], expected=first))
    assert appended.head.seq == 2
    assert place.ask(EAST, lambda store: store.append([event], expected=first)) is HeadMovedError
    nobody = place.ask(WEST, lambda store: store.leadership())
    assert place.ask(WEST, lambda store: store.settle(nobody, taken(nobody, "second"))) is True
    assert place.ask(EAST, lambda store: store.settle(nobody, taken(nobody, "third"))) is False
    assert place.ask(EAST, lambda store: store.append([event], expected=appended.head)) is TermOverError
    head = place.ask(WEST, lambda store: store.head())
    assert place.ask(WEST, lambda store: store.append([event], expected=head)).head.term == 2
    events = place.ask(EAST, lambda store: store.read(1))
    assert [(each.seq, each.term) for each in events] == [(2, 1), (3, 2)]
    assert events[1].previous == events[0].hash
    assert told == [1, 2, 3]


def test_the_council_gives_the_words_from_before() -> None:
    place = Place()
    assert place.ask(EAST, lambda store: store.meet(EAST, {"said": 1})).words == {}
    assert place.ask(WEST, lambda store: store.meet(WEST, {"said": 2})).words == {EAST: {"said": 1}}


def test_without_a_majority_nobody_is_answered_and_after_an_election_everybody_who_is_joined() -> None:
    place = Place()

    def heads(site: str) -> Any:
        return place.ask(site, lambda store: store.head())

    place.store.set_member(EAST, up=False)
    place.store.set_member(WEST, up=False)
    assert heads(WITNESS) is StoreError
    place.store.set_member(WEST, up=True)
    place.world.run(place.world.now + 2)  # the election takes its time
    assert heads(WITNESS).seq == 0
    place.world.cut_wires({(WEST, WITNESS)})
    assert heads(WITNESS) is StoreError, "one way is not joined"
    place.world.cut_wires(set())
    place.world.run(place.world.now + 2)
    place.store.deaf = {"asking"}
    assert heads(WITNESS) is StoreError


def test_the_public_record_moves_from_exactly_what_was_read() -> None:
    dns = Dns(playbook(Figures()), EAST, 1)
    records = {each.get("SetIdentifier", each["Type"]): each for each in dns.records}

    def to(name: str, weight: int, epoch: int) -> list[dict[str, Any]]:
        text = {**records["TXT"], "ResourceRecords": [{"Value": f'"epoch={epoch}"'}]}
        changes = [(records[name], {**records[name], "Weight": weight}), (records["TXT"], text)]
        return [
            {"Action": action, "ResourceRecordSet": record}
            for old, new in changes
            for action, record in (("DELETE", old), ("CREATE", new))
        ]

    assert dns.change(to(EAST, 0, 2)) is True
    assert dns.change(to(EAST, 0, 2)) is False, "a batch that arrives twice"
    assert dns.traffic == ("", 2)


@pytest.mark.parametrize("site", SITES)
def test_every_site_is_answered_while_all_is_well(site: str) -> None:
    assert Place().ask(site, lambda store: store.head()).seq == 0
