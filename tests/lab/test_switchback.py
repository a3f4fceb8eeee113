"""The hospital goes home on a whole lab, under clinics: share by share, and what stops it, sends it back, or holds it.

The tests follow one another on one lab: each begins where the one before it left the right to write and the users.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from commands import Done, begin, hmsdr
from hmsdr.lab import control
from hmsdr.lab.aws.seed import client
from hmsdr.lab.hms.ledger import Ledger
from hmsdr.lab.layout import PUBLIC_NAME, ZONE, Layout
from hmsdr.lab.processes import lab_processes
from hmsdr.runbook.launch import runs
from hmsdr.runbook.state import RunState, RunStatus, StepState
from hospital_state import EAST, WEST, events, judged, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def short(module_lab: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's playbook with two shares instead of five."""
    path = tmp_path_factory.mktemp("short") / "playbook.yaml"
    path.write_text(
        f"extends: {module_lab.playbook}\nprocedures: {{switchback: {{home_shares: [50, 100]}}}}\n"
    )
    return path


@asynccontextmanager
async def clinics(lab: Layout, path: Path) -> AsyncIterator[None]:
    working = await control.start_clinics(lab, path)
    try:
        async with asyncio.timeout(60):
            while len(Ledger.read(path)) < 60:
                await asyncio.sleep(0.2)
        yield
    finally:
        await working.stop()


async def ready_to_go(lab: Layout, region: str, *more: str | Path) -> None:
    """Everything that the gates of going to `region` ask for."""
    equal = hmsdr("compare", "--json", lab=lab)
    assert (equal.status, equal.json()["equal"]) == (0, True), equal
    planned = hmsdr("plan", "switchback", region, "--announce", "--by", "Ada", *more, lab=lab)
    while planned.status == 2 and "primary-stable failed" in planned.err:
        await asyncio.sleep(0.5)
        planned = hmsdr("plan", "switchback", region, *more, lab=lab)
    assert planned.status == 0, planned


async def newest(lab: Layout) -> RunState:
    return runs(await events(lab))[-1]


async def reached(lab: Layout, key: str, process: subprocess.Popen[bytes], said: Path) -> str:
    """Wait until step `key` of the newest run has succeeded; gives the run's name."""
    async with asyncio.timeout(90):
        while True:
            if runs(await events(lab)):
                state = await newest(lab)
                if state.status is RunStatus.RUNNING and state.record(key).state is StepState.SUCCEEDED:
                    return state.run
            assert process.poll() is None, said.read_text()
            await asyncio.sleep(0.1)


async def says(said: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60):
        while words not in said.read_text():
            assert process.poll() is None, said.read_text()
            await asyncio.sleep(0.1)


async def ended(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, 90)


def weigh(lab: Layout, region: str, weight: int) -> None:
    """A stranger's change of one region's record."""
    route53 = client(lab, "route53")
    zone = route53.list_hosted_zones_by_name(DNSName=ZONE)["HostedZones"][0]["Id"]
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    old = next(
        each for each in records if each["Name"] == f"{PUBLIC_NAME}." and each.get("SetIdentifier") == region
    )
    changes = [
        {"Action": "DELETE", "ResourceRecordSet": old},
        {"Action": "CREATE", "ResourceRecordSet": {**old, "Weight": weight}},
    ]
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


@pytest.mark.req("SW-1", "SW-2", "SW-3", "SW-4", "RC-3", "FA-4")
async def test_home_share_by_share_with_no_error_and_no_lost_write(
    module_lab: Layout, tmp_path: Path
) -> None:
    lab, path = module_lab, tmp_path / "ledger.jsonl"
    away = hmsdr("failover", EAST, WEST, lab=lab)
    assert away.status == 0, away
    before = await look(lab)
    assert (before.primaries, before.weights) == ((WEST,), {EAST: 0, WEST: 100})
    refused = hmsdr("switchback", EAST, lab=lab)
    assert refused.status == 2
    for words in ("data-equal unknown", "stakeholders-told failed: nobody was told"):
        assert words in refused.err
    assert (await newest(lab)).plan.runbook == "regional-failover", "nothing was begun"
    async with clinics(lab, path):
        await ready_to_go(lab, EAST)
        shown = hmsdr("plan", "switchback", EAST, "--json", lab=lab).json()
        assert shown["allowed"] is True
        assert shown["across"]["seconds"] < 1
        done = hmsdr("switchback", EAST, lab=lab, seconds=150)
        assert (done.status, "not done" in done.out) == (0, False), done
    state = await look(lab)
    assert (state.epoch, state.primaries) == (before.epoch + 1, (EAST,))
    assert state.weights == {EAST: 100, WEST: 0}
    assert state.record_epoch == state.epoch
    entries, lost, doubled = await judged(lab, EAST, path)
    assert [(each.service, each.kind, each.error, each.status) for each in entries if not each.ok] == []
    assert (lost, doubled) == ([], 0)
    run = await newest(lab)
    watched = [step for step in run.plan.steps() if step.action == "traffic.watch"]
    assert [step.arguments["share"] for step in watched] == [20, 40, 60, 80, 100]
    for step in watched:
        output = run.record(step.key).output
        assert abs(output["arrived"] - step.arguments["share"]) <= 30
        assert output["home"]["requests"] >= 10
    # Both regions served while they were split, and those at the old one wrote into the new one's database.
    split = [each for each in entries if each.kind == "write" and each.epoch == state.epoch]
    assert {each.region for each in split} == {EAST, WEST}
    assert {each.instance for each in split} == {state.holder}


@pytest.mark.req("SW-3")
async def test_a_step_made_bad_goes_back_by_itself_and_names_the_signal(
    module_lab: Layout, short: Path, tmp_path: Path
) -> None:
    lab, path, said = module_lab, tmp_path / "ledger.jsonl", tmp_path / "said.txt"
    before = await look(lab)
    async with clinics(lab, path):
        await ready_to_go(lab, WEST, "--playbook", short)
        process = begin("switchback", WEST, "--playbook", str(short), lab=lab, said=said)
        run = await reached(lab, "traffic-50/weigh", process, said)
        await control.break_(lab, "service-killed", region=WEST, service="patient", hold=True)
        assert await ended(process) == 1, said.read_text()
        await control.heal(lab)
    assert "error rate of us-west-2" in said.read_text()
    assert "All users go back to us-east-1" in said.read_text()
    state, done = await look(lab), await newest(lab)
    assert (done.run, done.status) == (run, RunStatus.ROLLED_BACK)
    assert done.record("traffic-50/weigh").state is StepState.UNDONE
    assert state.weights == {EAST: 100, WEST: 0}
    # What is whole stays: the database was handed over, and users write across.
    assert (state.epoch, state.primaries) == (before.epoch + 1, (WEST,))
    _, lost, doubled = await judged(lab, WEST, path)
    assert (lost, doubled) == ([], 0)


def monitoring(lab: Layout, number: signal.Signals) -> None:
    (process,) = [
        each for each in lab_processes(lab.lab_id, lab.directory) if each.executable == "prometheus"
    ]
    os.kill(process.pid, number)


@pytest.mark.req("SW-2", "SW-3")
async def test_without_figures_it_holds_and_its_runner_may_pause_and_die(
    module_lab: Layout, short: Path, tmp_path: Path
) -> None:
    """What the test before left: the database is there already, users are not."""
    lab, said = module_lab, tmp_path / "said.txt"
    before = await look(lab)
    async with clinics(lab, tmp_path / "ledger.jsonl"):
        process = begin("switchback", WEST, "--playbook", str(short), lab=lab, said=said)
        run = await reached(lab, "traffic-50/weigh", process, said)
        monitoring(lab, signal.SIGSTOP)
        try:
            await says(said, f"no figures of {EAST}", process)
            paused = hmsdr("run", "pause", run, "--reason", "a look", "--by", "Ada", lab=lab)
            assert paused.status == 0, paused
            await asyncio.sleep(6)  # longer than a share is held for
            assert (await look(lab)).weights == {EAST: 50, WEST: 50}
        finally:
            monitoring(lab, signal.SIGCONT)
        await says(said, "paused by Ada: a look", process)
        assert (await look(lab)).weights == {EAST: 50, WEST: 50}
        process.kill()
        process.wait()
        assert (await newest(lab)).status is RunStatus.RUNNING
        resumed = hmsdr("run", "resume", run, "--playbook", short, lab=lab, seconds=120)
        assert resumed.status == 0, resumed
    state = await look(lab)
    assert (state.weights, state.epoch, state.primaries) == ({EAST: 0, WEST: 100}, before.epoch, (WEST,))
    granted = (await newest(lab)).record("promotion/grant")
    assert granted.already, "nothing of the hand-over was done again"


@pytest.mark.req("SW-2", "SW-3")
async def test_records_that_a_stranger_changed_stop_it_and_an_operator_may_go_back(
    module_lab: Layout, short: Path, tmp_path: Path
) -> None:
    lab, said = module_lab, tmp_path / "said.txt"
    async with clinics(lab, tmp_path / "ledger.jsonl"):
        await ready_to_go(lab, EAST, "--playbook", short)
        process = begin("switchback", EAST, "--playbook", str(short), lab=lab, said=said)
        run = await reached(lab, "traffic-50/weigh", process, said)
        aborted: Done = hmsdr("run", "abort", run, "--reason", "not now", "--by", "Ada", lab=lab)
        assert aborted.status == 0, aborted
        assert await ended(process) == 1
        assert (await newest(lab)).status is RunStatus.ROLLED_BACK
        assert (await look(lab)).weights == {EAST: 0, WEST: 100}
        process = begin("switchback", EAST, "--playbook", str(short), lab=lab, said=said)
        run = await reached(lab, "traffic-50/weigh", process, said)
        weigh(lab, EAST, 70)
        assert await ended(process) == 1
    assert (
        f"somebody else changed the records of {PUBLIC_NAME}: {EAST} has weight 70, expected 50"
        in said.read_text()
    )
    done = await newest(lab)
    assert (done.run, done.status) == (run, RunStatus.FAILED)
    assert (await look(lab)).weights == {EAST: 70, WEST: 50}, "what somebody else set is left alone"
    again = hmsdr("plan", "switchback", EAST, "--playbook", short, lab=lab)
    assert again.status == 0, again
