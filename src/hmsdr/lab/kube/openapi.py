"""The little of OpenAPI v3 that kubectl asks for before it creates or applies: which kinds the server validates itself.

It has no schemas: `kubectl explain` finds nothing to explain. Data only.
"""

from __future__ import annotations

from typing import Any

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.kinds import Kind

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
        "components": {"schemas": {}},
    }


def _documents() -> dict[str, list[Kind]]:
    """Path of each group's API to its kinds."""
    found: dict[str, list[Kind]] = {}
    for kind in kinds.KINDS:
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
