"""Protobuf as kubectl sends it: what cannot be read is refused, and nothing is half understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.lab.kube.protobuf import read
from hmsdr.lab.kube.status import ApiError


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def envelope(kind: str, version: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, version.encode()) + field(2, kind.encode())) + field(2, raw)


def test_a_configmap_and_a_service() -> None:
    metadata = field(1, b"note") + field(11, field(1, b"app") + field(2, b"x"))
    data = field(2, field(1, b"who") + field(2, b"pat")) + field(2, field(1, b"empty") + field(2, b""))
    assert read(envelope("ConfigMap", "v1", field(1, metadata) + data)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "note", "labels": {"app": "x"}},
        "data": {"who": "pat", "empty": ""},
    }
    port = field(2, b"TCP") + field(3, 80) + field(4, field(1, 0) + field(2, 8080) + field(3, b""))
    named = field(3, 81) + field(4, field(1, 1) + field(3, b"http"))
    service = (
        field(1, field(1, b"s"))
        + field(2, field(1, port) + field(1, named) + field(4, b"ClusterIP"))
        + field(3, b"")
    )
    assert read(envelope("Service", "v1", service))["spec"] == {
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "http"}],
        "type": "ClusterIP",
    }


def test_a_field_that_is_not_known_is_refused_and_an_empty_one_is_not() -> None:
    raw = field(1, field(1, b"note"))
    assert read(envelope("ConfigMap", "v1", raw + field(9, b"")))["metadata"] == {"name": "note"}
    with pytest.raises(ApiError, match="field 3 of ConfigMap in protobuf"):
        read(envelope("ConfigMap", "v1", raw + field(3, field(1, b"a") + field(2, b"binary"))))
    with pytest.raises(ApiError, match="Role in protobuf"):
        read(envelope("Role", "rbac.authorization.k8s.io/v1", raw))


def test_a_secrets_bytes_come_as_base64() -> None:
    pair = field(1, b"password") + field(2, b"\x00\xff")
    body = field(1, field(1, b"database")) + field(2, pair) + field(3, b"Opaque")
    found = read(envelope("Secret", "v1", body))
    assert found["data"] == {"password": "AP8="}
    assert found["type"] == "Opaque"


@given(st.binary(max_size=200))
def test_anything_at_all_is_an_object_or_a_refusal(noise: bytes) -> None:
    for body in (noise, b"k8s\x00" + noise, envelope("Deployment", "apps/v1", noise)):
        try:
            assert read(body)["kind"] == "Deployment"
        except ApiError as error:
            assert error.code in (400, 501)
