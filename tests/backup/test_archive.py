"""Archives of a cluster's objects, spoilt in every way that comes to mind: none of it is used."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmsdr.backup import archive
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.decide.clusterbackup import cleaned, kept
from hmsdr.errors import RefusedError

KINDS, NAMESPACES = ("namespaces", "secrets", "configmaps", "services", "deployments"), ("hms-system",)
KEY = pyrage.x25519.Identity.generate()
Files = dict[str, bytes]


def item(kind: str, name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "hms-system"}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


FOUND = [
    ("secrets", item("Secret", "database", data={"password": "R2VoZWltbmlz"})),
    ("configmaps", item("ConfigMap", "settings", data={"ward": "7"})),
]


def made() -> bytes:
    moment = datetime(2026, 11, 25, 3, tzinfo=UTC)
    return archive.write(FOUND, region="us-east-1", made=moment, recipients=[str(KEY.to_public())])


def read(content: bytes) -> archive.Contents:
    return archive.read(content, "it", kinds=KINDS, namespaces=NAMESPACES, identity=str(KEY))


def unpacked(content: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {each.name: (opened.extractfile(each) or io.BytesIO()).read() for each in opened}


def packed(files: Files, *extra: tarfile.TarInfo) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
        for member in extra:
            opened.addfile(member, io.BytesIO(bytes(member.size)))
    return raw.getvalue()


def named(files: Files) -> Files:
    """The same with a manifest that fits: as somebody would make it who knows how."""
    rest = {name: content for name, content in files.items() if name != "manifest.json"}
    listed = [
        {"file": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in rest.items()
    ]
    manifest = json.loads(files["manifest.json"]) | {"objects": listed}
    return {"manifest.json": json.dumps(manifest).encode(), **rest}


def with_object(path: str, content: object) -> bytes:
    return packed(named(unpacked(made()) | {path: json.dumps(content).encode()}))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zeros(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


SETTINGS = "07-configmaps/hms-system/settings.json"
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "all", "namespace": "hms-system"},
}
ELSEWHERE = item("ConfigMap", "x") | {"metadata": {"name": "x", "namespace": "kube-system"}}
WAYS: dict[str, Callable[[], bytes]] = {
    "no archive": lambda: b"hello",
    "empty": lambda: b"",
    "truncated": lambda: made()[:-200],
    "half": lambda: made()[: len(made()) // 2],
    "not packed": lambda: gzip.decompress(made()),
    "a path out": lambda: packed(unpacked(made()) | {"../../etc/cron.d/x": b"x"}),
    "an absolute path": lambda: packed(unpacked(made()) | {"/etc/cron.d/x": b"x"}),
    "a link": lambda: packed(unpacked(made()), link("07-configmaps/x", "/etc/passwd")),
    "a hard link": lambda: packed(unpacked(made()), link("07-configmaps/x", SETTINGS, tarfile.LNKTYPE)),
    "a device": lambda: packed(unpacked(made()), link("07-configmaps/x", "", tarfile.CHRTYPE)),
    "a directory": lambda: packed(unpacked(made()), link("07-configmaps", "", tarfile.DIRTYPE)),
    "a bomb": lambda: packed(unpacked(made()), zeros("07-configmaps/hms-system/big.json", 64 << 20)),
    "many small": lambda: packed(unpacked(made()), *(zeros(f"07-configmaps/{n}", 0) for n in range(20_001))),
    "twice": lambda: packed(unpacked(made()), zeros(SETTINGS, 0)),
    "no manifest": lambda: packed({k: v for k, v in unpacked(made()).items() if k != "manifest.json"}),
    "a manifest of nothing": lambda: packed(unpacked(made()) | {"manifest.json": b"[]"}),
    "another format": lambda: packed(
        unpacked(made())
        | {"manifest.json": unpacked(made())["manifest.json"].replace(b'"format": 1', b'"format": 9')}
    ),
    "an object less": lambda: packed({k: v for k, v in unpacked(made()).items() if k != SETTINGS}),
    "an object more": lambda: packed(unpacked(made()) | {"07-configmaps/hms-system/y.json": b"{}"}),
    "an object changed": lambda: packed(unpacked(made()) | {SETTINGS: b"{}"}),
    "a kind that is not allowed": lambda: with_object("04-roles/hms-system/all.json", ROLE),
    "a kind that nobody knows": lambda: with_object("99-pods/hms-system/x.json", item("Pod", "x")),
    "a kind among others": lambda: with_object("07-configmaps/hms-system/all.json", ROLE),
    "another namespace": lambda: with_object("07-configmaps/kube-system/x.json", ELSEWHERE),
    "another namespace inside": lambda: with_object("07-configmaps/hms-system/x.json", ELSEWHERE),
    "another namespace as such": lambda: with_object(
        "00-namespaces/_cluster/kube-system.json",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}},
    ),
    "another name": lambda: with_object("07-configmaps/hms-system/y.json", item("ConfigMap", "x")),
    "a name that is none": lambda: with_object(SETTINGS, item("ConfigMap", "") | {"metadata": {"name": 7}}),
    "no object": lambda: with_object(SETTINGS, ["x"]),
    "no JSON": lambda: packed(named(unpacked(made()) | {SETTINGS: b"{"})),
    "a secret in the open": lambda: with_object("06-secrets/hms-system/x.json", item("Secret", "x")),
}


def test_what_goes_in_comes_out() -> None:
    contents = read(made())
    assert list(contents.objects.values()) == [found for _, found in FOUND]
    assert b"R2VoZWltbmlz" not in gzip.decompress(made())


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused(way: str) -> None:
    with pytest.raises(UnfitError) as caught:
        read(WAYS[way]())
    assert caught.value.kind is Kind.ARCHIVE
    assert caught.value.status == 2
    assert caught.value.found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, mask: int) -> None:
    content = bytearray(made())
    content[at % len(content)] ^= mask
    try:
        found = read(bytes(content))
    except UnfitError:
        return
    assert list(found.objects.values()) == [
        each for _, each in FOUND
    ]  # a byte of the envelope that says nothing


def test_a_secret_needs_somebody_to_encrypt_it_for() -> None:
    with pytest.raises(RefusedError, match="nobody is named"):
        archive.write(FOUND, region="x", made=datetime.now(UTC), recipients=[])


def test_what_the_cluster_put_into_an_object_is_left_out() -> None:
    service = item(
        "Service",
        "x",
        spec={
            "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "nodePort": 30000}],
        },
        status={"loadBalancer": {}},
    )
    service["metadata"] |= {
        "uid": "1",
        "resourceVersion": "2",
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "labels": {"a": "b"},
    }
    assert cleaned("services", service) == item("Service", "x", spec={"ports": [{"port": 80}]}) | {
        "metadata": {"name": "x", "namespace": "hms-system", "labels": {"a": "b"}}
    }
    headless = item("Service", "x", spec={"clusterIP": "None", "ports": [{"port": 80}]})
    assert cleaned("services", headless) == headless


def test_what_a_controller_made_is_not_kept() -> None:
    owned = item("ConfigMap", "x")
    owned["metadata"]["ownerReferences"] = [{"controller": True, "kind": "Deployment"}]
    assert not kept("configmaps", owned)
    assert not kept("configmaps", item("ConfigMap", "kube-root-ca.crt"))
    assert not kept("secrets", item("Secret", "x", type="kubernetes.io/service-account-token"))
    assert kept("secrets", item("Secret", "x", type="Opaque"))
