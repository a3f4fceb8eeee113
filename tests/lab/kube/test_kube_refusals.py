"""What the lab's Kubernetes cannot do it says, and what it says it does: real kubectl, the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import KUBECTL, Cluster, deployment, fetch, running, wait_for

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


async def test_commands_and_kinds_that_the_lab_has_not_are_called_that(cluster: Cluster) -> None:
    pod = (await pods(cluster))[0]["metadata"]["name"]
    for line in (
        f"port-forward {pod} 0:8080",
        f"attach {pod} --pod-running-timeout=3s",
        f"debug {pod} --image=x",
        f"autoscale {NAME} --min=1 --max=3",
        "auth can-i get pods",
        "create job j --image=x",
        "create serviceaccount s",
        *(f"get {kind}" for kind in ("sa", "pvc", "pv", "ds", "hpa", "jobs", "cj", "netpol", "pdb")),
    ):
        assert "not supported by the lab" in await cluster.kubectl(*line.split(), fails=True), line
    for group, kind in (("batch/v1", "Job"), ("apps/v1", "DaemonSet"), ("policy/v1", "PodDisruptionBudget")):
        given = json.dumps({"apiVersion": group, "kind": kind, "metadata": {"name": "x"}, "spec": {}})
        for verb in ("create", "apply"):
            told = await cluster.kubectl(verb, "-f", "-", given=given, fails=True)
            assert "not supported by the lab" in told, (verb, kind)
    assert "Metrics API not available" in await cluster.kubectl("top", "pods", fails=True)


async def test_explain_tells_the_fields_that_the_lab_has(cluster: Cluster) -> None:
    told = await cluster.kubectl("explain", "deployment.spec")
    assert "replicas" in told
    assert "<integer>" in told
    assert "not supported by the lab" in await cluster.kubectl("explain", "job")
    assert "does not exist" in await cluster.kubectl("explain", "pod.spec.nothing", fails=True)


async def test_a_field_without_effect_is_taken_with_a_warning(cluster: Cluster) -> None:
    item = deployment(cluster.layout.directory, name="picky", replicas=0)
    spec = item["spec"]["template"]["spec"]
    spec |= {"tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}}}
    spec["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    told = await cluster.kubectl("create", "-f", "-", given=json.dumps(item), errors=True)
    for field in ("tolerations", "affinity", "containers[0].resources"):
        assert f"Warning: spec.template.spec.{field}: accepted, and without effect in the lab" in told
    given = manifest(
        "Ingress",
        apiVersion="networking.k8s.io/v1",
        spec={"ingressClassName": "nginx", "rules": [{"host": "x.example"}]},
    )
    assert "the whole ingress: accepted" in await cluster.kubectl(
        "create", "-f", "-", given=given, errors=True
    )
    plain = deployment(cluster.layout.directory, name="plain", replicas=0)
    assert "Warning" not in await cluster.kubectl("create", "-f", "-", given=json.dumps(plain), errors=True)


def redis(name: str, replicas: int = 1) -> str:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "redis", "image": "redis:7"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}
    )


async def test_a_second_store_at_the_regions_address_is_never_called_ready(cluster: Cluster) -> None:
    alone = "the lab runs one redis:7 in a region"
    assert alone in await cluster.kubectl("create", "-f", "-", given=redis("first", 2), fails=True)
    await cluster.kubectl("create", "-f", "-", given=redis("first"))
    await cluster.kubectl("rollout", "status", "sts/first", "--timeout=30s")
    assert alone in await cluster.kubectl("scale", "sts/first", "--replicas=2", fails=True)
    patch = '{"spec":{"replicas":3}}'
    assert alone in await cluster.kubectl("patch", "sts/first", "--type=merge", "-p", patch, fails=True)
    await cluster.kubectl("create", "-f", "-", given=redis("second"))
    url = f"{cluster.url}/api/v1/namespaces/hms-system/pods"
    restarts, ends = 0, asyncio.get_running_loop().time() + 20
    while restarts < 3:  # at every start, and between them
        assert asyncio.get_running_loop().time() < ends, f"it was started again {restarts} times"
        for pod in json.loads(await fetch(url) or "{}")["items"]:
            for state in pod["status"].get("containerStatuses", []):
                name = pod["metadata"]["name"]
                if name in ("first-0", "second-0"):
                    assert state["ready"] is (name == "first-0"), state
                restarts = state["restartCount"] if name == "second-0" else restarts
        await asyncio.sleep(0.02)


async def test_a_drained_node_has_no_pods_until_it_is_uncordoned(cluster: Cluster) -> None:
    await cluster.kubectl("drain", NODE, "--timeout=30s")
    assert {pod["status"]["phase"] for pod in await pods(cluster)} == {"Pending"}
    await cluster.kubectl("uncordon", NODE)
    await cluster.kubectl("rollout", "status", NAME, "--timeout=30s")


async def test_pods_of_one_name_in_two_namespaces_have_each_their_log(cluster: Cluster) -> None:
    item = deployment(cluster.layout.directory)["spec"]["template"]
    for namespace, value in (("default", "one"), ("hms-system", "two")):
        spec = json.loads(json.dumps(item["spec"]))
        spec["containers"][0]["command"] = ["sh", "-c", f"echo {value}; sleep 60"]
        spec["containers"][0].pop("readinessProbe")
        given = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "twin", "namespace": namespace},
            "spec": spec,
        }
        await cluster.kubectl("create", "-f", "-", given=json.dumps(given))
    for namespace, value in (("default", "one"), ("hms-system", "two")):

        async def logged(namespace: str = namespace, value: str = value) -> bool:
            return await cluster.kubectl("logs", "twin", "-n", namespace) == f"{value}\n"

        await wait_for(logged, f"the log of {namespace}/twin")


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
