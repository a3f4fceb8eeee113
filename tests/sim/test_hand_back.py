"""A planned hand-over whose new side is gone: whoever gave writes again, by itself, and nobody writes beside it (SAFETY rule 9)."""

from __future__ import annotations

import pytest

from hmsdr.decide.authority import Phase
from hmsdr.sim.checkers import Checkers
from hmsdr.sim.hospital import Hospital
from hmsdr.sim.run import FIGURES, bound
from hmsdr.sim.world import EAST, WEST, World

RUN_SECONDS = 60.0 + 75.0
"""For so long at most a run tries to go forward: until the person who began it gives up, and the grant's ten attempts after that."""


@pytest.mark.req("FA-4", "DB-1")
@pytest.mark.parametrize("seed", range(6))
def test_a_hand_over_whose_new_side_dies_goes_back_to_the_old_one_within_the_bound(seed: int) -> None:
    world = World(seed)
    checkers = Checkers(world)
    hospital = Hospital(world, FIGURES, checkers)
    checkers.hospital = hospital
    hospital.begin()
    world.run(12)
    hospital.person.switches = 1
    until = world.now + 60
    while hospital.store.contents.authority.phase is not Phase.HANDING_OVER:
        assert world.now < until, "no hand-over was begun"
        world.run(world.now + 0.01)
    began = world.now
    hospital.lose(WEST)
    assert not hospital.databases[EAST].able, "it was fenced for the hand-over"
    while not hospital.databases[EAST].able:
        assert world.now < began + bound(FIGURES, successors=1) + RUN_SECONDS, "nobody can write"
        world.run(world.now + 0.5)
    world.run(world.now + 10)
    assert hospital.databases[EAST].able
    assert not hospital.databases[WEST].able
    record = hospital.store.contents.authority
    assert (record.epoch, record.phase) == (2, Phase.HELD)
    assert record.holder is not None
    assert record.holder.instance == hospital.databases[EAST].instance
    assert hospital.dns.traffic[0] == EAST
    assert not checkers.violations
    world.end()
