"""What runs in a pod: forks of the services' code, what `kubectl exec` puts beside it, and its logs; and when each ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cluster import KUBECTL, Cluster, deployment, fetch, running, wait_for

from hmsdr.control.proctable import start_time
from hmsdr.lab import held
from hmsdr.lab.kube.containers import ForkServer

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH")


@pytest.fixture
async def forks(tmp_path: Path) -> AsyncIterator[ForkServer]:
    server = ForkServer(os.environ, tmp_path, tmp_path / "forkserver.log")
    yield server
    await server.stop()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as found:
        manifest = json.dumps(deployment(tmp_path, replicas=1))
        await found.kubectl("create", "--validate=false", "-f", "-", given=manifest)
        await found.kubectl("rollout", "status", "deployment/patient-service", "--timeout=30s")
        yield found


def settings(**more: str) -> dict[str, str]:
    """Of a service whose stores are nowhere: it comes up, and says in /health that it is not well."""
    stores = {f"{store}_HOST": "127.0.0.1" for store in ("DATABASE", "REDIS")}
    ports = {"DATABASE_PORT": "9", "REDIS_PORT": "9", "HMSDR_LAB_DNS": "127.0.0.1:9"}
    names = {"DATABASE_NAME": "postgres", "DATABASE_USER": "hms_app", "HMS_REGION": "us-east-1"}
    return {"HMS_SERVICE": "patient", "POD_NAME": "a-pod", **names, **stores, **ports, **more}


async def test_each_fork_has_its_own_environment_session_log_and_end(
    forks: ForkServer, tmp_path: Path
) -> None:
    hosts = [f"127.{137 + number}.9.100" for number in range(2)]
    made = [
        await forks.fork("patient", settings(POD_IP=host), tmp_path, tmp_path / f"{host}.log")
        for host in hosts
    ]
    for host, fork in zip(hosts, made, strict=True):
        await wait_for(lambda host=host: fetch(f"http://{host}:8080/metrics"), f"{host} to serve")
        assert os.getsid(fork.pid) == fork.pid
        assert f"listens on {host}:8080" in (tmp_path / f"{host}.log").read_text()
    made[0].send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(made[0].wait(), 10) == 0
    made[1].send_signal(signal.SIGKILL)
    assert await asyncio.wait_for(made[1].wait(), 10) == -signal.SIGKILL
    for fork in made:
        with pytest.raises(ProcessLookupError):
            fork.send_signal(signal.SIGTERM)


async def test_a_fork_that_is_told_nonsense_says_so_in_its_log(forks: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "pod.log"
    fork = await forks.fork("patient", settings(HMS_SERVICE="pharmacy"), tmp_path, log)
    assert await asyncio.wait_for(fork.wait(), 20) == 2
    assert "there is no service 'pharmacy'" in log.read_text()
    lost = await forks.fork("patient", settings(), tmp_path / "nowhere", log)
    assert await asyncio.wait_for(lost.wait(), 20) == 1
    assert "FileNotFoundError" in log.read_text()


async def test_forks_end_with_their_server_and_the_next_one_comes_up_all_the_same(
    forks: ForkServer, tmp_path: Path
) -> None:
    before = await forks.fork("patient", settings(POD_IP="127.139.9.100"), tmp_path, tmp_path / "1.log")
    parent = int(Path(f"/proc/{before.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert await asyncio.wait_for(before.wait(), 10) == -signal.SIGKILL

    async def ended() -> bool:
        return start_time(before.pid) is None

    await wait_for(ended, "the fork to end", 20)
    after = await forks.fork("patient", settings(POD_IP="127.139.9.100"), tmp_path, tmp_path / "2.log")
    assert after.pid != before.pid
    await wait_for(lambda: fetch("http://127.139.9.100:8080/metrics"), "the next one to serve")


def commands(mark: str) -> list[int]:
    """Pids of the processes with `mark` as an argument of their own, not in a script's text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and start_time(int(entry.name)) is not None:
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:1] == [b"sleep"] and mark.encode() in words:
                found.append(int(entry.name))
    return found


async def one_pod(cluster: Cluster) -> str:
    return (await cluster.kubectl("get", "pods", "-o", "name")).split()[0]


@needs_kubectl
async def test_what_is_held_is_not_started_also_not_as_another_pod_and_at_once_when_let_go(
    cluster: Cluster,
) -> None:
    async def pods() -> list[Any]:
        return json.loads(await cluster.kubectl("get", "pods", "-o", "json"))["items"]

    async def states() -> list[Any]:
        return [pod["status"]["containerStatuses"][0] for pod in await pods() if pod["status"]]

    async def asked(path: str) -> str | None:
        addresses = [pod["status"].get("podIP") for pod in await pods()]
        found = [await fetch(f"http://{each}:8080{path}") for each in addresses]
        return next(filter(None, found), None)

    for _ in range(4):  # its back-off is 3.2 s by now
        await asked("/exit")
        await wait_for(lambda: asked("/"), "it to be started again", 10)
    held.write(cluster.region, {"patient-service"})
    await asked("/exit")

    async def told() -> bool:
        return any(
            "held down" in state["state"].get("waiting", {}).get("message", "") for state in await states()
        )

    await wait_for(told, "it to be held", 5)
    before = [state["restartCount"] for state in await states()]
    await cluster.kubectl(
        "delete", *(await cluster.kubectl("get", "pods", "-o", "name")).split(), "--grace-period=1"
    )
    await wait_for(told, "the next pod to be held", 5)
    for _ in range(10):
        assert await asked("/") is None
        await asyncio.sleep(0.1)
    after = [state["restartCount"] for state in await states()]
    assert (len(before), after) == (1, [0])
    began = asyncio.get_running_loop().time()
    held.write(cluster.region, ())
    await wait_for(lambda: asked("/"), "it to serve", 10)
    assert asyncio.get_running_loop().time() - began < 3


TALKER = """
import os, sys, time
for number in range(6):
    print("line", number, flush=True)
    time.sleep(2 if number == 2 else 0)
sys.stdout.write("begun ")
sys.stdout.flush()
time.sleep(1)
print("ended", flush=True)
time.sleep(600)
"""


@needs_kubectl
async def test_logs_of_a_time_a_number_and_a_length_and_all_of_these_at_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "talker.py"
    script.write_text(TALKER)
    container = {"name": "talker", "image": "test/app:1.0", "command": [sys.executable, str(script)]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    began = datetime.now(UTC)
    await cluster.kubectl("create", "-f", "-", given=json.dumps({**pod, "spec": spec}))

    async def logs(*options: str) -> list[str]:
        return (await cluster.kubectl("logs", "talker", *options)).splitlines()

    async def all_said() -> bool:
        return (await logs())[-1:] == ["begun ended"]

    await wait_for(all_said, "the last line", 20)
    words = [*(f"line {number}" for number in range(6)), "begun ended"]
    stamped = [line.split(" ", 1) for line in await logs("--timestamps")]
    assert [line for _, line in stamped] == words
    times = [datetime.fromisoformat(stamp) for stamp, _ in stamped]
    assert times == sorted(times)
    assert began < times[0] < times[-1] < datetime.now(UTC)
    # More than a second: kubectl asks for whole seconds, and lines of the one before must not be among them.
    assert 1.1 < (times[3] - times[2]).total_seconds() < 6, "a time is that of its line"
    middle = stamped[3][0]
    assert await logs(f"--since-time={middle}") == words[3:]
    assert await logs(f"--since-time={middle}", "--tail=2", "--timestamps") == [
        " ".join(each) for each in stamped[-2:]
    ]
    assert await logs("--since=1h") == words
    assert await logs("--tail=1", "--limit-bytes=5") == ["begun"]
    assert await logs("--follow", "--limit-bytes=13") == ["line 0", "line 1"]
    await asyncio.sleep(1.1)
    assert await logs("--since=1s") == []
    for option in ("--since-time=yesterday", "--limit-bytes=-1", "--tail=-5"):
        assert await cluster.kubectl("logs", "talker", option, fails=True), option
    url = f"{cluster.url}/api/v1/namespaces/hms-system/pods/talker/log?"
    for query in (
        "sinceSeconds=0",
        "sinceTime=no",
        "limitBytes=0",
        "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
    ):
        assert await fetch(url + query) is None, query


def nap() -> str:
    """Seconds to sleep that no other test sleeps."""
    return f"600.{uuid.uuid4().int % 10**12:012d}"


@needs_kubectl
async def test_what_exec_left_in_the_background_lives_as_long_as_its_container(cluster: Cluster) -> None:
    seconds, pod = nap(), await one_pod(cluster)
    script = f"setsid sleep {seconds} >/dev/null 2>&1 </dev/null & echo begun"
    assert await cluster.kubectl("exec", pod, "--", "sh", "-c", script) == "begun\n"

    async def begun() -> bool:
        return len(commands(seconds)) == 1

    await wait_for(begun, "the sleep")
    (left,) = commands(seconds)
    assert start_time(left) is not None
    await cluster.kubectl("delete", pod, "--grace-period=1", "--wait=true")

    async def gone() -> bool:
        return not commands(seconds)

    await wait_for(gone, "the command to end with its pod", 10)


@needs_kubectl
async def test_exec_ends_with_its_client_children_in_sessions_of_their_own_too(cluster: Cluster) -> None:
    seconds, pod = nap(), await one_pod(cluster)
    script = f"setsid sleep {seconds} & sleep {seconds}"
    talk = asyncio.create_task(cluster.kubectl("exec", pod, "--", "sh", "-c", script, fails=True))

    async def both() -> bool:
        return len(commands(seconds)) == 2

    await wait_for(both, "both commands to run", 10)
    (client,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and f"exec\0{pod}\0--\0sh\0-c\0{script}".encode() in _words(entry)
    ]
    os.kill(client, signal.SIGKILL)

    async def gone() -> bool:
        return not commands(seconds)

    await wait_for(gone, "both to end with their client", 10)
    await talk


def _words(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@needs_kubectl
async def test_a_container_that_the_pod_does_not_have_is_refused(cluster: Cluster) -> None:
    pod = (await one_pod(cluster)).removeprefix("pod/")
    for query in (f"{pod}/log?container=wrong", f"{pod}/exec?container=wrong&command=true&stdout=true"):
        url = f"/api/v1/namespaces/hms-system/pods/{query}"
        told = await cluster.kubectl("get", "--raw", url, fails=True)
        assert f"container wrong is not valid for pod {pod}" in told


@needs_kubectl
async def test_the_log_of_a_containers_last_life_is_kept(cluster: Cluster) -> None:
    pod = json.loads(await cluster.kubectl("get", await one_pod(cluster), "-o", "json"))
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    told = await cluster.kubectl("logs", name, "--previous", fails=True)
    assert f'previous terminated container "patient" in pod "{name}" not found' in told
    first = await cluster.kubectl("logs", name)
    following = asyncio.create_task(cluster.kubectl("logs", "--follow", name))
    await asyncio.sleep(0.5)
    pid = int((await fetch(f"http://{address}:8080/") or "").split()[-1])
    log = next(cluster.region.logs.glob(f"*_{name}.log"))
    with log.open("a") as file:
        file.write("last words\n")
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(following, 20) == first + "last words\n"
    await wait_for(lambda: fetch(f"http://{address}:8080/"), "the container to run again")
    assert await cluster.kubectl("logs", name, "--previous") == first + "last words\n"
    assert await cluster.kubectl("logs", name, "--tail=1") == f"serving as {name}\n"
