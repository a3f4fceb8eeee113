"""What the lab's Kubernetes cannot do it says, and what it says it does: real kubectl, the real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import KUBECTL, Cluster, deployment, running, wait_for

pytestmark = [
    pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH"),
    pytest.mark.xdist_group("kube"),
]
NAME = "deployment/patient-service"
NODE = "node-us-east-1"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as found:
        await found.kubectl("create", "-f", "-", given=json.dumps(deployment(tmp_path)))
        await found.kubectl("rollout", "status", NAME, "--timeout=30s")
        yield found


async def pods(cluster: Cluster) -> list[dict]:
    return json.loads(await cluster.kubectl("get", "pods", "-o", "json"))["items"]


def manifest(kind: str, **more: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, **more})


async def test_a_malformed_write_is_refused_names_its_field_and_changes_nothing(cluster: Cluster) -> None:
    before = await cluster.kubectl("get", NAME, "-o", "json")
    bad = '{"spec":{"replicas":"two"}}'
    told = await cluster.kubectl("patch", NAME, "--type=merge", "-p", bad, fails=True)
    assert "cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32" in told
    for given, words in (
        (manifest("Pod", spec={"containers": "x"}), "Pod.spec.containers of type list"),
        (manifest("Service", spec={"ports": "x", "selector": [1]}), "Service.spec.ports of type list"),
        (manifest("ConfigMap", dat={"a": "b"}), 'strict decoding error: unknown field "dat"'),
        (manifest("ConfigMap", data={"a": 1}), "ConfigMap.data.a of type string"),
        (manifest("ConfigMap", metadata={"name": "Bad_Name"}), "metadata.name: Invalid value"),
        (manifest("ConfigMap", metadata={"name": "x", "namespace": "no"}), 'namespaces "no" not found'),
    ):
        assert words in await cluster.kubectl("create", "-f", "-", given=given, fails=True)
    assert await cluster.kubectl("get", NAME, "-o", "json") == before
    assert "NotFound" in await cluster.kubectl("get", "svc,pod,cm", "x", fails=True)
    await cluster.stop()
    await cluster.start()


async def test_what_the_lab_has_not_is_said(cluster: Cluster) -> None:
    for line in ("get rs", f"rollout history {NAME}", f"rollout undo {NAME}", "auth can-i get pods"):
        assert "not supported by the lab" in await cluster.kubectl(*line.split(), fails=True)
    told = await cluster.kubectl("taint", "nodes", NODE, "a=b:NoSchedule", fails=True)
    assert "spec.taints: Forbidden: not supported by the lab" in told
    told = await cluster.kubectl("get", "pods", "--field-selector=foo.bar=1", fails=True)
    assert "field label not supported: foo.bar" in told
    found = await cluster.kubectl(
        "get", "pods", f"--field-selector=spec.nodeName={NODE},status.phase=Running", "-o", "name"
    )
    assert len(found.splitlines()) == 2


async def test_a_paused_rollout_waits_and_goes_on_when_it_is_resumed(cluster: Cluster) -> None:
    before = {pod["metadata"]["name"] for pod in await pods(cluster)}
    await cluster.kubectl("rollout", "pause", NAME)
    await cluster.kubectl("set", "env", NAME, "DATABASE_HOST=b")
    await cluster.kubectl("scale", NAME, "--replicas=3")

    async def three() -> bool:
        return len(await pods(cluster)) == 3

    await wait_for(three, "the third pod")
    found = await pods(cluster)
    assert before < {pod["metadata"]["name"] for pod in found}
    assert not any(pod["spec"]["containers"][0].get("env") for pod in found), "all of the old template"
    await cluster.kubectl("rollout", "resume", NAME)
    await cluster.kubectl("rollout", "status", NAME, "--timeout=30s")
    env = [{"name": "DATABASE_HOST", "value": "b"}]
    assert sum(pod["spec"]["containers"][0].get("env") == env for pod in await pods(cluster)) == 3


async def test_a_cordoned_node_takes_no_new_pod(cluster: Cluster) -> None:
    await cluster.kubectl("cordon", NODE)
    await cluster.kubectl("scale", NAME, "--replicas=3")

    async def pending() -> bool:
        return "FailedScheduling" in await cluster.kubectl("get", "events")

    await wait_for(pending, "the third pod to stay Pending")
    waiting = [pod for pod in await pods(cluster) if pod["status"]["phase"] == "Pending"]
    assert len(waiting) == 1
    described = await cluster.kubectl("describe", "pod", waiting[0]["metadata"]["name"])
    assert "0/1 nodes are available: 1 node(s) were unschedulable." in described
    await cluster.kubectl("uncordon", NODE)
    await cluster.kubectl("rollout", "status", NAME, "--timeout=30s")


async def test_a_deleted_namespace_takes_its_contents_along(cluster: Cluster) -> None:
    await cluster.kubectl("create", "namespace", "foo")
    item = deployment(cluster.layout.directory, name="guest", replicas=1)
    item["metadata"]["namespace"] = "foo"
    await cluster.kubectl("create", "-f", "-", given=json.dumps(item))
    await cluster.kubectl("create", "configmap", "note", "-n", "foo", "--from-literal=a=b")
    await cluster.kubectl("delete", "namespace", "foo", "--timeout=30s")
    left = await cluster.kubectl("get", "deploy,pods,cm,events", "-n", "foo", "-o", "name")
    assert left == ""
    assert "may not be deleted" in await cluster.kubectl("delete", "ns", "default", fails=True)
    assert len(await pods(cluster)) == 2
