"""What an operator types at a region works against the lab's: real kubectl, the real server, pods that are processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import KUBECTL, Cluster, deployment, fetch, layout_in, running, wait_for

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH")
NAME = "deployment/patient-service"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as found:
        yield found


async def create(cluster: Cluster, **env: str) -> None:
    manifest = json.dumps(deployment(cluster.layout.directory, **env))
    await cluster.kubectl("create", "--validate=false", "-f", "-", given=manifest)


async def rolled_out(cluster: Cluster) -> None:
    told = await cluster.kubectl("rollout", "status", NAME, "--timeout=30s")
    assert "successfully rolled out" in told


async def pods(cluster: Cluster) -> list[dict]:
    return json.loads(await cluster.kubectl("get", "pods", "-o", "json"))["items"]


async def answers(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """What each pod says over HTTP: the database that it was pointed at, and its process."""
    found = {}
    for pod in await pods(cluster):
        text = await fetch(f"http://{pod['status']['podIP']}:8080/") or " 0"
        host, pid = text.rsplit(" ", 1)
        found[pod["metadata"]["name"]] = (host, int(pid))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


async def test_a_deployment_becomes_processes_that_answer_on_their_own_address(cluster: Cluster) -> None:
    await create(cluster, DATABASE_HOST="a")
    await rolled_out(cluster)
    found = await answers(cluster)
    assert [host for host, _ in found.values()] == ["a", "a"]
    assert len({pid for _, pid in found.values()}) == 2
    columns = (await cluster.kubectl("get", "deploy")).splitlines()
    assert columns[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert columns[1].split()[:4] == ["patient-service", "2/2", "2", "2"]
    told = await cluster.kubectl("get", "pods", "-l", "app=patient-service", "-o", "wide")
    assert told.count("1/1") == told.count("Running") == 2
    assert "serving as patient-service-" in await cluster.kubectl("logs", NAME)


@pytest.mark.req("DB-3", "RD-2")
async def test_set_env_points_pods_over_without_a_moment_unserved(cluster: Cluster) -> None:
    await create(cluster, DATABASE_HOST="postgres-primary")
    await rolled_out(cluster)
    fewest = 2
    done = asyncio.Event()

    async def watch_readiness() -> None:
        nonlocal fewest
        while not done.is_set():
            text = await fetch(
                f"{cluster.url}/apis/apps/v1/namespaces/hms-system/deployments/patient-service"
            )
            fewest = min(fewest, json.loads(text or "{}")["status"]["readyReplicas"])
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch_readiness())
    told = await cluster.kubectl(
        "set",
        "env",
        NAME,
        "-n",
        "hms-system",
        "DATABASE_HOST=postgres-secondary",
        "REDIS_HOST=redis-secondary",
    )
    assert told == "deployment.apps/patient-service env updated\n"
    await rolled_out(cluster)
    done.set()
    await watching
    assert fewest == 2
    assert {host for host, _ in (await answers(cluster)).values()} >= {"postgres-secondary"}
    described = await cluster.kubectl("describe", NAME)
    assert "postgres-secondary" in described
    assert "SuccessfulCreate" in described


async def test_scale_up_and_down(cluster: Cluster) -> None:
    await create(cluster)
    await rolled_out(cluster)
    before = await answers(cluster)
    assert "scaled" in await cluster.kubectl("scale", NAME, "--replicas=3")
    await rolled_out(cluster)
    found = await answers(cluster)
    assert len(found) == 3
    assert before.items() <= found.items(), "pods that ran go on running"
    await cluster.kubectl("scale", NAME, "--replicas=0")

    async def all_gone() -> bool:
        return not await pods(cluster)

    await wait_for(all_gone, "no pods")
    assert not any(alive(pid) for _, pid in found.values())


async def test_a_crashed_container_is_started_again_and_counted(cluster: Cluster) -> None:
    await create(cluster)
    await rolled_out(cluster)
    name, (_, pid) = next(iter((await answers(cluster)).items()))
    os.kill(pid, signal.SIGKILL)

    async def again() -> bool:
        pod = json.loads(await cluster.kubectl("get", "pod", name, "-o", "json"))
        container = pod["status"]["containerStatuses"][0]
        return container["restartCount"] == 1 and container["ready"]

    await wait_for(again, "the restart")
    assert (await answers(cluster))[name][1] != pid
    assert "Exit Code:    137" in await cluster.kubectl("describe", "pod", name)


async def test_a_rollout_that_never_becomes_ready_leaves_the_old_pods_serving(cluster: Cluster) -> None:
    await create(cluster)
    await rolled_out(cluster)
    before = await answers(cluster)
    await cluster.kubectl("set", "env", NAME, "HEALTHY=no")
    late = await cluster.kubectl("rollout", "status", NAME, "--timeout=2s", fails=True)
    assert "timed out" in late
    after = await answers(cluster)
    assert before.items() <= after.items()
    await cluster.kubectl("set", "env", NAME, "HEALTHY=yes")
    await rolled_out(cluster)


async def test_everything_comes_back_from_disk_after_a_kill_and_nothing_outlives_the_server(
    cluster: Cluster,
) -> None:
    await create(cluster, DATABASE_HOST="a")
    await rolled_out(cluster)
    await cluster.kubectl("set", "env", NAME, "DATABASE_HOST=b")
    await rolled_out(cluster)
    before = await answers(cluster)
    stored = cluster.region.directory / "kube" / "objects.json"

    async def on_disk() -> bool:
        return all(name in stored.read_text() for name in before)

    await wait_for(on_disk, "the objects on disk")
    await cluster.stop(kill=True)

    async def dead() -> bool:
        return not any(alive(pid) for _, pid in before.values())

    await wait_for(dead, "the pods to die with their machine", seconds=5)
    await cluster.start()
    await rolled_out(cluster)

    async def pointed() -> bool:
        return [host for host, _ in (await answers(cluster)).values()] == ["b", "b"]

    await wait_for(pointed, "both pods again")


async def test_services_have_endpoints_and_a_way_in(cluster: Cluster) -> None:
    await create(cluster)
    await rolled_out(cluster)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "patient-service"},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "patient-service"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }
    await cluster.kubectl("create", "--validate=false", "-f", "-", given=json.dumps(service))

    async def listed() -> bool:
        return (await cluster.kubectl("get", "endpoints", "patient-service")).count(":8080") == 2

    await wait_for(listed, "two endpoints")
    assert cluster.region.ingress_http.host in await cluster.kubectl("get", "svc", "patient-service")
    assert "LoadBalancer" in await cluster.kubectl("describe", "svc", "patient-service")


async def test_a_stale_replace_is_a_conflict(cluster: Cluster) -> None:
    await create(cluster)
    old = await cluster.kubectl("get", NAME, "-o", "json")
    await cluster.kubectl("scale", NAME, "--replicas=1")
    told = await cluster.kubectl("replace", "--validate=false", "-f", "-", given=old, fails=True)
    assert "Conflict" in told or "has been modified" in told
    assert json.loads(await cluster.kubectl("get", NAME, "-o", "json"))["spec"]["replicas"] == 1


async def test_what_is_not_there_is_said(cluster: Cluster) -> None:
    assert "NotFound" in await cluster.kubectl("get", "deployment/none", fails=True)
    told = await cluster.kubectl("delete", "namespace", "default", "--dry-run=server", fails=True)
    assert "may not be deleted" in told
    assert "default" in await cluster.kubectl("get", "namespaces"), "a dry run deletes nothing"
    manifest = deployment(cluster.layout.directory)
    del manifest["spec"]["template"]["spec"]["containers"][0]["command"]
    await cluster.kubectl("create", "--validate=false", "-f", "-", given=json.dumps(manifest))

    async def refused() -> bool:
        return "ErrImagePull" in await cluster.kubectl("get", "pods")

    await wait_for(refused, "an image that the lab has not")


async def test_diff_shows_what_an_apply_would_do_and_does_nothing(cluster: Cluster) -> None:
    given = json.dumps(deployment(cluster.layout.directory, DATABASE_HOST="a"))
    await cluster.kubectl("apply", "-f", "-", given=given)
    await rolled_out(cluster)
    assert await cluster.kubectl("diff", "-f", "-", given=given) == ""
    before = await cluster.kubectl("get", NAME, "-o", "json")
    other = json.dumps(deployment(cluster.layout.directory, replicas=3, DATABASE_HOST="b"))
    told = await cluster.kubectl("diff", "-f", "-", given=other, fails=True, outputs=True)
    for line in ("-  replicas: 2", "+  replicas: 3", "-          value: a", "+          value: b"):
        assert line in told.replace("-        - name", "- name"), told
    new = json.dumps(deployment(cluster.layout.directory, name="new-service"))
    assert "+  name: new-service" in await cluster.kubectl(
        "diff", "-f", "-", given=new, fails=True, outputs=True
    )
    assert await cluster.kubectl("get", NAME, "-o", "json") == before
    assert "NotFound" in await cluster.kubectl("get", "deployment/new-service", fails=True)


async def test_a_first_start_holds_the_hospital(tmp_path: Path) -> None:
    cluster = Cluster(layout_in(tmp_path), "us-west-2")
    try:
        await cluster.start()
        told = await cluster.kubectl("get", "deploy,sts,svc,ing", "-o", "name")
        assert sum(line.startswith("deployment") for line in told.splitlines()) == 5
        assert "statefulset.apps/postgres-secondary" in told
        assert "ingress.networking.k8s.io/hms" in told
        described = await cluster.kubectl("describe", "ingress", "hms")
        assert "/patient-service" in described
        assert "postgres-primary.hms.system.svc.cluster.local" in await cluster.kubectl("describe", NAME)
        await cluster.kubectl("describe", "sts")
        node = await cluster.kubectl("describe", "nodes")
        assert "HolderIdentity:  node-us-west-2" in node
        assert "Failed to get lease" not in node
    finally:
        await cluster.stop()
