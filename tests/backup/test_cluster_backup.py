"""A cluster's objects are kept and come back, in order, with their secrets; from a real API, with the real restore command."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
import pytest_asyncio
import yaml
from bank import client, write_playbook
from cluster import KUBECTL, deployment, running
from cluster import Cluster as Server
from hospital import EAST, WEST

from hmsdr.backup.cluster import Cluster
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.drivers.kubernetes import Kubernetes
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import RefusedError
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl")
NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
FILE = "kubernetes_backup_20261125.tar.gz"


@dataclass
class Place:
    server: Server
    path: Path
    playbook: Playbook
    objects: ObjectStore
    api: Kubernetes

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.playbook, EAST, self.objects, self.api, lambda _: None)

    def bucket(self, region: str) -> str:
        return self.playbook.regions[region].backups.bucket

    def restore(self, *arguments: str, file: str = FILE) -> subprocess.CompletedProcess[str]:
        script = Path(__file__).parents[2] / "scripts" / "restore-kubernetes.sh"
        assert script.exists()
        return subprocess.run(
            ["bash", str(script), file, "--playbook", str(self.path), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def manifests(directory: Path) -> str:
    namespace = "hms-system"
    app = deployment(directory, replicas=0)
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "database", "namespace": namespace},
            "type": "Opaque",
            "data": {"password": base64.b64encode(b"Geheimnis-4711").decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": namespace},
            "data": {"ward": "7"},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "patient-service", "namespace": namespace},
            "spec": {"selector": {"app": "patient-service"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        app,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": "default"}},
    ]
    return yaml.safe_dump_all(items)


@pytest_asyncio.fixture
async def place(tmp_path: Path, s3: str) -> AsyncIterator[Place]:
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"# created: today\n{key}\n")
    kubernetes = {"recipients": [str(key.to_public())], "identity": "${file:identity}"}
    path = write_playbook(tmp_path, s3, "127.0.0", kubernetes=kubernetes)
    (tmp_path / "c").mkdir()
    async with running(tmp_path / "c") as server:
        values = yaml.safe_load(path.read_text())
        values["regions"][EAST]["kubernetes"] = {"kubeconfig": str(server.layout.kubeconfig)}
        path.write_text(yaml.safe_dump(values))
        playbook = load(path)
        objects = ObjectStore(playbook.aws)
        settings = playbook.regions[EAST].kubernetes
        api = Kubernetes(settings.context, settings.kubeconfig, settings.namespace)
        (tmp_path / "app").mkdir()
        await server.kubectl("create", "-f", "-", given=manifests(tmp_path / "app"))
        yield Place(server, path, playbook, objects, api)
        await api.aclose()
        await objects.close()


async def test_what_is_lost_comes_back_and_what_is_there_is_left_alone(place: Place, s3: str) -> None:
    kept = await place.cluster.keep(NOW)
    assert not kept.problems
    assert kept.buckets == (place.bucket(EAST), place.bucket(WEST))
    stored = client(s3).get_object(Bucket=place.bucket(WEST), Key=f"kubernetes/{EAST}/{FILE}")["Body"].read()
    assert b"Geheimnis" not in stored
    names = list(place.cluster.contents(stored, "it", None).objects)
    assert names == [
        "00-namespaces/_cluster/hms-system.json",
        "06-secrets/hms-system/database.json",
        "07-configmaps/hms-system/settings.json",
        "09-services/hms-system/patient-service.json",
        "10-deployments/hms-system/patient-service.json",
    ]
    kubectl = place.server.kubectl
    before = await kubectl("get", "secret", "database", "-n", "hms-system", "-o", "jsonpath={.data.password}")
    for what in ("secret/database", "service/patient-service", "deployment/patient-service"):
        await kubectl("delete", what, "-n", "hms-system")
    looked = place.restore("--dry-run")
    assert looked.returncode == 0
    assert "create 10-deployments/hms-system/patient-service.json" in looked.stdout
    assert "patient-service" not in await kubectl("get", "deployments", "-n", "hms-system")
    done = place.restore()
    assert done.returncode == 0, done.stderr
    assert "3 created, 0 replaced, 2 were the same" in done.stdout
    assert "Geheimnis" not in done.stdout + done.stderr
    after = await kubectl("get", "secret", "database", "-n", "hms-system", "-o", "jsonpath={.data.password}")
    assert after == before
    assert "0 created, 0 replaced, 5 were the same" in place.restore().stdout


async def test_a_whole_namespace_comes_back(place: Place) -> None:
    await place.cluster.keep(NOW)
    await place.server.kubectl("delete", "namespace", "hms-system")
    done = place.restore()
    assert "5 created" in done.stdout, done.stderr
    told = await place.server.kubectl("get", "deployments,services,secrets,configmaps", "-n", "hms-system")
    assert all(name in told for name in ("patient-service", "database", "settings"))


async def test_what_is_different_is_named_and_replaced_only_when_asked(place: Place) -> None:
    await place.cluster.keep(NOW)
    await place.server.kubectl("scale", "deployment", "patient-service", "--replicas=1", "-n", "hms-system")
    await place.server.kubectl("delete", "configmap", "settings", "-n", "hms-system")
    done = place.restore()
    assert done.returncode == 2
    assert "deployments/hms-system/patient-service.json: spec.replicas" in done.stderr
    assert "settings" not in await place.server.kubectl("get", "configmaps", "-n", "hms-system")
    done = place.restore("--replace")
    assert done.returncode == 0, done.stderr
    assert "1 created, 1 replaced, 3 were the same" in done.stdout


async def test_without_a_recipient_secrets_are_not_kept_and_it_is_said(place: Place) -> None:
    policy = place.playbook.backups.kubernetes.model_copy(update={"recipients": ()})
    backups = place.playbook.backups.model_copy(update={"kubernetes": policy})
    place.playbook = place.playbook.model_copy(update={"backups": backups})
    kept = await place.cluster.keep(NOW)
    assert any("secrets are not kept" in words for words in kept.problems)
    content = await place.cluster.fetch(FILE)
    assert not [name for name in place.cluster.contents(content, "it", None).objects if "secrets" in name]


async def test_another_key_opens_nothing(place: Place, tmp_path: Path) -> None:
    await place.cluster.keep(NOW)
    content = await place.cluster.fetch(FILE)
    for text in (str(pyrage.x25519.Identity.generate()), "hello", "AGE-SECRET-KEY-1"):
        with pytest.raises(UnfitError) as caught:
            place.cluster.contents(content, "it", text)
        assert caught.value.kind is Kind.KEY
    (tmp_path / "other").write_text(str(pyrage.x25519.Identity.generate()))
    refused = place.restore("--identity", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "encrypted for another key" in refused.stderr


async def test_an_archive_that_the_api_does_not_take_changes_nothing(place: Place) -> None:
    await place.cluster.keep(NOW)
    contents = place.cluster.contents(await place.cluster.fetch(FILE), "it", None)
    for what in ("configmap/settings", "service/patient-service"):
        await place.server.kubectl("delete", what, "-n", "hms-system")
    item = contents.objects["09-services/hms-system/patient-service.json"]
    item["spec"]["ports"][0]["port"] = 700_000
    steps, same = await place.cluster.plan(contents)
    with pytest.raises(Exception, match=r"70\d+|65535"):
        await place.cluster.restore(steps, same=same, replace=False)
    assert "settings" not in await place.server.kubectl("get", "configmaps", "-n", "hms-system")


async def test_a_name_that_is_nowhere_is_refused(place: Place) -> None:
    with pytest.raises(RefusedError, match="no archive's name"):
        await place.cluster.fetch("../../etc/passwd.tar.gz")
    with pytest.raises(RefusedError, match="NoSuchKey"):
        await place.cluster.fetch("kubernetes_backup_20200101.tar.gz")
