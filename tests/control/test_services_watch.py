"""Watching critical services against real ports: which path serves, which does not, and what the other region could run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hospital import EAST, WEST
from ports import PORT, PUBLIC, World

from hmsdr.control import observer as observing
from hmsdr.control.services import ServicesWatch, critical, failing
from hmsdr.decide.outage import Sight, Watch
from hmsdr.decide.testimony import of_service

PATIENT = "/patient-service/health"


class Looking:
    """A watch at work, and what it told."""

    def __init__(self, world: World) -> None:
        self.told: list[tuple[str, str, bool]] = []
        self.watch = ServicesWatch(world.systems, WEST, self._changed)
        self.watch.look_at(EAST)
        self._task = asyncio.create_task(self.watch.run())

    def _changed(self, region: str, service: str, known: Watch) -> None:
        self.told.append((region, service, known.since is not None))

    async def until(self, sight: Sight, *, service: str = "patient", lost: bool | None = None) -> Watch:
        ends = time.monotonic() + 15
        while time.monotonic() < ends:
            known = self.watch.watches[service]
            if known.last is not None and known.last.sight is sight and (lost is None or known.lost == lost):
                return known
            await asyncio.sleep(0.01)
        raise AssertionError(self.watch.watches)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest_asyncio.fixture
async def looking(world: World) -> AsyncIterator[Looking]:
    """Both regions answer, users are sent to the first; somebody in the second looks."""
    await world.serve(EAST)
    await world.serve(EAST, PUBLIC)
    await world.serve(WEST)
    made = Looking(world)
    yield made
    await made.end()


def break_everywhere(world: World, status: int) -> None:
    world.answers[EAST, PATIENT] = status


@pytest.mark.req("FA-1")
async def test_a_service_is_lost_after_its_hold_down_and_the_others_are_not(
    world: World, looking: Looking
) -> None:
    await looking.until(Sight.REACHABLE)
    began = time.monotonic()
    break_everywhere(world, 503)
    found = await looking.until(Sight.UNREACHABLE, lost=True)
    assert time.monotonic() - began >= 1.8
    assert found.last is not None
    assert dict(found.last.evidence) == {"public": "HTTP 503", "ingress": "HTTP 503"}
    assert failing(found) == {"public", "ingress"}
    assert looking.told == [(EAST, "patient", True)]
    assert not any(watch.lost for name, watch in looking.watch.watches.items() if name != "patient")


@pytest.mark.req("FA-3")
async def test_one_path_that_serves_is_enough_and_the_broken_one_is_told(
    world: World, looking: Looking
) -> None:
    """Users' way broken, the region's own well: that is no outage that leaving the region would mend."""
    await looking.until(Sight.REACHABLE)
    await world.stop(EAST, PUBLIC)
    ends = time.monotonic() + 10
    while True:
        found = await looking.until(Sight.REACHABLE)
        assert found.last is not None
        if found.last.evidence["public"] == "refused":
            break
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    assert found.last.evidence["ingress"] == "HTTP 200"
    assert found.since is None


@pytest.mark.req("FA-1")
async def test_an_answer_now_and_then_does_not_set_the_clock_back_and_a_stretch_of_them_does(
    world: World, looking: Looking
) -> None:
    await looking.until(Sight.REACHABLE)
    break_everywhere(world, 500)
    first = (await looking.until(Sight.UNREACHABLE)).since
    del world.answers[EAST, PATIENT]
    await looking.until(Sight.REACHABLE)
    break_everywhere(world, 500)
    again = await looking.until(Sight.UNREACHABLE)
    assert again.since == first
    del world.answers[EAST, PATIENT]
    ends = time.monotonic() + 10
    while looking.watch.watches["patient"].since is not None:
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    assert looking.told == [(EAST, "patient", True), (EAST, "patient", False)]


async def test_wrong_answers_are_told_apart_from_none(world: World, looking: Looking) -> None:
    await looking.until(Sight.REACHABLE)
    break_everywhere(world, 404)
    found = await looking.until(Sight.UNREACHABLE)
    assert found.last is not None
    assert found.last.evidence["ingress"] == "HTTP 404"
    await world.stop(EAST)
    await world.stop(EAST, PUBLIC)
    ends = time.monotonic() + 10
    while found.last is None or found.last.evidence["ingress"] != "refused":
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
        found = looking.watch.watches["auth"]


async def test_who_sees_nothing_at_all_is_blind(world: World, looking: Looking) -> None:
    await looking.until(Sight.REACHABLE)
    for port in (PORT, PUBLIC):
        await world.stop(EAST, port)
    # Whoever is in the second region does not ask its own way in: that would say nothing of its sight.
    blind = await looking.until(Sight.BLIND)
    assert blind.since is None
    assert failing(blind) == frozenset()


@pytest.mark.req("FA-1")
async def test_what_the_other_region_could_run_is_asked_while_a_clock_runs(
    world: World, looking: Looking
) -> None:
    await looking.until(Sight.REACHABLE)
    assert looking.watch.pilot is None, "nobody asks in calm"
    break_everywhere(world, 503)
    await looking.until(Sight.UNREACHABLE)
    ends = time.monotonic() + 10
    while looking.watch.pilot is None:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    pilot = looking.watch.pilot
    # No Kubernetes here: nobody knows whether a pod is ready, and that is no yes.
    assert (pilot.region, pilot.ready, set(pilot.words)) == (WEST, frozenset(), {"patient"})


async def test_another_active_region_is_looked_at_afresh(world: World, looking: Looking) -> None:
    break_everywhere(world, 503)
    await looking.until(Sight.UNREACHABLE)
    looking.watch.look_at(WEST)
    assert all(watch.last is None for watch in looking.watch.watches.values())
    looking.watch.look_at(None)
    assert looking.watch.region == WEST, (
        "nobody holds the right for a moment: it is still that region's services"
    )


def test_all_critical_services_are_watched(world: World) -> None:
    assert set(critical(world.systems.playbook)) == {"patient", "appointment", "clinical", "auth"}


async def test_the_word_says_it_apart_from_the_regions(world: World) -> None:
    observer = observing.Observer(world.systems, WEST, lambda *_: None, lambda *_: None)
    await world.serve(EAST, status=503)
    await world.serve(EAST, PUBLIC, status=503)
    observer.services.look_at(EAST)
    await observer.services.step(EAST)
    word = observer.word("life", 1)
    assert word["testimonies"] == []
    said = observing.testimonies(WEST, word, 7.0)
    assert {each.subject for each in said} == {
        of_service(name, EAST) for name in critical(world.systems.playbook)
    }
    assert {(each.sight, each.kinds) for each in said} == {
        (Sight.UNREACHABLE, frozenset({"public", "ingress"}))
    }
    # Whoever says it otherwise says nothing.
    assert observing.testimonies(WEST, {"testimonies": [], "services": [{"service": "patient"}]}, 7.0) == []
    assert observing.testimonies(WEST, {"testimonies": []}, 7.0) == []


@pytest.mark.req("FA-1")
async def test_slow_and_half_open_are_told_apart(world: World, looking: Looking) -> None:
    """A port that takes connections and says nothing is not one that refuses them."""
    await looking.until(Sight.REACHABLE)
    await world.stop(EAST)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = await asyncio.start_server(silent, world.hosts[EAST], PORT, reuse_address=True)
    try:
        ends = time.monotonic() + 10
        while True:
            found = looking.watch.watches["patient"].last
            if found is not None and found.evidence["ingress"] == "half_open":
                break
            assert time.monotonic() < ends, found
            await asyncio.sleep(0.02)
    finally:
        port.close()
