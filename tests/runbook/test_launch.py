"""Launching without a hospital to launch on: who is told what and when, what is recorded, one runner at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hmsdr.errors import RefusedError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import Watcher, launch, new_run_name, resume, runs
from hmsdr.runbook.place import only_runner
from hmsdr.runbook.state import RunStatus

EAST, WEST = "us-east-1", "us-west-2"
RUNBOOK = """\
runbook: tell
title: Tell about ${region}
purpose: to test
parameters: {region: region}
stages:
  - stage: told
    title: told
    steps:
      - step: one
        title: the team is told
        action: notify.team
        with: {moment: begun, source: us-east-1, target: us-west-2}
        deadline: 5s
        on_failure: %s
"""


@pytest.fixture
def book(tmp_path: Path) -> Playbook:
    """A playbook whose team cannot be told: there is no endpoint."""
    (tmp_path / "key").write_text("key")
    regions = {
        name: {"agent": {"key": "${file:key}"}, "postgres": {"password": None}} for name in (EAST, WEST)
    }
    values = {"extends": "hms", "store": {"path": "store.db"}, "regions": regions}
    (tmp_path / "playbook.yaml").write_text(yaml.safe_dump(values))

    async def make() -> None:
        await (await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)).close()

    asyncio.run(make())
    return load(tmp_path / "playbook.yaml")


def runbook(directory: Path, on_failure: str) -> str:
    path = directory / "tell.yaml"
    path.write_text(RUNBOOK % on_failure)
    return str(path)


async def test_everybody_is_told_in_order_and_the_reason_is_kept(book: Playbook, tmp_path: Path) -> None:
    told: list[Any] = []
    watcher = Watcher(
        on_gates=lambda gates: told.append(("gates", len(gates))),
        on_start=lambda plan, run: told.append(("start", plan.title)),
        on_change=lambda state: told.append(("change", state.status)),
    )
    file = tmp_path / "store.db"
    state = await launch(
        book, {"region": EAST}, by="Ada", runbook=runbook(tmp_path, "continue"),
        context={"trigger": {"kind": "region-unreachable"}}, watcher=watcher,
    )  # fmt: skip
    assert state.status is RunStatus.SUCCEEDED
    assert told[:2] == [("gates", 0), ("start", f"Tell about {EAST}")]
    assert told[-1] == ("change", RunStatus.SUCCEEDED)
    assert (state.by, state.context["trigger"]) == ("Ada", {"kind": "region-unreachable"})
    assert (state.context["gates"], state.context["overrides"]) == ([], [])

    failed = await launch(book, {"region": WEST}, by="Bram", runbook=runbook(tmp_path, "stop"))
    assert failed.status is RunStatus.FAILED
    store = await SqliteStore.open(file)
    found = runs(await store.read())
    await store.close()
    assert [(each.run, each.by) for each in found] == [(state.run, "Ada"), (failed.run, "Bram")]
    # What ended is not gone on with: it is only told.
    assert (await resume(book, failed.run)).status is RunStatus.FAILED


async def test_what_is_refused_has_told_nobody_that_it_began(book: Playbook, tmp_path: Path) -> None:
    told: list[str] = []
    watcher = Watcher(
        on_start=lambda plan, run: told.append(run), on_change=lambda state: told.append(state.run)
    )
    with pytest.raises(RefusedError, match="no region of the playbook"):
        await launch(
            book,
            {"region": "mars"},
            by="x",
            runbook=runbook(tmp_path, "stop"),
            watcher=watcher,
        )
    with pytest.raises(RefusedError, match="no such file"):
        elsewhere = book.store.model_copy(update={"path": str(tmp_path / "none.db")})
        missing = book.model_copy(update={"store": elsewhere})
        await launch(missing, {"region": EAST}, by="x", runbook=runbook(tmp_path, "stop"))
    assert told == []
    assert not (tmp_path / "none.db").exists()


@pytest.mark.req("FM-3")
def test_the_one_runners_place_is_free_again_when_its_process_dies(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    code = (
        "import sys, time, pathlib\nfrom hmsdr.runbook.place import only_runner\n"
        "with only_runner(pathlib.Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(RefusedError, match="another run is under way"), only_runner(store):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    holder.stdout.close()
    with only_runner(store):
        pass


def test_run_names_sort_by_time_and_are_used_once() -> None:
    names = [new_run_name() for _ in range(200)]
    assert len(set(names)) > 190
    assert [name[:19] for name in names] == sorted(name[:19] for name in names)
