"""The loop in virtual time: real asyncio code in it sleeps, is paused, and dies like a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.errors import FailedError
from hmsdr.sim.process import NobodyThereError, Running, asked
from hmsdr.sim.world import EAST, WEST, Machine, World


class Told(Running):
    """A process that does what a test says."""

    def __init__(
        self, world: World, site: str, what: Callable[[Told], Awaitable[None]], rate: float = 1
    ) -> None:
        super().__init__(world, Machine(world, site, rate, 100.0), f"told@{site}")
        self.what = what
        self.seen: list[object] = []

    async def program(self) -> None:
        await self.what(self)
        await asyncio.get_running_loop().create_future()


async def rest(_: Told) -> None:
    return


def test_time_is_the_machines_and_sleeping_takes_none() -> None:
    async def sleep(me: Told) -> None:
        began, boot = asyncio.get_running_loop().time(), boottime()
        await asyncio.sleep(30)
        me.seen += [me.world.now, asyncio.get_running_loop().time() - began, boottime() - boot]

    world = World(1)
    fast = Told(world, EAST, sleep, rate=2.0)
    fast.start()
    world.run(100)
    assert fast.seen == [15, 30, 30]


def test_a_timeout_cancels_and_a_lock_is_waited_for() -> None:
    async def work(me: Told) -> None:
        lock = asyncio.Lock()

        async def holds() -> None:
            async with lock:
                await asyncio.sleep(5)

        task = asyncio.create_task(holds())
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), lock:
                me.seen.append("not ours yet")
        async with lock:
            me.seen.append(me.world.now)
        await task

    world = World(1)
    process = Told(world, EAST, work)
    process.start()
    world.run(60)
    assert process.seen == [5]


def test_a_paused_process_does_nothing_and_then_everything_in_order() -> None:
    async def tick(me: Told) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            me.seen.append(me.world.now)

    world = World(1)
    process = Told(world, EAST, tick)
    process.start()
    world.run(1.5)
    process.pause()
    world.run(10)
    assert process.seen == [1]
    process.resume()
    world.run(20)
    assert process.seen == [1, 10, 11]


def test_a_killed_process_clears_itself_away_and_reaches_nobody() -> None:
    reached: list[str] = []

    async def work(me: Told) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            me.seen.append("cleared")
            assert me.loop is None
            await asked(loops[0], WEST, lambda: reached.append("the world"))

    world = World(1)
    process = Told(world, EAST, work)
    process.start()
    assert process.loop is not None
    loops = [process.loop]
    world.run(1)
    process.kill()
    world.run(100)
    assert (process.seen, reached) == (["cleared"], [])
    assert not [task for task in asyncio.all_tasks(loops[0]) if not task.done()]


def test_a_process_that_ends_by_an_error_says_why_and_is_started_again() -> None:
    async def fail(me: Told) -> None:
        me.seen.append(me.life)
        if len(me.seen) < 3:
            raise FailedError("working", "it did not", "Try again")

    world = World(1, tell=True)
    process = Told(world, EAST, fail)
    process.start()
    world.run(10)
    assert len(process.seen) == 3
    assert process.alive
    assert any("working: it did not" in line for line in world.history or ())


def test_an_error_that_nobody_expected_is_the_worlds() -> None:
    async def fail(me: Told) -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError(me.name)

    world = World(1)
    Told(world, EAST, fail).start()
    with pytest.raises(ZeroDivisionError):
        world.run(10)


def test_a_question_is_answered_refused_late_or_never() -> None:
    async def ask(me: Told) -> None:
        assert me.loop is not None
        for _ in range(3):
            try:
                async with asyncio.timeout(1):
                    me.seen.append(await asked(me.loop, WEST, lambda: 42, to=there))
            except (TimeoutError, NobodyThereError) as error:
                me.seen.append(type(error))
            await asyncio.sleep(3 - me.world.now % 3)

    world = World(1)
    there, here = Told(world, WEST, rest), Told(world, EAST, ask)
    there.start()
    here.start()
    world.run(2)
    there.pause()
    world.run(5)
    there.kill()
    world.run(9)
    assert here.seen == [42, TimeoutError, NobodyThereError]


def test_what_is_logged_goes_into_the_history() -> None:
    async def speak(_: Told) -> None:
        log("said", what="this", nothing=None)

    world = World(1, tell=True)
    Told(world, EAST, speak).start()
    assert any("said: what this" in line for line in world.history or ())
