"""The world itself: what a pause, a lost message, a second delivery and a slow clock do."""

from __future__ import annotations

from typing import Any

import pytest

from hmsdr.sim.world import EAST, SILENCE, WEST, Call, Machine, Process, Script, Sleep, World


def pair(seed: int = 1) -> tuple[World, Process, Process]:
    world = World(seed)
    here = Process(world, Machine(world, EAST, 1.0, 0.0), "here")
    there = Process(world, Machine(world, WEST, 1.0, 0.0), "there")
    here.start()
    there.start()
    return world, here, there


def asking(there: Process, handle: Any, answers: list[Any], timeout: float = 1.0) -> Script:
    answers.append((yield Call(WEST, handle, timeout, there)))


def test_a_clock_has_a_rate_and_begins_anew_with_a_boot() -> None:
    world = World(1)
    machine = Machine(world, EAST, 1.1, 100)
    world.run(10)
    assert machine.clock() == pytest.approx(111)
    machine.boot()
    world.run(20)
    assert (machine.clock(), machine.boot_id) == (pytest.approx(11), "east#2")


def test_a_paused_process_does_what_came_meanwhile_in_order_when_it_goes_on() -> None:
    world, here, _ = pair()
    seen: list[str] = []
    here.later(1, seen.append, "first")
    here.later(2, seen.append, "second")
    here.pause()
    world.run(5)
    assert seen == []
    here.resume()
    assert seen == ["first", "second"]


def test_a_killed_process_forgets_what_it_waited_for() -> None:
    world, here, _ = pair()
    seen: list[str] = []
    here.later(1, seen.append, "of the first life")
    here.kill()
    here.start()
    world.run(5)
    assert seen == []


def test_a_call_is_answered_or_given_up_at_its_timeout() -> None:
    world, here, there = pair()
    answers: list[Any] = []
    here.spawn(asking(there, lambda: 42, answers))
    world.run(1)
    assert answers == [42]
    world.cut_wires({(WEST, EAST)})
    done: list[bool] = []
    here.spawn(asking(there, lambda: done.append(True), answers))
    world.run(1.9)
    assert (answers, done) == ([42], [True]), "what was asked for was done, and nobody knows"
    world.run(2.1)
    assert answers == [42, SILENCE]


def test_a_request_to_a_paused_process_is_handled_late_and_answered_to_nobody() -> None:
    world, here, there = pair()
    answers: list[Any] = []
    done: list[float] = []
    there.pause()
    here.spawn(asking(there, lambda: done.append(world.now), answers))
    world.run(5)
    assert (answers, done) == ([SILENCE], [])
    there.resume()
    assert done == [5]


def test_a_request_may_arrive_twice_and_is_answered_once() -> None:
    world, here, there = pair()
    world.duplicates = 1.0
    answers: list[Any] = []
    done: list[float] = []
    here.spawn(asking(there, lambda: done.append(world.now), answers))
    world.run(60)
    assert (len(done), len(answers)) == (2, 1)


def test_a_script_sleeps_by_its_own_clock() -> None:
    world = World(1)
    fast = Process(world, Machine(world, EAST, 2.0, 0.0), "fast")
    fast.start()
    woke: list[float] = []

    def script() -> Script:
        yield Sleep(10)
        woke.append(world.now)

    fast.spawn(script())
    world.run(20)
    assert woke == [5]
