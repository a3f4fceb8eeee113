"""`hmsdr run` and what starts runs: bad input is refused with exit status 2, words, and nothing changed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from hmsdr.log.events import Event, NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.place import only_runner
from hmsdr.runbook.plan import Mode

EAST, WEST = "us-east-1", "us-west-2"
BOTH = (f"from={EAST}", f"to={WEST}")
OPTIONS = ("--override", "replication-lag", "--reason", "r", "--by", "n")


@dataclass
class Here:
    """A playbook whose systems are all out of reach, and its store."""

    directory: Path

    @property
    def playbook(self) -> Path:
        return self.directory / "playbook.yaml"

    def hmsdr(
        self, *words: str, wrap: Sequence[str] = (), out: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        command = [*wrap, sys.executable, "-m", "hmsdr", *words]
        env = {**os.environ, "HMSDR_PLAYBOOK": str(self.playbook)}
        return subprocess.run(
            command,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=env,
            timeout=90,
            check=False,
        )

    def refused(self, *words: str) -> str:
        """What a refused command says; the log must not have grown."""
        before = len(self.events())
        result = self.hmsdr(*words)
        assert result.returncode == 2, (result.stdout, result.stderr)
        for bad in ("Traceback", "should not happen"):
            assert bad not in result.stderr
        assert len(self.events()) == before
        return result.stderr

    def events(self) -> list[Event]:
        async def read() -> list[Event]:
            store = await SqliteStore.open(self.directory / "store.db")
            try:
                return await store.read()
            finally:
                await store.close()

        return asyncio.run(read())

    def record(
        self, run: str, runbook: str, *kinds: tuple[str, dict[str, Any]], mode: Mode = "unplanned"
    ) -> None:
        """A run in the log, as a runner would have left it."""
        found = definition.load(definition.find(runbook))
        values = {"from": EAST, "to": WEST, "region": EAST, "service": "patient"}
        parameters = {key: values[key] for key in found.definition.parameters}
        plan = freeze(found, load(self.playbook), installed(), parameters, mode=mode, epoch=0)
        events = [
            NewEvent("run.started", run, "tester", {"plan": plan.model_dump(mode="json")}),
            *(NewEvent(kind, run, "runner", data) for kind, data in kinds),
        ]

        async def write() -> None:
            store = await SqliteStore.open(self.directory / "store.db")
            await store.append(events, expected=await store.head())
            await store.close()

        asyncio.run(write())


@pytest.fixture
def here(tmp_path: Path) -> Here:
    nobody = "127.0.0.1"
    overlay = {
        "extends": "hms",
        "store": {"path": "store.db"},
        "traffic": {"public_url": f"http://{nobody}:1", "resolvers": [f"{nobody}:1"]},
        "prometheus": {"url": f"http://{nobody}:1"},
        "aws": {"endpoint_url": f"http://{nobody}:1", "access_key_id": "${file:key}", "secret_access_key": "${file:key}"},
        "regions": {
            name: {
                "kubernetes": {"kubeconfig": str(tmp_path / "kubeconfig")},
                "postgres": {"host": nobody, "port": 1, "password": None},
                "redis": {"host": nobody, "port": 1},
                "agent": {"url": f"http://{nobody}:1", "key": "${file:key}"},
                "ingress": {"url": f"http://{nobody}:1"},
            }
            for name in (EAST, WEST)
        },
    }  # fmt: skip
    (tmp_path / "key").write_text("key")
    (tmp_path / "playbook.yaml").write_text(yaml.safe_dump(overlay))

    async def make() -> None:
        await (await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)).close()

    asyncio.run(make())
    return Here(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "regional-failver", *BOTH), "Did you mean 'regional-failover'?"),
        (("start", "x" * 300, *BOTH), "there is none"),
        (("start", "cache-failover"), "the parameter 'from' is missing"),
        (("start", "cache-failover", f"from={EAST}", f"to={EAST}"), "would fail over to itself"),
        (("start", "cache-failover", "from=us-eest-1", f"to={WEST}"), "Did you mean 'us-east-1'?"),
        (("start", "service-failover", f"region={EAST}", "service=patients"), "Did you mean 'patient'?"),
        (("start", "cache-failover", *BOTH, f"from={WEST}"), "'from' is given twice"),
        (("start", "cache-failover", *BOTH, "how"), "'how' is no NAME=VALUE"),
        (("start", "cache-failover", *BOTH, "how=fast"), "unknown parameter 'how'"),
        (("start", "regional-failover", *BOTH, "--override", "lag", *OPTIONS[2:]), "there is no gate 'lag'"),
        (("start", "regional-failover", *BOTH, *OPTIONS[:4]), "no --reason or no --by"),
        (("start", "regional-failover", *BOTH, *OPTIONS[:3], " ", *OPTIONS[4:]), "no --reason or no --by"),
        (("start", "nowhere.yaml", *BOTH), "reading the runbook nowhere.yaml"),
        (("start", "./", *BOTH), "reading the runbook"),
        (("start",), "Missing argument"),
        (("show", "run-1"), "the log knows no such run"),
        (("resume", "run-1"), "the log knows no such run"),
        (("rollback", "run-1"), "the log knows no such run"),
        (("approve", "run-1", "a/b", "--by", "x"), "the log knows no such run"),
        (("abort", "run-1", "--reason", "r", "--by", "x"), "the log knows no such run"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(here: Here, words: tuple[str, ...], said: str) -> None:
    assert said in here.refused("run", *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runbook: [", "runbook.yaml"),
        ("- a\n- list\n", "runbook.yaml:1"),
        ("\x00\xff", "runbook.yaml"),
        ("", "runbook.yaml"),
    ],
)
def test_a_file_that_is_no_runbook_is_refused(here: Here, text: str, said: str) -> None:
    (here.directory / "runbook.yaml").write_bytes(text.encode("latin-1"))
    assert said in here.refused("run", "start", "runbook.yaml", *BOTH)


GRANTING = """\
runbook: mine
title: mine
purpose: to test
parameters: {region: region}
%s
stages:
  - stage: only
    title: only
    steps:
      - {step: grant, title: grant, action: %s, with: {region: "${region}"%s}, deadline: 1s}
"""


@pytest.mark.req("FM-5")
def test_a_runbook_that_cannot_be_gone_back_from_or_judged_is_refused(here: Here) -> None:
    path = here.directory / "mine.yaml"
    path.write_text(GRANTING % ("", "authority.grant", ", epoch: 1"))
    assert "has no parameters 'from' and 'to'" in here.refused("run", "start", "mine.yaml", f"region={EAST}")
    for back, said in (
        ("rollback: {runbook: cache-failver, parameters: {}}", "Did you mean 'cache-failover'?"),
        ("rollback: {runbook: cache-failover, parameters: {}}", "the parameter 'from' is missing"),
    ):
        path.write_text(GRANTING % (back, "postgres.checkpoint", ""))
        assert said in here.refused("run", "start", "mine.yaml", f"region={EAST}")


@pytest.mark.req("FM-1")
def test_a_failover_to_a_region_out_of_reach_is_refused_by_its_gates(here: Here) -> None:
    said = here.refused("run", "start", "regional-failover", *BOTH)
    assert "gate secondary-healthy failed" in said
    assert "gate replication-lag unknown" in said
    assert "--override secondary-healthy --reason TEXT --by NAME" in said
    # One gate that is overruled does not open the others.
    assert "gate replication-lag" not in here.refused("run", "start", "regional-failover", *BOTH, *OPTIONS)


@pytest.mark.req("FM-1")
def test_a_second_run_is_refused_while_one_runs_or_is_unfinished(here: Here) -> None:
    start = ("run", "start", "service-failover", f"region={EAST}", "service=patient")
    with only_runner(here.directory / "store.db"):
        assert "another run is under way" in here.refused(*start)
    here.record("run-1", "service-failover")
    assert "`hmsdr run resume run-1`" in here.refused(*start)
    assert "it has not ended" in here.refused("run", "rollback", "run-1")


def test_a_place_that_cannot_be_locked_is_refused(here: Here) -> None:
    (here.directory / "store.runner.lock").mkdir()
    said = here.refused("run", "start", "service-failover", f"region={EAST}", "service=patient")
    assert "The directory of the store must be writable" in said


def test_a_run_that_fails_is_status_1_and_its_story_is_in_the_log(here: Here) -> None:
    result = here.hmsdr("run", "start", "service-failover", f"region={EAST}", "service=patient", "--json")
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["kind"] == "run"
    run = lines[-1]["name"]
    shown = here.hmsdr("run", "show", run, "--json")
    assert json.loads(shown.stdout)["status"] == "rolled_back"
    assert f"run {run}" in result.stderr
    assert "it was rolled back already" in here.refused("run", "rollback", run)


@pytest.mark.req("FM-3")
@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("reader", ["gone", "full disk"])
def test_a_run_does_not_stop_because_nobody_can_read_it(
    here: Here, reader: str, as_json: tuple[str, ...]
) -> None:
    if reader == "gone":
        end, out = os.pipe()
        os.close(end)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    try:
        words = ("run", "start", "service-failover", f"region={EAST}", "service=patient", *as_json)
        result = here.hmsdr(*words, out=out)
    finally:
        os.close(out)
    assert result.returncode == 1, result.stderr
    assert here.events()[-1].kind == "run.rolled_back"
    assert result.stderr.count("cannot be written any more") == 1
    assert "it ended rolled_back" in result.stderr
    assert "should not happen" not in result.stderr


@pytest.mark.req("FM-3")
def test_a_dry_run_changes_nothing(here: Here) -> None:
    result = here.hmsdr("run", "start", "regional-failover", *BOTH, "--dry-run")
    assert result.returncode == 2, result.stderr  # the plan is shown, and that it could not be started now
    assert "gate secondary-healthy failed" in result.stderr
    assert "Nothing was changed." in result.stdout
    assert "cannot be asked" in result.stdout
    as_json = here.hmsdr("failover", EAST, WEST, "--dry-run", "--json")
    assert {gate["name"]: gate["state"] for gate in json.loads(as_json.stdout)["gates"]}[
        "secondary-healthy"
    ] == "failed"
    assert here.events() == []


GRANTED = (
    "step.started", {"step": "promotion/grant", "attempt": 1}
)  # fmt: skip


@pytest.mark.req("FM-5")
def test_what_ended_is_gone_back_from_by_its_rollback_plan(here: Here) -> None:
    here.record("run-cache", "cache-failover", ("run.succeeded", {}))
    here.record("run-region", "regional-failover", GRANTED, ("run.failed", {"rolled_back": False}))
    here.record("run-early", "regional-failover", ("run.failed", {"rolled_back": False}))
    for run in ("run-cache", "run-region"):
        result = here.hmsdr("run", "rollback", run, "--dry-run")
        # What moves a right to write has gates, and nothing is there that could open them.
        assert result.returncode == (2 if run == "run-region" else 0), result.stderr
        assert f"from {WEST} to {EAST}" in result.stdout
    assert "granted no right to write" in here.refused("run", "rollback", "run-early")


@pytest.mark.req("FM-5", "DB-4")
def test_what_a_run_passed_over_is_named_with_the_command_that_makes_up_for_it(here: Here) -> None:
    failed = {"error": {"doing": "d", "found": "it went away", "remedy": ""}}
    steps = [
        (kind, {"step": step, **data})
        for step in ("standby/database", "standby/cache")
        for kind, data in (("step.started", {"attempt": 1}), ("step.failed", failed))
    ]
    here.record("run-1", "regional-failover", *steps, ("run.succeeded", {}), mode="planned")
    said = here.hmsdr("run", "show", "run-1").stdout
    assert "but not done: PostgreSQL of us-east-1 follows as a standby; Redis of us-east-1" in said
    assert f"to make up for it, once both sides answer: `hmsdr follow {EAST}`" in said
    assert (
        f"to make up for it, once both sides answer: `hmsdr run start cache-failover from={EAST} to={WEST}`"
        in said
    )


@pytest.mark.req("FM-5")
@pytest.mark.parametrize("users", [EAST, WEST])
def test_on_paper_every_name_is_a_real_one_and_in_the_list_none_is_open(here: Here, users: str) -> None:
    listed = here.hmsdr("runbook", "list").stdout
    assert [name for name in definition.SHIPPED if name not in listed] == []
    assert "${" not in listed
    for name in definition.SHIPPED:
        shown = here.hmsdr("runbook", "show", name, "--users", users)
        assert (shown.returncode, "${" in shown.stdout) == (0, False), shown
    assert f"Applications of {users}, where users are, use Redis of {WEST}" in (
        here.hmsdr("runbook", "show", "cache-failover", "--users", users).stdout
    )
    paper = here.hmsdr("runbook", "show", "database-failover").stdout
    assert f"must follow again by then: `hmsdr follow {EAST}`" in paper
    assert "is no region of the playbook" in here.refused("runbook", "show", "cache-failover", "--users", "x")


def test_an_abort_behind_the_point_of_no_return_is_refused(here: Here) -> None:
    here.record("run-before", "regional-failover")
    here.record("run-behind", "regional-failover", GRANTED)
    words = ("--reason", "r", "--by", "Ada")
    asked = here.hmsdr("run", "abort", "run-before", *words)
    assert asked.returncode == 0, asked.stderr
    said = here.refused("run", "abort", "run-behind", *words)
    assert "aborting run run-behind: it is past its point of no return" in said
    assert "`hmsdr run resume run-behind`" in said


def _namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _namespaces(), reason="mounting a small disk takes user namespaces")
@pytest.mark.parametrize("disk", ["read-only", "full"])
def test_a_disk_that_takes_nothing_stops_the_run_before_it_acts(here: Here, disk: str) -> None:
    place = here.directory / "disk"
    place.mkdir()
    overlay = yaml.safe_load(here.playbook.read_text())
    here.playbook.write_text(yaml.safe_dump({**overlay, "store": {"path": "disk/store.db"}}))
    ruin = {
        "read-only": f"mount -o remount,ro {place}",
        "full": f"dd if=/dev/zero of={place}/filler bs=4k 2>/dev/null; true",
    }[disk]
    script = (
        f"mount -t tmpfs -o size=1m none {place} && {sys.executable} -m hmsdr store init >&2 && "
        f'{ruin} && exec "$@"'
    )
    start = ("run", "start", "service-failover", f"region={EAST}", "service=patient")
    result = here.hmsdr(*start, wrap=("unshare", "-Urm", "sh", "-c", script, "sh"))
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    assert "should not happen" not in result.stderr
    assert "Check the disk under it" in result.stderr or "must be writable" in result.stderr
