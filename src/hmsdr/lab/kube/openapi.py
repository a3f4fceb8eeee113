"""The little of OpenAPI v3 that kubectl asks for before it creates or applies: which kinds the server validates itself.

Its schemas are the shapes by which a write is judged, for `kubectl explain`: names and types, and no prose. Data only.
"""

from __future__ import annotations

from typing import Any

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.shape import ANY, BOOL, INT32, INT64, OBJECT, OPEN, Map, Shape
from hmsdr.lab.kube.shapes import SHAPES

_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def index() -> dict[str, Any]:
    """``GET /openapi/v3``: where the document of each group is."""
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in _documents()}}


def document(path: str) -> dict[str, Any] | None:
    """``GET /openapi/v3/PATH``; None when there is no such group."""
    found = _documents().get(path)
    if found is None:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes of the hmsdr lab", "version": "v1.32.0"},
        "paths": {f"/{path}/{_pattern(kind)}": {"patch": _patch(kind)} for kind in found},
        "components": {"schemas": {kind.kind: _schema(kind) for kind in found}},
    }


def _schema(kind: Kind) -> dict[str, Any]:
    name = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    if kind in kinds.UNSUPPORTED:
        found: dict[str, Any] = {"type": OBJECT, "description": f"{kind.qualified}: not supported by the lab"}
    else:
        found = _typed(SHAPES[kind.plural]) | {"description": f"{kind.kind}, as far as the lab has it."}
    return found | {"x-kubernetes-group-version-kind": [name]}


def _typed(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, list):
        return {"type": "array", "items": _typed(shape[0])}
    if isinstance(shape, Map):
        return {"type": OBJECT, "additionalProperties": _typed(shape.of)}
    if isinstance(shape, dict):
        return {"type": OBJECT, "properties": {key: _typed(of) for key, of in shape.items() if key != OPEN}}
    if shape == ANY:
        return {"type": OBJECT, "description": "Taken as it is: the lab does not look at it, or refuses it."}
    if shape in (INT32, INT64):
        return {"type": "integer", "format": shape}
    return {"type": {BOOL: "boolean", OBJECT: OBJECT}.get(shape, "string")}


def _documents() -> dict[str, list[Kind]]:
    """Path of each group's API to its kinds."""
    found: dict[str, list[Kind]] = {}
    for kind in kinds.KINDS + kinds.UNSUPPORTED:
        found.setdefault(f"apis/{kind.api_version}" if kind.group else "api/v1", []).append(kind)
    return found


def _pattern(kind: Kind) -> str:
    return f"{'namespaces/{namespace}/' if kind.namespaced else ''}{kind.plural}/{{name}}"


def _patch(kind: Kind) -> dict[str, Any]:
    return {
        "parameters": _PARAMETERS,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    }
