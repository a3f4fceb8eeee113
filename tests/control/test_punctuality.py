"""A process that was held up while it looked takes nobody's silence for an outage."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from hospital import EAST, WEST
from ports import AGENT, PORT, PUBLIC, World

from hmsdr.control.punctuality import Punctuality
from hmsdr.control.services import ServicesWatch
from hmsdr.decide.outage import Sight

DEADLINE = 0.4


def stall(seconds: float) -> None:
    """Hold the event loop up, shortly after now, as a starved machine does."""
    asyncio.get_running_loop().call_later(0.05, time.sleep, seconds)


@pytest.fixture
def silent(world: World) -> Iterator[None]:
    """Everything in the first region takes connections and says nothing."""
    ports = (PORT, PUBLIC, AGENT, 5432)
    listening = [socket.create_server((world.hosts[EAST], port)) for port in ports]
    yield
    for each in listening:
        each.close()


async def test_being_late_is_measured_to_the_end() -> None:
    with Punctuality(DEADLINE) as calm:
        await asyncio.sleep(0.1)
    assert not calm.held_up
    with Punctuality(DEADLINE) as stopped:
        stall(0.3)
        await asyncio.sleep(0.1)
    assert stopped.held_up
    assert stopped.latest > 0.2
    with Punctuality(DEADLINE) as busy:
        time.sleep(0.3)  # noqa: ASYNC251 - nothing else runs: that is the point
    assert busy.held_up, "also when no tick came at all"


@pytest.mark.req("FA-3")
@pytest.mark.usefixtures("silent")
async def test_a_region_that_was_silent_while_we_could_not_run_is_not_unreachable(world: World) -> None:
    await world.serve(WEST)
    watch = world.watch()
    stall(0.3)
    await watch.step()
    assert watch.held_up == 1
    assert watch.watch.last is None, "a gap, and no look"
    await watch.step()
    assert watch.watch.last is not None
    assert watch.watch.last.sight is Sight.UNREACHABLE
    assert watch.held_up == 1


@pytest.mark.req("FA-3")
@pytest.mark.usefixtures("silent")
async def test_what_answers_counts_also_when_we_were_held_up(world: World) -> None:
    await world.serve(WEST)
    services = ServicesWatch(world.systems, "elsewhere", lambda *_: None)
    services.look_at(EAST)
    stall(0.3)
    await services.step(EAST)
    assert services.held_up == 1
    assert all(watch.last is None for watch in services.watches.values())
    services.look_at(WEST)
    stall(0.3)
    await services.step(WEST)
    assert services.held_up == 1
    assert {watch.last.sight for watch in services.watches.values() if watch.last} == {Sight.REACHABLE}
