"""A run that waits when it is asked to, can be stopped again once it is whole, and goes back when a step finds that it must."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support import NO_SYSTEMS, Fail, Sleep, SleepArgs, Touch, plan, step

from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.runbook.action import Action, Check, GoBackError, Manual, StepContext
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus, StepState


class Watch(Action[SleepArgs]):
    """Finds that the run must go back, when it is asked to or after a while."""

    name: ClassVar[str] = "test.watch"
    summary: ClassVar[str] = "watch"
    Args = SleepArgs

    async def check(self, context: StepContext, args: SleepArgs) -> Check:
        return Check(False)

    async def act(self, context: StepContext, args: SleepArgs) -> Mapping[str, Any]:
        assert context.earlier("test.touch") == {"made": True}
        assert context.earlier("test.sleep") == {}
        loop = asyncio.get_running_loop()
        ends = loop.time() + args.seconds
        while loop.time() < ends and (await context.asked()).to_stop is None:
            await asyncio.sleep(0.01)
        raise GoBackError("watching", f"bad: {(await context.asked()).to_stop}", "Look")

    def manual(self, playbook: Any, args: SleepArgs) -> Manual:
        return Manual(("true",), "", ())


CATALOGUE = Catalogue([Touch(), Fail(), Sleep(), Watch()])


@pytest.fixture
async def store(tmp_path: Path):
    opened = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    yield opened
    await opened.close()


def runner(store: SqliteStore) -> Runner:
    return Runner(store, NO_SYSTEMS, CATALOGUE, "run-1")


def touch(path: Path, key: str, **more: object) -> dict[str, object]:
    return step(key, "test.touch", {"path": str(path)}, **more)


def moved(tmp_path: Path, *last: dict[str, object]) -> Plan:
    """Something that cannot be taken back, which is whole afterwards; then something that can."""
    granting = touch(tmp_path / "granted", "one/grant", point_of_no_return=True)
    return plan(
        [
            ("one", (), [[granting], [touch(tmp_path / "promoted", "one/promoted", settles=True)]]),
            ("two", ("one",), [[touch(tmp_path / "weight", "two/weight")], *[[each] for each in last]]),
        ]
    )


async def say(store: SqliteStore, kind: str) -> None:
    for _ in range(20):
        try:
            await store.append(
                [NewEvent(kind, "run-1", "Ada", {"reason": "a look"})], expected=await store.head()
            )
        except Exception:  # noqa: BLE001 - the runner was faster
            continue
        return
    raise AssertionError("the runner was faster every time")


async def until_started(store: SqliteStore, key: str) -> None:
    async with asyncio.timeout(10):
        while not any(e.kind == "step.started" and e.data["step"] == key for e in await store.read()):
            await asyncio.sleep(0.01)


def outcome(tmp_path: Path, state: RunState) -> tuple[str, bool, bool, bool]:
    granted, promoted, weight = ((tmp_path / name).exists() for name in ("granted", "promoted", "weight"))
    return str(state.status), granted, promoted, weight


@pytest.mark.req("SW-3")
async def test_a_step_that_must_goes_back_whatever_its_policy_and_no_further_than_what_is_whole(
    store: SqliteStore, tmp_path: Path
) -> None:
    state = await runner(store).start(
        moved(tmp_path, step("two/watch", "test.watch", {"seconds": 0})), "t", {}
    )
    assert outcome(tmp_path, state) == ("rolled_back", True, True, False)
    assert state.record("two/watch").error is not None


async def test_that_it_must_go_back_is_not_forgotten_when_the_runner_dies(
    store: SqliteStore, tmp_path: Path
) -> None:
    """The failure is on the record; its runner died before it could take anything back."""
    state = await runner(store).start(
        moved(tmp_path, step("two/watch", "test.watch", {"seconds": 0})), "t", {}
    )
    events = list(await store.read(subject="run-1"))
    failed = next(n for n, e in enumerate(events) if e.kind == "step.failed")
    again = await SqliteStore.open(tmp_path / "again.db", create=True)
    await again.begin_term("the one that died")
    for event in events[: failed + 1]:
        new = NewEvent(event.kind, event.subject, event.actor, event.data)
        await again.append([new], expected=await again.head())
    (tmp_path / "weight").write_text("applied\n")
    state = await runner(again).resume()
    await again.close()
    assert outcome(tmp_path, state) == ("rolled_back", True, True, False)


@pytest.mark.req("SW-3")
async def test_once_it_is_whole_again_it_can_be_stopped_in_the_midst_of_a_step(
    store: SqliteStore, tmp_path: Path
) -> None:
    made = moved(tmp_path, step("two/watch", "test.watch", {"seconds": 60}))
    task = asyncio.create_task(runner(store).start(made, "t", {}))
    await until_started(store, "two/watch")
    await say(store, "run.abort_requested")
    state = await task
    assert outcome(tmp_path, state) == ("rolled_back", True, True, False)
    assert "a look" in (state.record("two/watch").error or {})["found"]


async def test_a_later_step_that_asks_for_a_rollback_leaves_what_is_whole(
    store: SqliteStore, tmp_path: Path
) -> None:
    failing = step("two/fail", "test.fail", {"counter": str(tmp_path / "n")}, on_failure="rollback")
    state = await runner(store).start(moved(tmp_path, failing), "t", {})
    assert outcome(tmp_path, state) == ("rolled_back", True, True, False)


@pytest.mark.req("SW-3")
async def test_a_run_that_is_paused_waits_before_its_next_step_and_goes_on_or_back(
    store: SqliteStore, tmp_path: Path
) -> None:
    for kind, expected in (("run.pause_ended", True), ("run.abort_requested", False)):
        place = tmp_path / kind
        place.mkdir()
        log = await SqliteStore.open(place / "hmsdr.db", create=True)
        slow = step("two/slow", "test.sleep", {"seconds": 0.3})
        task = asyncio.create_task(
            runner(log).start(moved(place, slow, touch(place / "last", "two/last")), "t", {})
        )
        await until_started(log, "two/slow")
        await say(log, "run.pause_requested")
        await asyncio.sleep(1)
        assert not task.done()
        assert not (place / "last").exists()
        await say(log, kind)
        state = await task
        await log.close()
        assert state.status is (RunStatus.SUCCEEDED if expected else RunStatus.ROLLED_BACK)
        assert (place / "last").exists() is expected
        assert (place / "weight").exists() is expected


async def test_behind_the_point_of_no_return_nobody_waits(store: SqliteStore, tmp_path: Path) -> None:
    granting = step("one/grant", "test.sleep", {"seconds": 0.3}, point_of_no_return=True)
    made = plan([("one", (), [[granting], [touch(tmp_path / "promoted", "one/promoted")]])])
    task = asyncio.create_task(runner(store).start(made, "t", {}))
    await until_started(store, "one/grant")
    await say(store, "run.pause_requested")
    state = await task
    assert state.status is RunStatus.SUCCEEDED
    assert state.record("one/promoted").state is StepState.SUCCEEDED
