"""Whether a piece of JSON has the types that an object of Kubernetes must have, judged as its Go decoder judges. Pure.

It gives back a clean copy: nulls mean absent, unknown fields are left out and named. What the values mean is not its part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

STRING, BOOL, INT32, INT64 = "string", "bool", "int32", "int64"
INT_OR_STRING = "intstr.IntOrString"
ANY = "any"
"""A part that the lab does not look at."""
OBJECT = "object"
"""An object with fields that the lab does not look at."""
OPEN = "..."
"""As a field of an object: it may have others, which are kept."""
_BITS = {INT32: 31, INT64: 63}
_DEEPEST = 40
"""How deep objects and lists may stand in each other: no real object comes near it."""


@dataclass(frozen=True, slots=True)
class Map:
    """An object of any keys whose values are all of one shape."""

    of: Any


Shape = Any
"""One of the words above, a `Map`, a list of one shape, or a dict of field name to shape."""


class MismatchError(Exception):
    """The JSON does not have this shape; says where, what stands there, and what should."""


def too_deep(value: Any) -> bool:
    """Is it nested deeper than any real object?"""
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


def read(value: Any, shape: Shape, at: str, unknown: list[str]) -> Any:
    """A clean copy of `value`.

    Args:
        value: JSON.
        shape: what it should be.
        at: its path, beginning with the kind.
        unknown: gets the path of each field that the shape does not have.

    Raises:
        MismatchError: a value is of another type.
    """
    if shape == ANY:
        return value
    if value is None:
        return _zero(shape)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise _mismatch(value, at, "list")
        return [read(entry, shape[0], f"{at}[{index}]", unknown) for index, entry in enumerate(value)]
    if isinstance(shape, dict | Map) or shape == OBJECT:
        if not isinstance(value, dict):
            raise _mismatch(value, at, OBJECT)
        return _read_object(value, shape, at, unknown)
    if not _is(value, shape):
        raise _mismatch(value, at, shape)
    return value


def _read_object(value: dict[str, Any], shape: Shape, at: str, unknown: list[str]) -> dict[str, Any]:
    if isinstance(shape, Map):
        return {key: read(entry, shape.of, f"{at}.{key}", unknown) for key, entry in value.items()}
    if shape == OBJECT:
        return value
    found = {}
    for key, entry in value.items():
        if key not in shape or key == OPEN:
            if OPEN in shape:
                found[key] = entry
            else:
                unknown.append(f"{at}.{key}".partition(".")[2])
        elif entry is not None:
            found[key] = read(entry, shape[key], f"{at}.{key}", unknown)
    return found


def _is(value: Any, shape: str) -> bool:
    if shape in _BITS:
        limit = 1 << _BITS[shape]
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    if shape == INT_OR_STRING:
        return _is(value, INT32) or isinstance(value, str)
    return isinstance(value, bool if shape == BOOL else str)


def _zero(shape: Shape) -> Any:
    """What Go makes of a null in a list or a map."""
    if isinstance(shape, list):
        return []
    if isinstance(shape, dict | Map) or shape == OBJECT:
        return {}
    return {STRING: "", BOOL: False}.get(shape, 0)


def _mismatch(value: Any, at: str, wanted: str) -> MismatchError:
    if isinstance(value, bool):
        found = "bool"
    elif isinstance(value, int | float):
        found = f"number {json.dumps(value)[:40]}"
    else:
        found = {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "value")
    return MismatchError(f"json: cannot unmarshal {found} into Go struct field {at} of type {wanted}")
