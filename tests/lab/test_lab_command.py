"""`hmsdr lab` as a person uses it, on real servers: up, status, break, heal, shell, down, and what may go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bench.parts import last
from hmsdr.lab import binaries, control, probe
from hmsdr.lab.client import lab_id
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import lab_processes
from hmsdr.lab.report import inspect

pytestmark = [pytest.mark.lab, pytest.mark.timeout(170)]
HMSDR = [sys.executable, "-m", "hmsdr", "lab"]
EAST, WEST = "us-east-1", "us-west-2"


def hmsdr(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HMSDR, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )


def wait_for(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"it does not hold after {seconds} s"
        time.sleep(0.02)


def left(directory: Path) -> list[str]:
    return [process.command for process in lab_processes(lab_id(directory), directory)]


def test_status_is_of_the_real_systems(lab: Layout) -> None:
    done = hmsdr("status", "--dir", lab.directory, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["whole"]
    assert found["weights"] == {"us-east-1": 100, "us-west-2": 0}
    assert found["authority"] == {"epoch": 1, "phase": "held", "holder": "postgres-primary-0@us-east-1"}
    assert found["regions"]["us-west-2"]["streaming"]
    assert {"aws", "dns", "supervisor", "hmsdr agent", "guard", "postgres"} <= {
        p["name"] for p in found["processes"]
    }
    assert "Lab in" in hmsdr("status", "--dir", lab.directory).stdout


def test_what_a_database_and_its_agent_say_is_where_the_benchmark_reads_it(lab: Layout) -> None:
    for home in lab.regions.values():
        assert last(home.database_log, "agent.started")


def test_the_lines_that_status_prints_work_as_printed(lab: Layout) -> None:
    lines = json.loads(hmsdr("status", "--dir", lab.directory, "--json").stdout)["commands"]
    assert len(lines) >= 12
    done = subprocess.run(
        ["sh", "-exc", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": binaries.search_path()},
    )
    assert done.returncode == 0, done.stderr
    assert "streaming" in done.stdout
    assert "role:master" in done.stdout
    assert "backup_" in done.stdout, "the backup, by aws"
    assert "role:slave" in done.stdout


def test_in_its_shell_the_names_of_the_playbook_are_real(lab: Layout) -> None:
    name = "postgres-secondary.hms.system.svc.cluster.local"
    done = hmsdr(
        "shell", "--dir", lab.directory, "--", "psql", "-h", name, "-U", "postgres", "-Atc",
        "SELECT pg_is_in_recovery()",
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "t"), done.stderr
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(name, 5432)


def test_a_fault_that_takes_no_service_refuses_one(lab: Layout) -> None:
    done = hmsdr("break", "database-killed", "--service", "patient", "--dir", lab.directory)
    assert (done.returncode, "--service belongs to service-killed" in done.stderr) == (2, True), done


@pytest.mark.parametrize("fault", ["database-killed", "redis-killed", "region-down"])
async def test_a_fault_kills_and_stays_until_it_is_healed(lab: Layout, fault: str) -> None:
    before = {process.pid for process in lab_processes(lab.lab_id, lab.directory) if process.region == EAST}
    broken = await control.break_(lab, fault, region=EAST)
    assert broken.count > 0
    assert abs(broken.wall - time.time()) < 20
    after = {process.pid for process in lab_processes(lab.lab_id, lab.directory) if process.region == EAST}
    assert len(before - after) >= broken.count if fault != "region-down" else not after
    status = await inspect(lab)
    if fault != "redis-killed":  # Kubernetes may have started it again by now
        assert not status.whole
        assert [item["fault"] for item in status.faults] == [fault]
    healed = await control.heal(lab)
    assert healed == {"us-east-1": "primary", "us-west-2": "standby, streaming"}
    until = time.monotonic() + 15
    while not (status := await inspect(lab)).whole:
        assert time.monotonic() < until, status.problems
        await asyncio.sleep(0.1)
    assert status.authority["epoch"] == 1


@pytest.mark.parametrize("region", [EAST, WEST])
async def test_a_held_service_answers_nobody_until_it_is_healed_and_then_everybody(
    lab: Layout, region: str
) -> None:
    where = lab.regions[region].ingress_http

    async def healthy() -> bool:
        return await probe.answers(where, "/patient-service/health", deadline=2)

    async def until(wanted: bool, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while await healthy() is not wanted:
            assert time.monotonic() < ends, f"{region} is not {wanted} within {seconds} s"

    assert await healthy()
    await control.break_(lab, "service-killed", region=region, service="patient", hold=True)
    await until(False, 2)
    asked = 0
    ends = time.monotonic() + 4  # four starts, if Kubernetes were let
    while time.monotonic() < ends:
        assert not await healthy(), f"it answered after {asked} times"
        asked += 1
        await asyncio.sleep(0.02)
    assert asked > 20
    words = ("kubectl", f"--kubeconfig={lab.kubeconfig}", f"--context={region}", "-n", "hms-system")
    kubectl = await asyncio.create_subprocess_exec(*words, "describe", "pods", stdout=asyncio.subprocess.PIPE)
    told = (await asyncio.wait_for(kubectl.communicate(), 30))[0].decode()
    assert "held down by `hmsdr lab break` until `hmsdr lab heal`" in told
    await control.heal(lab)
    await until(True, 1)  # the ingress learns of its pods by a watch


async def test_what_kubernetes_mended_is_broken_no_more(lab: Layout) -> None:
    for fault, service in (("service-killed", "billing"), ("redis-killed", None)):
        await control.break_(lab, fault, region=EAST, service=service)
    until = time.monotonic() + 20
    while (status := await inspect(lab)).faults or not status.whole:
        assert time.monotonic() < until, (status.faults, status.problems)
        await asyncio.sleep(0.1)
    assert json.loads((lab.directory / "faults.json").read_text()) == []


async def test_traffic_follows_the_ingress_object(lab: Layout) -> None:
    """Deleted by kubectl, it serves nobody; created again, it serves as before."""
    kubectl = ["kubectl", f"--kubeconfig={lab.kubeconfig}", f"--context={EAST}", "-n", "hms-system"]

    def run(*words: str, given: str | None = None) -> str:
        return subprocess.run(
            [*kubectl, *words], input=given, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    async def healthy() -> bool:
        return await probe.answers(lab.regions[EAST].ingress_http, "/patient-service/health", deadline=2)

    async def until(wanted: bool) -> None:
        ends = time.monotonic() + 15
        while await healthy() is not wanted:
            assert time.monotonic() < ends, f"it is not {wanted} that the ingress serves"
            await asyncio.sleep(0.1)

    assert await healthy()
    item = json.loads(run("get", "ingress", "hms", "-o", "json"))
    run("delete", "ingress", "hms")
    try:
        await until(False)
    finally:
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            item["metadata"].pop(field, None)
        item.pop("status", None)
        run("create", "-f", "-", given=json.dumps(item))
    await until(True)


async def test_two_redis_masters_are_told(lab: Layout) -> None:
    """Each of them works, and what one region caches the other never sees."""
    west = lab.regions[WEST].redis
    primary = lab.regions[EAST].redis

    async def say(line: str) -> None:
        reader, writer = await asyncio.open_connection(west.host, west.port)
        writer.write(f"{line}\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"+OK")
        writer.close()

    await say("REPLICAOF NO ONE")
    try:
        done = await asyncio.to_thread(hmsdr, "status", "--dir", lab.directory, "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["whole"]) == (1, False)
        assert found["redis_masters"] == [EAST, WEST]
        assert found["writable_databases"] == [EAST]
        assert f"Redis is a master in {EAST} and {WEST}" in "\n".join(found["problems"])
    finally:
        await say(f"REPLICAOF {primary.host} {primary.port}")
    until = time.monotonic() + 15
    while not (status := await inspect(lab)).whole:
        assert time.monotonic() < until, status.problems
        await asyncio.sleep(0.1)
    assert status.redis_masters == [EAST]


async def test_a_dead_standby_stays_dead_until_it_is_healed(lab: Layout) -> None:
    """Its agent starts it again at once, and it must not serve as a standby in between."""
    await control.break_(lab, "database-killed", region=WEST)
    where = lab.regions[WEST].postgres
    for _ in range(40):  # longer than an agent's patience between two starts
        status = await inspect(lab)
        assert not status.whole
        assert [item["fault"] for item in status.faults] == ["database-killed"]
        await asyncio.sleep(0.1)
    with pytest.raises(psycopg.OperationalError):
        await psycopg.AsyncConnection.connect(
            host=where.host, port=where.port, user="postgres", connect_timeout=2
        )
    assert (await control.heal(lab))[WEST] == "standby, streaming"


def test_a_cloud_that_was_killed_is_there_again_and_what_it_lost_is_said(lab: Layout) -> None:
    server = next(
        each for each in lab_processes(lab.lab_id, lab.directory) if "hmsdr.lab.aws" in each.command
    )
    os.kill(server.pid, signal.SIGKILL)
    healed = asyncio.run(control.heal(lab))
    assert "backups are gone" in healed["route53-and-s3"]
    checked = subprocess.run(
        [*HMSDR[:-1], "health-check", "--playbook", str(lab.playbook), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {each["name"]: each for each in json.loads(checked.stdout)["findings"]}
    assert found["public record"]["well"], found
    assert not found["backup"]["well"]
    assert "route53-and-s3" not in asyncio.run(control.heal(lab)), "nothing was lost this time"
    made = subprocess.run(
        [*HMSDR[:-1], "backup", "run", "--playbook", str(lab.playbook)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def test_what_is_wrong_is_refused_and_nothing_changes(lab: Layout, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        cases = [
            (("up", "--dir", lab.directory), "up there already"),
            (("up", "--dir", tmp_path / "full"), "no lab's"),
            (("up", "--dir", tmp_path / "new", "--port", f"redis={port}"), f"process {os.getpid()}"),
            (("up", "--dir", tmp_path / "new", "--port", "redis=many"), "not NAME=N"),
            (("up", "--dir", tmp_path / "new", "--address", "10.0.0.0"), "such as 127.77.0.0"),
            (("break", "regon-down", "--dir", lab.directory), "Did you mean 'region-down'"),
            (
                ("break", "region-down", "--region", "us-east-2", "--dir", lab.directory),
                "no region 'us-east-2'",
            ),
            (
                ("up", "--dir", tmp_path / "new" / ("long" * 40) / ("long" * 40) / ("long" * 40)),
                "a shorter one",
            ),
            (("up", "--dir", tmp_path / "new" / "two\nlines"), "cannot be shown"),
            (("status", "--dir", tmp_path / "new"), "there is none"),
            (("down", "--dir", tmp_path / "new"), "there is none"),
        ]
        for arguments, words in cases:
            done = hmsdr(*arguments)
            assert done.returncode == 2, arguments
            assert words in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    assert not (tmp_path / "new").exists()


def test_a_missing_server_names_its_package(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = hmsdr("up", "--dir", tmp_path / "lab", PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    assert "Install the package redis-server" in done.stderr
    assert not (tmp_path / "lab").exists()


def test_a_second_lab_beside_it_then_its_supervisor_dies_then_down(lab: Layout, tmp_path: Path) -> None:
    directory = tmp_path / "second"
    assert hmsdr("up", "--dir", directory).returncode == 0
    second = Layout.load(directory)
    assert second.aws.host != lab.aws.host
    assert hmsdr("status", "--dir", lab.directory).returncode == 0
    supervisor = asyncio.run(control.supervisor_status(second))
    assert supervisor is not None
    os.kill(supervisor["pid"], signal.SIGKILL)
    wait_for(lambda: not left(directory), 5)
    assert hmsdr("status", "--dir", directory).returncode == 2
    assert hmsdr("down", "--dir", directory).returncode == 0
    assert not directory.exists()
    assert hmsdr("status", "--dir", lab.directory).returncode == 0


def test_a_lab_whose_directory_is_removed_ends_by_itself(tmp_path: Path) -> None:
    place = tmp_path / "lab"
    assert hmsdr("up", "--dir", place).returncode == 0
    shutil.rmtree(place, ignore_errors=True)
    wait_for(lambda: not left(place) and not place.exists(), 20)
    assert hmsdr("down", "--dir", place).returncode == 2


def test_an_interrupted_down_goes_on_and_says_so(tmp_path: Path) -> None:
    layout = asyncio.run(control.up(tmp_path / "lab"))
    child = subprocess.Popen(
        [*HMSDR, "down", "--dir", str(layout.directory)], stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None

    def ending() -> bool:
        status = asyncio.run(control.supervisor_status(layout))
        assert status is not None, "it was gone before anybody could interrupt it"
        return not status["up"]

    wait_for(ending, 20)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 1
    said = child.stderr.read()
    child.stderr.close()
    assert "goes on ending by itself" in said
    wait_for(lambda: not layout.directory.exists() and not left(layout.directory), 30)


@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "certificates"),
        (signal.SIGTERM, "databases"),
        (signal.SIGHUP, "right to write"),
        (signal.SIGKILL, "dns"),
    ],
)
def test_an_interrupted_up_leaves_nothing(tmp_path: Path, number: signal.Signals, after: str) -> None:
    directory = tmp_path / "deep" / "lab"
    child = subprocess.Popen([*HMSDR, "up", "--dir", str(directory)], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if after in line:
            break
    child.send_signal(number)
    assert child.wait(30) != 0
    said = child.stderr.read()
    child.stderr.close()
    if number != signal.SIGKILL:
        assert "What had been started was stopped and removed: nothing is left" in said
    assert "in the log" not in said
    wait_for(lambda: not directory.parent.exists(), 10)
    wait_for(lambda: not left(directory), 10)
