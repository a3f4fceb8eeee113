"""The one runner's place across sites: a leader that only beats is no reason to be refused, one that is at work is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hmsdr.decide.leadership import NOBODY, Leadership, beaten, taken
from hmsdr.log.store import Sitting
from hmsdr.runbook.place import Lead, refused_by

CONTROLLER = "controller us-east-1/ff71"


class Council:
    """Where who leads is settled, with a leader that beats after each of the first `beats` times that somebody looked."""

    def __init__(self, leader: str, beats: int) -> None:
        self.record = taken(Leadership(), leader) if leader != NOBODY else Leadership()
        self.beats = beats

    async def meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        raise NotImplementedError("nobody speaks here")

    async def leadership(self) -> Leadership:
        seen = self.record
        if self.beats > 0 and seen.leader not in (NOBODY, "operator us"):
            self.beats -= 1
            self.record = beaten(seen)
        return seen

    async def settle(self, expected: Leadership, new: Leadership) -> bool:
        if expected != self.record:
            return False
        self.record = new
        return True


async def asked(council: Council, *, unfinished: bool = False) -> tuple[str | None, Lead]:
    lead = Lead(council, "operator us", 0.4)
    return await refused_by(lead, council, unfinished=unfinished), lead


@pytest.mark.req("FM-3", "FA-5")
@pytest.mark.parametrize("beats", [0, 1, 3])
async def test_a_beat_between_looking_and_taking_refuses_nobody(beats: int) -> None:
    council = Council(CONTROLLER, beats)
    refused, lead = await asked(council)
    assert (refused, council.record.leader) == (None, "operator us")
    assert lead.term == council.record.term


@pytest.mark.req("FM-3", "FA-5")
async def test_who_is_at_work_is_not_disturbed() -> None:
    person = Council("operator other/1", 1000)
    assert (await asked(person))[0] == "operator other/1"
    running = Council(CONTROLLER, 1000)
    assert (await asked(running, unfinished=True))[0] == CONTROLLER
    assert running.record.leader == CONTROLLER


@pytest.mark.req("FM-3", "FA-5")
async def test_who_is_gone_leaves_the_place_and_one_that_is_taken_each_time_ends() -> None:
    gone = Council("operator other/1", 0)
    assert (await asked(gone))[0] is None
    nobody = Council(NOBODY, 0)
    assert (await asked(nobody, unfinished=True))[0] is None
    restless = Council(CONTROLLER, 1000)
    assert (await asked(restless))[0] == CONTROLLER
