"""The three ways to patch an object: strategic merge, merge (RFC 7386) and JSON patch (RFC 6902). Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hmsdr.lab.kube.status import ApiError, invalid

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
}
"""Lists that a strategic merge joins by this key; ports of a Service are keyed by `port`."""
_DIRECTIVE = "$patch"


def apply(content_type: str, item: Any, patch: Any) -> Any:
    """The patched object; `item` stays as it was.

    Raises:
        ApiError: Invalid, or UnsupportedMediaType.
    """
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "application/strategic-merge-patch+json": strategic,
        "application/merge-patch+json": merge,
        "application/json-patch+json": json_patch,
    }
    if content_type in ways:
        try:
            return ways[content_type](item, patch)
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise invalid(f"the patch does not fit the object: {error!r}") from error
    raise ApiError(415, "UnsupportedMediaType", f"{content_type}: not supported by the lab")


def merge(item: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(item: Any, patch: Any) -> Any:
    """Kubernetes' own: as `merge`, but containers, env and their like are joined by name."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get(_DIRECTIVE) == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != _DIRECTIVE}
    result = copy.deepcopy(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if key.startswith(("$setElementOrder/", "$retainKeys")):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [entry for entry in result.get(name, []) if entry not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list) and key in _MERGE_KEYS:
            result[key] = _join(result.get(key) or [], value, _MERGE_KEYS[key])
        else:
            result[key] = strategic(result.get(key), value)
    return result


def _join(items: list[Any], patches: list[Any], by: str) -> list[Any]:
    if by == "containerPort" and any("port" in patch for patch in patches):
        by = "port"
    if {_DIRECTIVE: "replace"} in patches:
        return [copy.deepcopy(patch) for patch in patches if _DIRECTIVE not in patch]
    result = copy.deepcopy(items)
    for patch in patches:
        if not isinstance(patch, dict) or by not in patch:
            raise invalid(f"does not contain declared merge key: {by}")
        at = next((i for i, entry in enumerate(result) if entry.get(by) == patch[by]), None)
        if patch.get(_DIRECTIVE) == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, patch))
        else:
            result[at] = strategic(result[at], patch)
    return result


def json_patch(item: Any, operations: Any) -> Any:
    """RFC 6902: add, remove, replace and test.

    Raises:
        ApiError: Invalid for a path that is not there, a failed test or another operation.
    """
    root = {"": copy.deepcopy(item)}
    try:
        for operation in operations:
            _operate(root, operation)
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        raise invalid(f"the json patch does not fit the object: {error!r}") from error
    return root[""]


def _operate(root: dict[str, Any], operation: dict[str, Any]) -> None:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")]
    parent: Any = root
    for step in steps[:-1]:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    last: Any = steps[-1]
    verb = operation["op"]
    if isinstance(parent, list):
        last = len(parent) if last == "-" else int(last)
        if verb == "add":
            parent.insert(last, operation["value"])
            return
    if verb == "add":
        parent[last] = operation["value"]
    elif verb == "replace":
        del parent[last]  # fails if there is nothing to replace
        if isinstance(parent, list):
            parent.insert(last, operation["value"])
        else:
            parent[last] = operation["value"]
    elif verb == "remove":
        del parent[last]
    elif verb == "test":
        if parent[last] != operation["value"]:
            raise ValueError(f"test of {operation['path']} failed")
    else:
        raise ValueError(f"operation {verb}")
