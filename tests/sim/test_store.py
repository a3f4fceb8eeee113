"""The simulated store keeps the contract of the real ones (tests/log): compare-and-swap, terms, silence without a majority."""

from __future__ import annotations

from hmsdr.decide.authority import Holder, grant, renew, revoke
from hmsdr.sim.store import LEADER_LEASE, Store, append, campaign, move_traffic, swap
from hmsdr.sim.world import EAST, SILENCE, SITES, WEST, WITNESS, Machine, World


def made() -> tuple[World, Store]:
    world = World(1)
    return world, Store(world, {site: Machine(world, site, 1.0, 0.0) for site in SITES}, 4)


def test_the_authority_is_swapped_only_from_the_expected_value() -> None:
    _, store = made()
    vacant = store.contents.authority
    east, west = Holder("east", "1"), Holder("west", "1")
    held = grant(vacant, east)
    assert store.at(EAST, swap(vacant, held)) is True
    assert store.at(WEST, swap(vacant, grant(vacant, west))) is False
    assert store.at(WEST, swap(held, revoke(held, 1))) is True
    assert store.at(EAST, swap(held, renew(held, east))) is False
    assert store.contents.authority == revoke(held, 1)


def test_an_append_compares_head_and_term() -> None:
    _, store = made()
    assert store.at(EAST, campaign("first", lambda: 0.0)) == 1
    assert store.at(EAST, append("first", "x", 1, 0)) is True
    assert store.at(EAST, append("first", "x", 1, 0)) is False, "the head moved"
    assert store.at(WEST, campaign("second", lambda: LEADER_LEASE / 2)) == 0, "somebody leads"
    assert store.at(WEST, campaign("second", lambda: LEADER_LEASE + 1)) == 2
    assert store.at(EAST, append("first", "x", 1, 1)) is False, "its term is over"
    assert store.at(WEST, append("second", "x", 2, 1)) is True
    assert [(entry.seq, entry.term) for entry in store.contents.log] == [(1, 1), (2, 2)]


def test_without_a_majority_nobody_is_answered_and_after_an_election_everybody_who_is_joined() -> None:
    world, store = made()
    store.set_member(EAST, up=False)
    store.set_member(WEST, up=False)
    assert store.at(WITNESS, lambda contents: contents.term) is SILENCE
    store.set_member(WEST, up=True)
    world.run(0.2)
    assert store.at(WITNESS, lambda contents: contents.term) is SILENCE, "the election takes its time"
    world.run(2)
    assert store.at(WITNESS, lambda contents: contents.term) == 0
    world.cut_wires({(WEST, WITNESS)})
    assert store.at(WITNESS, lambda contents: contents.term) is SILENCE, "one way is not joined"


def test_the_public_record_moves_from_exactly_what_was_seen() -> None:
    _, store = made()
    store.contents.traffic = (EAST, 1)
    assert store.at(EAST, move_traffic((EAST, 1), WEST, 2)) is True
    assert store.at(EAST, move_traffic((WEST, 2), EAST, 3)) is True
    assert store.at(EAST, move_traffic((EAST, 1), WEST, 2)) is False, "a late change of an older epoch"
    assert store.contents.traffic == (EAST, 3)
