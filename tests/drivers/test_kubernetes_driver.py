"""The Kubernetes driver against a real API with controllers that write at the same time, and against none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cluster import Cluster, deployment, layout_in, running, wait_for

from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.kubernetes import Deployment, Kubernetes, Service

NAME = "patient-service"
APPS = "/apis/apps/v1/namespaces/hms-system/deployments"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def driver(cluster: Cluster) -> AsyncIterator[Kubernetes]:
    await post(cluster, APPS, deployment(cluster.layout.directory, DATABASE_HOST="a", KEPT="yes"))
    found = Kubernetes("us-east-1", str(cluster.layout.kubeconfig), "hms-system")
    yield found
    await found.aclose()


async def post(cluster: Cluster, path: str, item: dict) -> None:
    async with aiohttp.ClientSession() as session, session.post(cluster.url + path, json=item) as answer:
        assert answer.status == 201, await answer.text()


async def only(driver: Kubernetes) -> Deployment:
    (found,) = await driver.deployments(deadline=5)
    return found


async def rolled_out(driver: Kubernetes) -> None:
    async def done() -> bool:
        return (await only(driver)).rolled_out

    await wait_for(done, "the rollout")


@pytest.mark.req("DB-3", "RD-2")
async def test_set_env_and_scale_are_rolled_out(driver: Kubernetes) -> None:
    await rolled_out(driver)
    before = await only(driver)
    assert (before.name, before.replicas, before.ready, before.updated) == (NAME, 2, 2, 2)
    await driver.set_env(NAME, {"DATABASE_HOST": "b", "REDIS_HOST": None}, deadline=5)
    found = await only(driver)
    assert found.env == {"DATABASE_HOST": "b", "KEPT": "yes"}
    assert found.resource_version != before.resource_version
    await driver.scale(NAME, 3, deadline=5)
    await rolled_out(driver)
    found = await only(driver)
    assert (found.replicas, found.ready, found.updated) == (3, 3, 3)


async def test_the_same_again_changes_nothing(driver: Kubernetes) -> None:
    await rolled_out(driver)
    before = await only(driver)
    await driver.set_env(NAME, {"DATABASE_HOST": "a"}, deadline=5)
    await driver.scale(NAME, 2, deadline=5)
    assert await only(driver) == before


async def test_controllers_that_write_the_status_meanwhile_do_not_disturb(driver: Kubernetes) -> None:
    for turn in range(10):  # each change sets off a row of status updates that the next one meets
        await driver.set_env(NAME, {"TURN": str(turn)}, deadline=5)
    assert (await only(driver)).env["TURN"] == "9"
    await rolled_out(driver)


async def test_of_two_changes_at_once_none_is_lost_in_silence(driver: Kubernetes) -> None:
    changes = {f"KEY_{turn}": "set" for turn in range(6)}
    results = await asyncio.gather(
        *(driver.set_env(NAME, {key: value}, deadline=5) for key, value in changes.items()),
        return_exceptions=True,
    )
    env = (await only(driver)).env
    for key, result in zip(changes, results, strict=True):
        assert result is None or isinstance(result, TemporaryError)
        assert (key in env) is (result is None)


async def test_what_else_there_is(cluster: Cluster, driver: Kubernetes) -> None:
    await rolled_out(driver)
    ports = [{"port": 80, "targetPort": 8080}]
    service = {
        "metadata": {"name": NAME},
        "spec": {"type": "LoadBalancer", "selector": {"app": NAME}, "ports": ports},
    }
    backend = {"service": {"name": NAME, "port": {"number": 80}}}
    paths = [{"path": "/patient-service", "pathType": "Prefix", "backend": backend}]
    ingress = {"metadata": {"name": "hms"}, "spec": {"rules": [{"http": {"paths": paths}}]}}
    await post(cluster, "/api/v1/namespaces/hms-system/services", service)
    await post(cluster, "/apis/networking.k8s.io/v1/namespaces/hms-system/ingresses", ingress)
    address = cluster.region.ingress_http.host

    async def balanced() -> bool:
        return await driver.services(deadline=5) == (Service(NAME, "LoadBalancer", address),)

    await wait_for(balanced, "the load balancer's address")
    (found,) = await driver.ingresses(deadline=5)
    assert (found.name, found.services) == ("hms", frozenset({NAME}))
    (node,) = await driver.nodes(deadline=5)
    assert (node.name, node.ready) == ("node-us-east-1", True)
    pods = await driver.pods(deadline=5)
    assert [(pod.namespace, pod.phase, pod.ready, pod.restarts) for pod in pods] == [
        ("hms-system", "Running", True, 0)
    ] * 2


async def test_a_deployment_that_is_not_there_is_permanent(driver: Kubernetes) -> None:
    with pytest.raises(PermanentError, match="not found"):
        await driver.scale("none", 2, deadline=5)


async def test_a_watch_follows_readiness(cluster: Cluster, driver: Kubernetes) -> None:
    """What the ingress of the region lives from: a list, then a watch from its version."""
    await rolled_out(driver)
    pods = f"{cluster.url}/api/v1/namespaces/hms-system/pods"
    async with aiohttp.ClientSession() as session:
        async with session.get(pods) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        await driver.scale(NAME, 3, deadline=5)
        parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "20"}
        seen = []
        async with session.get(pods, params=parameters) as answer:
            async for line in answer.content:
                event = json.loads(line)
                seen.append(event["type"])
                if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions(event)):
                    break
    assert seen[0] == "ADDED"
    assert seen[-1] == "MODIFIED"


def conditions(event: dict) -> list[dict]:
    return event["object"].get("status", {}).get("conditions", [])


async def test_a_cluster_that_is_gone_is_temporary_and_a_silent_one_ends_at_the_deadline(
    tmp_path: Path,
) -> None:
    layout = layout_in(tmp_path)
    driver = Kubernetes("us-east-1", str(layout.kubeconfig), "hms-system")
    with pytest.raises(TemporaryError, match="not reachable"):
        await driver.scale(NAME, 1, deadline=5)
    address = layout.regions["us-east-1"].kubernetes
    silent = await asyncio.start_server(
        lambda _reader, _writer: asyncio.sleep(30), address.host, address.port
    )
    with pytest.raises(TemporaryError, match=r"no answer within 0\.3 s"):
        await driver.nodes(deadline=0.3)
    with pytest.raises((OutcomeUnknownError, TemporaryError)):
        await driver.scale(NAME, 1, deadline=0.3)
    await driver.aclose()
    silent.close()


async def test_a_context_that_is_not_there_is_permanent(tmp_path: Path) -> None:
    driver = Kubernetes("us-west-9", str(layout_in(tmp_path).kubeconfig), "hms-system")
    with pytest.raises(PermanentError, match="no context 'us-west-9'") as caught:
        await driver.nodes(deadline=5)
    assert "us-west-2" in caught.value.remedy
