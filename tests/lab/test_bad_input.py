"""What must not be is refused by the command: exit status 2, what was found, what to do, and nothing has changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from commands import COMMAND, Done, begin, command_environment, hmsdr
from hmsdr.lab.aws.seed import client
from hmsdr.lab.layout import DATABASE, Layout
from hmsdr.lab.processes import lab_processes
from hospital_state import EAST, WEST, events, head, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


def failover(lab: Layout, *more: str, **environment: str) -> Done:
    return hmsdr("failover", EAST, WEST, *more, lab=lab, **environment)


def refused(lab: Layout, found: str, done: Callable[[], Done]) -> Done:
    """`done` is refused because of `found`, and neither the log nor the hospital has changed."""
    before, story = asyncio.run(look(lab, regions=(EAST,))), asyncio.run(head(lab))
    answer = done()
    assert (answer.status, found in answer.out + answer.err) == (2, True), answer
    assert (asyncio.run(look(lab, regions=(EAST,))), asyncio.run(head(lab))) == (before, story)
    return answer


def sql(lab: Layout, region: str, statement: str) -> None:
    where = lab.regions[region].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname={DATABASE} connect_timeout=3"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


def gate(lab: Layout, name: str) -> dict[str, Any]:
    done = hmsdr("plan", "failover", EAST, WEST, "--json", lab=lab)
    found = done.json()["gates"]
    # What `failover` would refuse is said by the plan's status too, for scripts.
    assert done.status == (0 if all(each["state"] == "passed" for each in found) else 2), done
    return next(each for each in found if each["name"] == name)


def until(what: str, holds: Callable[[], bool], seconds: float = 40) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.2)


@contextmanager
def another_playbook(lab: Layout, place: Path, **changes: Any) -> Iterator[str]:
    file = place / "changed.yaml"
    file.write_text(yaml.safe_dump({"extends": str(lab.playbook), **changes}))
    yield str(file)


@pytest.mark.req("FM-1")
def test_replication_that_lags_or_cannot_be_measured(lab: Layout) -> None:
    sql(lab, WEST, "SELECT pg_wal_replay_pause()")
    try:
        until("the lag is over its limit", lambda: gate(lab, "replication-lag")["state"] == "failed")
        answer = refused(lab, "gate replication-lag failed", lambda: failover(lab))
        assert "--override replication-lag --reason TEXT --by NAME" in answer.err
        assert "below 5s" in answer.out
    finally:
        sql(lab, WEST, "SELECT pg_wal_replay_resume()")
    until("the lag is small again", lambda: gate(lab, "replication-lag")["state"] == "passed")
    agents = [
        process.pid
        for process in lab_processes(lab.lab_id, lab.directory)
        if process.region == WEST and "hmsdr agent" in process.command
    ]
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert gate(lab, "replication-lag")["state"] == "unknown"
        refused(lab, "gate replication-lag unknown", lambda: failover(lab))
    finally:
        for pid in agents:
            os.kill(pid, signal.SIGCONT)
    until("the standby's agent is back", lambda: gate(lab, "replication-lag")["state"] == "passed")


@pytest.mark.req("FM-1", "DB-4")
def test_a_standby_that_does_not_stream_while_the_primary_is_well(module_lab: Layout) -> None:
    """Fenced then, the old side could never hand over the rest: nobody would be able to write."""
    lab = module_lab
    before = asyncio.run(look(lab))
    sql(lab, WEST, "ALTER SYSTEM SET primary_conninfo = ''")
    sql(lab, WEST, "SELECT pg_reload_conf()")
    unseen = "the primary answers, but the standby does not stream"
    until("the gate sees it", lambda: unseen in gate(lab, "replication-lag")["observed"])
    refused(lab, "gate replication-lag unknown", lambda: failover(lab))
    overruled = ("--override", "replication-lag", "--reason", "we must", "--by", "pat")
    done = failover(lab, *overruled)
    assert (done.status, "rolled_back" in done.out) == (1, True), done
    assert asyncio.run(look(lab)) == before
    sql(lab, WEST, "ALTER SYSTEM RESET primary_conninfo")
    sql(lab, WEST, "SELECT pg_reload_conf()")
    until("it streams again", lambda: gate(lab, "replication-lag")["state"] == "passed")


@pytest.mark.req("FM-1")
def test_services_that_do_not_run_in_the_target(lab: Layout) -> None:
    def scale(replicas: int) -> None:
        words = ("kubectl", f"--context={WEST}", "-n", "hms-system", "scale", "deployment/billing-service")
        done = hmsdr("lab", "shell", "--dir", lab.directory, "--", *words, f"--replicas={replicas}")
        assert done.status == 0, done

    scale(0)
    try:
        until("its pods are gone", lambda: gate(lab, "secondary-healthy")["state"] == "failed")
        answer = refused(lab, "gate secondary-healthy failed", lambda: failover(lab))
        assert "no ready pod of billing" in answer.out
    finally:
        scale(1)
    until("its pod is ready", lambda: gate(lab, "secondary-healthy")["state"] == "passed")


@pytest.mark.req("FM-1", "FM-2")
def test_a_target_whose_pods_end_again_and_again_or_that_has_no_cache(lab: Layout) -> None:
    """Ready in between is not healthy; and nothing forces a planned failover to a region without Redis."""

    def held(*fault: str) -> None:
        words = (*fault, "--region", WEST, "--hold", "--dir", lab.directory)
        assert hmsdr("lab", "break", *words).status == 0

    held("service-killed", "--service", "patient")
    for _ in range(3):
        seen = gate(lab, "secondary-healthy")
        assert (seen["state"], "no ready pod of patient" in seen["observed"]) == ("failed", True), seen
    refused(lab, "gate secondary-healthy failed", lambda: failover(lab))
    assert hmsdr("lab", "heal", "--dir", lab.directory).status == 0
    until("its pods are steady", lambda: gate(lab, "secondary-healthy")["state"] == "passed")
    held("redis-killed")
    answer = refused(lab, "gate secondary-healthy failed", lambda: failover(lab))
    assert "; Redis " in answer.out
    assert "--override secondary-healthy --reason TEXT --by NAME" in answer.err
    # A database that moves alone needs no Redis there.
    alone = hmsdr("run", "start", "database-failover", f"from={EAST}", f"to={WEST}", "--dry-run", lab=lab)
    assert alone.status == 0, alone
    assert hmsdr("lab", "heal", "--dir", lab.directory).status == 0


@pytest.mark.req("FM-1")
def test_backups_that_are_stale_or_not_there(lab: Layout, tmp_path: Path) -> None:
    with another_playbook(lab, tmp_path, thresholds={"gates": {"backup_age": "1s"}}) as file:
        answer = refused(lab, "gate backups-current failed", lambda: failover(lab, "--playbook", file))
        assert "not older than 1s" in answer.out
    s3 = client(lab, "s3")
    kept = {}
    for region in (EAST, WEST):
        bucket = f"hms-backups-{region}"
        for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            kept[bucket, item["Key"]] = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            s3.delete_object(Bucket=bucket, Key=item["Key"])
    try:
        refused(lab, "gate backups-current", lambda: failover(lab))
        s3.put_object(Bucket=f"hms-backups-{WEST}", Key="databases/readme.txt", Body=b"hello")
        refused(lab, "gate backups-current failed: no backup", lambda: failover(lab))
        s3.delete_object(Bucket=f"hms-backups-{WEST}", Key="databases/readme.txt")
        # What lies only where it is lost with its region opens nothing.
        for (bucket, key), body in kept.items():
            if bucket.endswith(EAST):
                s3.put_object(Bucket=bucket, Key=key, Body=body)
        seen = gate(lab, "backups-current")
        assert (seen["state"], f"in {EAST} itself and nowhere else" in seen["observed"]) == (
            "failed",
            True,
        ), seen
    finally:
        for (bucket, key), body in kept.items():
            s3.put_object(Bucket=bucket, Key=key, Body=body)


@pytest.mark.req("FM-1")
def test_a_target_that_is_down(lab: Layout) -> None:
    assert hmsdr("lab", "break", "region-down", "--region", WEST, "--dir", lab.directory).status == 0
    answer = refused(lab, "gate secondary-healthy failed", lambda: failover(lab))
    assert "Repair us-west-2 first" in answer.out
    ill = hmsdr("health-check", lab=lab)
    assert (ill.status, "The hospital is protected: no" in ill.out) == (1, True), ill


def test_a_secret_that_is_missing_or_empty(lab: Layout) -> None:
    key, story = lab.agent_key, asyncio.run(head(lab))
    content = key.read_text()
    try:
        for spoil, found in ((lambda: key.write_text(""), "is empty"), (key.unlink, "cannot be read")):
            spoil()
            answer = failover(lab)
            assert (answer.status, "secrets/agent.key" in answer.err, found in answer.err) == (
                2,
                True,
                True,
            ), answer
    finally:
        key.touch(mode=0o600)
        key.write_text(content)
    assert asyncio.run(head(lab)) == story


@pytest.mark.parametrize(
    ("thresholds", "found"),
    [
        ({"gates": {"replication_lag": "-5s"}}, "replication_lag"),
        ({"verification": {"sites": 1}}, "sites"),
        ({"probing": {"interval": "500ms", "timeout": "2s"}}, "timeout"),
    ],
)
def test_thresholds_that_make_no_sense(
    lab: Layout, tmp_path: Path, thresholds: dict[str, Any], found: str
) -> None:
    with another_playbook(lab, tmp_path, thresholds=thresholds) as file:
        answer = refused(lab, found, lambda: hmsdr("validate", file))
        assert "changed.yaml:" in answer.out + answer.err


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_under_the_journal_that_takes_nothing(lab: Layout, tmp_path: Path, disk: str) -> None:
    """The command sees its own mount there; the hospital's agents go on with the real one."""
    place = lab.store.parent
    copy = tmp_path / "state"
    shutil.copytree(place, copy)
    size = sum(file.stat().st_size for file in copy.iterdir()) // 1024 + 64
    mount = {
        "full": f"mount -t tmpfs -o size={size}k tmpfs {place} && cp -a {copy}/. {place} && "
        f"(dd if=/dev/zero of={place}/filler bs=1k 2>/dev/null || true)",
        "read-only": f"mount -t tmpfs tmpfs {place} && cp -a {copy}/. {place} && mount -o remount,ro {place}",
    }[disk]
    prefix = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip(
            "the kernel allows this user no mount namespace, so no disk can be made full for it alone"
        )

    def inside(*command: str) -> Done:
        return Done(
            subprocess.run(
                [*prefix, "sh", "-c", f"{mount} && exec {' '.join([*COMMAND, *command])}"],
                env=command_environment(lab),
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
        )

    found = {"full": "nothing was done", "read-only": "Read-only file system"}[disk]
    refused(lab, found, lambda: inside("failover", EAST, WEST))
    # What ran is needed most when something is broken: it can be read all the same.
    listed = inside("run", "list", "--json")
    assert (listed.status, listed.json()) == (0, hmsdr("run", "list", "--json", lab=lab).json()), listed
    planned = inside("plan", "failover", EAST, WEST)
    assert "✓ rollback-plan" in planned.out, planned


async def test_a_second_failover_while_one_runs(module_lab: Layout) -> None:
    before = len(await events(module_lab))  # this lab has seen runs already
    first = begin("failover", EAST, WEST, lab=module_lab)
    try:
        while not [event for event in (await events(module_lab))[before:] if event.kind == "run.started"]:
            assert first.poll() is None
            await asyncio.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # however slowly the others start, it is not over by then
        second = failover(module_lab)
        assert (second.status, "another run is under way" in second.err) == (2, True), second
        resumed = hmsdr("run", "resume", (await events(module_lab))[-1].subject, lab=module_lab)
        assert (resumed.status, "another run is under way" in resumed.err) == (2, True), resumed
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGHUP)  # the terminal is closed: what was begun goes on
        assert await asyncio.to_thread(first.wait, 60) == 0
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    assert (await look(module_lab)).primaries == (WEST,)
