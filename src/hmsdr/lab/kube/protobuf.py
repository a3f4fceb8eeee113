"""The protobuf that `kubectl create configmap|secret|deployment|ingress|namespace|…` and `drain` send, read into the JSON that it means.

Only reading, and only the kinds that kubectl makes by itself; the API always answers in JSON, which kubectl takes. A field
that is not known here is refused: an object with a part missing would be worse than none. Field numbers are those of
Kubernetes' generated.proto files.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from hmsdr.lab.kube.status import bad_request, unsupported

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STRING, _INT, _BOOL, _MAP, _PORT, _IGNORED = "string", "int", "bool", "map", "int-or-string", "ignored"
_BYTES_MAP = "map of bytes"

_GIVEN = "int-if-not-zero"
_INLINE = ""
"""Name of a message whose fields stand in the JSON of the one around it."""

Schema = dict[int, tuple[str, Any]]
"""Field number to its JSON name and type; a list of one type means repeated, a schema means a message."""

_META: Schema = {
    1: ("name", _STRING),
    2: ("generateName", _STRING),
    3: ("namespace", _STRING),
    8: ("creationTimestamp", _IGNORED),
    11: ("labels", _MAP),
    12: ("annotations", _MAP),
}
_CONTAINER: Schema = {
    1: ("name", _STRING),
    2: ("image", _STRING),
    3: ("command", [_STRING]),
    4: ("args", [_STRING]),
    6: ("ports", [{1: ("name", _STRING), 3: ("containerPort", _INT), 4: ("protocol", _STRING)}]),
    7: ("env", [{1: ("name", _STRING), 2: ("value", _STRING)}]),
    8: ("resources", _IGNORED),
}
_TEMPLATE: Schema = {
    1: ("metadata", _META),
    2: ("spec", {2: ("containers", [_CONTAINER]), 3: ("restartPolicy", _STRING)}),
}
_SERVICE_PORT: Schema = {
    1: ("name", _STRING),
    2: ("protocol", _STRING),
    3: ("port", _INT),
    4: ("targetPort", _PORT),
    5: ("nodePort", _INT),
}
_BACKEND: Schema = {
    4: ("service", {1: ("name", _STRING), 2: ("port", {1: ("name", _STRING), 2: ("number", _GIVEN)})}),
}
_PATH: Schema = {1: ("path", _STRING), 2: ("backend", _BACKEND), 3: ("pathType", _STRING)}
_INGRESS_RULE: Schema = {
    1: ("host", _STRING),
    2: (_INLINE, {1: ("http", {1: ("paths", [_PATH])})}),
}
_KINDS: dict[str, Schema] = {
    "ConfigMap": {1: ("metadata", _META), 2: ("data", _MAP), 4: ("immutable", _BOOL)},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", _INT),
        2: ("preconditions", {1: ("uid", _STRING), 2: ("resourceVersion", _STRING)}),
        3: ("orphanDependents", _BOOL),
        4: ("propagationPolicy", _STRING),
        5: ("dryRun", [_STRING]),
    },
    "Secret": {
        1: ("metadata", _META),
        2: ("data", _BYTES_MAP),
        3: ("type", _STRING),
        5: ("immutable", _BOOL),
    },
    "Ingress": {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("defaultBackend", _BACKEND),
                2: ("tls", [{1: ("hosts", [_STRING]), 2: ("secretName", _STRING)}]),
                3: ("rules", [_INGRESS_RULE]),
                4: ("ingressClassName", _STRING),
            },
        ),
        3: ("status", _IGNORED),
    },
    "Namespace": {1: ("metadata", _META), 2: ("spec", _IGNORED), 3: ("status", _IGNORED)},
    "Deployment": {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("replicas", _INT),
                2: ("selector", {1: ("matchLabels", _MAP)}),
                3: ("template", _TEMPLATE),
                4: ("strategy", _IGNORED),
            },
        ),
        3: ("status", _IGNORED),
    },
    "Service": {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("ports", [_SERVICE_PORT]),
                2: ("selector", _MAP),
                3: ("clusterIP", _STRING),
                4: ("type", _STRING),
            },
        ),
        3: ("status", _IGNORED),
    },
}


def read(body: bytes) -> dict[str, Any]:
    """The object in `body`.

    Raises:
        ApiError: it is no such envelope, or has a kind or a field that the lab does not know.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body is no Kubernetes protobuf")
    try:
        envelope = {number: value for number, _, value in _fields(body[len(_MAGIC) :])}
        names = {number: value.decode() for number, _, value in _fields(envelope[1])}
        schema = _KINDS.get(names.get(2, ""))
        if schema is None:
            raise unsupported(f"{names.get(2, 'an object')} in protobuf (send JSON or YAML with `create -f`)")
        return {"apiVersion": names.get(1, ""), "kind": names[2], **_message(envelope[2], schema, names[2])}
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise bad_request(f"the protobuf cannot be read: {error}") from error


def _message(data: bytes, schema: Schema, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, _, value in _fields(data):
        if number not in schema:
            if value in (b"", 0):
                continue
            raise unsupported(f"field {number} of {where} in protobuf (send JSON or YAML with `create -f`)")
        name, kind = schema[number]
        at = f"{where}.{name}"
        if kind == _IGNORED or (kind == _GIVEN and not value):
            continue
        if kind == _MAP:
            entry = {key: item.decode() for key, _, item in _fields(value)}
            found.setdefault(name, {})[entry.get(1, "")] = entry.get(2, "")
        elif kind == _BYTES_MAP:
            pair = {key: item for key, _, item in _fields(value)}
            packed = base64.b64encode(pair.get(2, b"")).decode()
            found.setdefault(name, {})[pair.get(1, b"").decode()] = packed
        elif name == _INLINE:
            found.update(_message(value, kind, where))
        elif isinstance(kind, list):
            found.setdefault(name, []).append(_value(value, kind[0], at))
        else:
            found[name] = _value(value, kind, at)
    return {name: value for name, value in found.items() if value not in ({}, "")}


def _value(value: Any, kind: Any, where: str) -> Any:
    if isinstance(kind, dict):
        return _message(value, kind, where)
    if kind == _STRING:
        return value.decode()
    if kind == _PORT:
        parts = {number: part for number, _, part in _fields(value)}
        return parts[3].decode() if parts.get(1) else parts.get(2, 0)
    return bool(value) if kind == _BOOL else int(value)


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("it is cut off")
            value, at = data[at : at + length], at + length
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no continuation bit
            return value, at
        shift += 7
