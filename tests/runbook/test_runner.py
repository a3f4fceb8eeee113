"""The runner: order, parallel stages, retries, failures, approvals, rollback; and killed at every point."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import CATALOGUE, NO_SYSTEMS, plan, step

from hmsdr.errors import RefusedError
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import StoreError, TermOverError
from hmsdr.runbook.journal import Journal
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus, StepState, fold


@pytest.fixture
async def store(tmp_path: Path):
    opened = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    yield opened
    await opened.close()


async def run(store: SqliteStore, made: Plan, name: str = "run-1") -> RunState:
    return await Runner(store, NO_SYSTEMS, CATALOGUE, name).start(made, "tester", {})


def touch(path: Path, key: str, **more: object) -> dict[str, object]:
    return step(key, "test.touch", {"path": str(path)}, **more)


async def test_stages_that_do_not_wait_for_each_other_overlap(store: SqliteStore) -> None:
    slow = {"seconds": 0.2}
    made = plan(
        [
            ("first", (), [[step("first/a", "test.sleep", {"seconds": 0.0})]]),
            ("left", ("first",), [[step("left/a", "test.sleep", slow), step("left/b", "test.sleep", slow)]]),
            ("right", ("first",), [[step("right/a", "test.sleep", slow)]]),
            ("last", ("left", "right"), [[step("last/a", "test.sleep", {"seconds": 0.0})]]),
        ]
    )
    state = await run(store, made)
    assert state.status is RunStatus.SUCCEEDED
    at = state.stages
    assert at["right"].started_at < at["left"].ended_at
    assert at["left"].started_at < at["right"].ended_at
    assert at["last"].started_at >= max(at["left"].ended_at, at["right"].ended_at)


async def test_a_goal_that_holds_is_left_alone_and_said_so(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("by hand\n")
    state = await run(store, plan([("s", (), [[touch(tmp_path / "there", "s/a")]])]))
    assert state.record("s/a").already
    assert (tmp_path / "there").read_text() == "by hand\n"


@pytest.mark.parametrize("there", [True, False])
async def test_an_action_that_asks_itself_is_not_asked_first(
    store: SqliteStore, tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "there").write_text("by hand\n")
    made = plan([("s", (), [[step("s/a", "test.once", {"path": str(tmp_path / "there")})]])])
    record = (await run(store, made)).record("s/a")
    assert (record.state, record.already) == (StepState.SUCCEEDED, there)
    assert (tmp_path / "there.order").read_text().split() == ["act", "check"]


async def test_temporary_failures_are_retried_and_permanent_ones_are_not(
    store: SqliteStore, tmp_path: Path
) -> None:
    made = plan(
        [("s", (), [[step("s/a", "test.fail", {"counter": str(tmp_path / "n"), "times": 2}, attempts=3)]])]
    )
    state = await run(store, made)
    assert state.status is RunStatus.SUCCEEDED
    assert state.record("s/a").attempt == 3
    made = plan(
        [
            (
                "s",
                (),
                [[step("s/a", "test.fail", {"counter": str(tmp_path / "m"), "permanent": True}, attempts=9)]],
            )
        ]
    )
    state = await run(store, made, "run-2")
    assert state.status is RunStatus.FAILED
    assert (tmp_path / "m").read_text() == "x"
    assert state.record("s/a").error["remedy"] == "Nothing to do"


async def test_a_deadline_ends_a_step(store: SqliteStore) -> None:
    state = await run(
        store, plan([("s", (), [[step("s/a", "test.sleep", {"seconds": 30}, deadline="50ms")]])])
    )
    assert state.status is RunStatus.FAILED
    assert "0.05 s" in state.record("s/a").error["found"]
    vain = {"seconds": 0, "proof": "paint to dry"}
    state = await run(store, plan([("s", (), [[step("s/a", "test.sleep", vain, deadline="50ms")]])]), "run-2")
    assert state.record("s/a").error["found"] == "not done within 0.05 s; it waited for paint to dry"


async def test_continue_goes_on_and_stop_does_not(store: SqliteStore, tmp_path: Path) -> None:
    failing = step("s/fail", "test.fail", {"counter": str(tmp_path / "n")}, on_failure="continue")
    state = await run(store, plan([("s", (), [[failing], [touch(tmp_path / "after", "s/after")]])]))
    assert state.status is RunStatus.SUCCEEDED
    assert state.record("s/fail").state is StepState.FAILED
    failing = {**failing, "on_failure": "stop"}
    state = await run(store, plan([("s", (), [[failing], [touch(tmp_path / "never", "s/never")]])]), "run-2")
    assert state.status is RunStatus.FAILED
    assert not (tmp_path / "never").exists()


async def test_rollback_takes_back_what_was_done_last_first(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "before").write_text("mine\n")
    made = plan(
        [
            ("one", (), [[touch(tmp_path / "before", "one/kept")], [touch(tmp_path / "a", "one/a")]]),
            ("two", ("one",), [[touch(tmp_path / "b", "two/b")]]),
            (
                "three",
                ("two",),
                [[step("three/fail", "test.fail", {"counter": str(tmp_path / "n")}, on_failure="rollback")]],
            ),
        ]
    )
    state = await run(store, made)
    assert state.status is RunStatus.ROLLED_BACK
    assert (tmp_path / "before").exists(), "what was there before the run is not the run's to take back"
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    undone = [e.data["step"] for e in await store.read(subject="run-1") if e.kind == "step.undone"]
    assert undone == ["two/b", "one/a"]


async def test_behind_the_point_of_no_return_nothing_is_taken_back(
    store: SqliteStore, tmp_path: Path
) -> None:
    made = plan(
        [
            ("one", (), [[touch(tmp_path / "a", "one/a", point_of_no_return=True)]]),
            (
                "two",
                ("one",),
                [[step("two/fail", "test.fail", {"counter": str(tmp_path / "n")}, on_failure="rollback")]],
            ),
        ]
    )
    assert (await run(store, made)).status is RunStatus.FAILED
    assert (tmp_path / "a").exists()


async def aborted_during(store: SqliteStore, made: Plan, key: str) -> RunState:
    """Run `made`, with an abort that is asked for while step `key` is under way."""
    task = asyncio.create_task(run(store, made))
    while not any(e.kind == "step.started" and e.data["step"] == key for e in await store.read()):
        await asyncio.sleep(0.01)
    await store.append(
        [NewEvent("run.abort_requested", "run-1", "Ada", {"reason": "a drill"})], expected=await store.head()
    )
    return await task


async def test_an_abort_before_the_point_of_no_return_undoes(store: SqliteStore, tmp_path: Path) -> None:
    slow = step("two/slow", "test.sleep", {"seconds": 0.3})
    made = plan(
        [
            ("one", (), [[touch(tmp_path / "a", "one/a")]]),
            ("two", ("one",), [[slow], [touch(tmp_path / "b", "two/b")]]),
        ]
    )
    assert (await aborted_during(store, made, "two/slow")).status is RunStatus.ROLLED_BACK
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


async def test_an_abort_at_the_point_of_no_return_does_not_leave_the_run_half_done(
    store: SqliteStore, tmp_path: Path
) -> None:
    """Granted and not promoted would be a hospital in which nobody writes, and no run left to resume."""
    granting = step("one/grant", "test.sleep", {"seconds": 0.3}, point_of_no_return=True)
    made = plan([("one", (), [[granting], [touch(tmp_path / "promoted", "one/promoted")]])])
    assert (await aborted_during(store, made, "one/grant")).status is RunStatus.SUCCEEDED
    assert (tmp_path / "promoted").exists()


async def test_an_approval_is_waited_for_and_given_from_outside(store: SqliteStore, tmp_path: Path) -> None:
    approval = {"role": "commander", "deadline": "10s"}
    made = plan([("s", (), [[touch(tmp_path / "a", "s/a", approval=approval)]])])
    task = asyncio.create_task(run(store, made))
    while not any(e.kind == "approval.requested" for e in await store.read()):
        await asyncio.sleep(0.01)
    assert not (tmp_path / "a").exists()
    await store.append(
        [NewEvent("approval.given", "run-1", "Ada", {"step": "s/a"})], expected=await store.head()
    )
    assert (await task).status is RunStatus.SUCCEEDED
    assert (tmp_path / "a").exists()


async def test_an_approval_that_is_denied_or_forgotten_stops(store: SqliteStore, tmp_path: Path) -> None:
    approval = {"role": "commander", "deadline": "300ms"}
    made = plan([("s", (), [[touch(tmp_path / "a", "s/a", approval=approval)]])])
    state = await run(store, made)
    assert state.status is RunStatus.FAILED
    assert "nobody answered" in state.record("s/a").error["found"]
    assert not (tmp_path / "a").exists()


async def test_a_runner_whose_term_is_over_stops_before_acting(store: SqliteStore, tmp_path: Path) -> None:
    made = plan(
        [
            ("one", (), [[step("one/a", "test.sleep", {"seconds": 0.3})]]),
            ("two", ("one",), [[touch(tmp_path / "late", "two/a")]]),
        ]
    )
    task = asyncio.create_task(run(store, made))
    while not any(e.kind == "step.started" for e in await store.read()):
        await asyncio.sleep(0.01)
    await store.begin_term("successor")
    with pytest.raises(TermOverError):  # itself, not a group around it: whoever leads must know it from a bug
        await task
    assert not (tmp_path / "late").exists()


async def test_a_journal_that_cannot_be_written_stops_the_run_before_it_acts(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    # SQLite's own limit on the size of the file is a full disk as far as it can tell.
    await store._run("filling", lambda: store._connection.execute("PRAGMA max_page_count = 1").fetchall())
    made = plan([("s", (), [[touch(tmp_path / f"{n}", f"s/{n}") for n in range(200)]])])
    with pytest.raises(StoreError, match="full"):
        await run(store, made)
    assert not list(tmp_path.glob("[0-9]*"))
    await store.close()


async def test_resuming_what_is_not_there_is_refused(store: SqliteStore) -> None:
    with pytest.raises(RefusedError, match="no such run"):
        await Runner(store, NO_SYSTEMS, CATALOGUE, "run-9").resume()


def crash_plan(tmp_path: Path, die: str | None = None) -> Plan:
    """Stages that overlap, steps together, a retry: and, with `die`, a step that kills the process itself."""
    deadly = step("two/b", "test.touch", {"path": str(tmp_path / "b"), "die": die})
    return plan(
        [
            ("one", (), [[touch(tmp_path / "a", "one/a"), touch(tmp_path / "a2", "one/a2")]]),
            ("two", ("one",), [[deadly]]),
            ("aside", ("one",), [[touch(tmp_path / "c", "aside/c")]]),
            ("last", ("two", "aside"), [[touch(tmp_path / "d", "last/d", point_of_no_return=True)]]),
        ]
    )


def run_child(tmp_path: Path, crash_at: int, when: str) -> int:
    child = Path(__file__).parent / "crash_child.py"
    return subprocess.run(
        [sys.executable, child, tmp_path / "hmsdr.db", tmp_path / "plan.json", "run-1", str(crash_at), when],
        check=False,
        timeout=60,
    ).returncode


async def finished(tmp_path: Path) -> RunState:
    """Resume in this process, and look at the end."""
    store = await SqliteStore.open(tmp_path / "hmsdr.db")
    state = await Runner(store, NO_SYSTEMS, CATALOGUE, "run-1").resume()
    assert fold(await store.read(subject="run-1")) == state
    kinds = Counter((e.kind, e.data.get("step")) for e in await store.read() if e.kind == "step.succeeded")
    assert all(count == 1 for count in kinds.values())
    await store.close()
    return state


@pytest.mark.req("FA-5")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("crash_at", range(2, 20))
async def test_killed_at_every_event_then_resumed_it_ends_the_same(
    tmp_path: Path, crash_at: int, when: str
) -> None:
    """`hmsdr run resume` after SIGKILL: same end, no effect twice."""
    store = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    await store.close()
    (tmp_path / "plan.json").write_text(crash_plan(tmp_path).model_dump_json())
    assert run_child(tmp_path, crash_at, when) == -9
    state = await finished(tmp_path)
    assert state.status is RunStatus.SUCCEEDED
    for name in ("a", "a2", "b", "c", "d"):
        assert (tmp_path / name).read_text() == "applied\n"


@pytest.mark.parametrize("die", ["before", "after"])
async def test_killed_inside_a_step_its_effect_is_applied_once(tmp_path: Path, die: str) -> None:
    store = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    await store.close()
    (tmp_path / "plan.json").write_text(crash_plan(tmp_path, die).model_dump_json())
    assert run_child(tmp_path, 0, "before") == -9
    state = await finished(tmp_path)
    assert state.status is RunStatus.SUCCEEDED
    assert (tmp_path / "b").read_text() == "applied\n"
    assert state.record("two/b").already is (die == "after")


@pytest.mark.req("FM-5", "FA-5")
@pytest.mark.parametrize("die", ["before", "after"])
async def test_killed_inside_a_step_and_then_aborted_its_effect_is_taken_back(
    tmp_path: Path, die: str
) -> None:
    """The successor finds the goal reached; that it was this run that reached it, the journal knows."""
    store = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    (tmp_path / "by-hand").write_text("by hand\n")
    made = plan(
        [
            ("one", (), [[touch(tmp_path / "by-hand", "one/by-hand")]]),
            ("two", ("one",), [[step("two/b", "test.touch", {"path": str(tmp_path / "b"), "die": die})]]),
            ("last", ("two",), [[step("last/f", "test.fail", {"counter": str(tmp_path / "f")}, on_failure="rollback")]]),
        ]
    )  # fmt: skip
    (tmp_path / "plan.json").write_text(made.model_dump_json())
    assert run_child(tmp_path, 0, "before") == -9
    state = await Runner(store, NO_SYSTEMS, CATALOGUE, "run-1").resume()
    await store.close()
    assert state.status is RunStatus.ROLLED_BACK
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "by-hand").read_text() == "by hand\n"


@pytest.mark.req("FM-5")
async def test_what_failed_after_its_effect_is_taken_back(store: SqliteStore, tmp_path: Path) -> None:
    lost = {"path": str(tmp_path / "a"), "die": "fail"}
    state = await run(store, plan([("s", (), [[step("s/a", "test.touch", lost, on_failure="rollback")]])]))
    assert state.status is RunStatus.ROLLED_BACK
    assert state.record("s/a").state is StepState.UNDONE
    assert not (tmp_path / "a").exists()


async def test_the_fold_refuses_an_order_that_no_runner_writes(store: SqliteStore, tmp_path: Path) -> None:
    journal = Journal(store, "run-1")
    await journal.begin()
    made = crash_plan(tmp_path)
    await journal.write("run.started", plan=made.model_dump(mode="json"))
    with pytest.raises(ValueError, match="which is planned"):
        await journal.write("step.succeeded", step="one/a", already=False, output={}, observed={})
