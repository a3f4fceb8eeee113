"""Label and field selectors of a request. Pure; an operator it does not know is an error, never a match."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.status import bad_request

_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_FIELDS_OF = {
    "pods": frozenset({"status.phase", "spec.nodeName"}),
    "namespaces": frozenset({"status.phase"}),
    "events": frozenset(
        {
            f"involvedObject.{field}"
            for field in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")
        }
        | {"reason", "type"}
    ),
}
_EQUALITY = re.compile(r"^([^=!]+?)\s*(==|!=|=)\s*(.*)$")


def labels_match(selector: str, labels: Mapping[str, str]) -> bool:
    """Do these labels meet every requirement of the selector?

    Raises:
        ApiError: BadRequest for a requirement that cannot be read.
    """
    return all(
        _requirement(part.strip(), labels) for part in re.split(r",(?![^(]*\))", selector) if part.strip()
    )


def _requirement(text: str, labels: Mapping[str, str]) -> bool:
    if found := _SET.match(text):
        key, operator, values = found.groups()
        inside = labels.get(key) in {value.strip() for value in values.split(",")}
        return inside if operator == "in" else not inside
    if found := _EQUALITY.match(text):
        key, operator, value = found.groups()
        return (labels.get(key) == value.strip()) is (operator != "!=")
    if re.fullmatch(r"!?[\w./-]+", text):
        return text[1:] not in labels if text.startswith("!") else text in labels
    raise bad_request(f"unable to parse requirement: {text}")


def check_fields(selector: str, kind: Kind) -> None:
    """Refuse a field that objects of this kind cannot be selected by: it would match nothing, or everything.

    Raises:
        ApiError: BadRequest.
    """
    for part in filter(None, selector.split(",")):
        found = _EQUALITY.match(part)
        if found is None:
            raise bad_request(f"unable to parse field selector: {part}")
        if found[1] not in _FIELDS | _FIELDS_OF.get(kind.plural, frozenset()):
            raise bad_request(f"field label not supported: {found[1]}")


def fields_match(selector: str, item: Mapping[str, Any]) -> bool:
    """Does this object meet every requirement of the field selector?

    Raises:
        ApiError: BadRequest for a requirement that cannot be read.
    """
    for part in filter(None, selector.split(",")):
        found = _EQUALITY.match(part)
        if found is None:
            raise bad_request(f"unable to parse field selector: {part}")
        path, operator, wanted = found.groups()
        value: Any = item
        for step in path.split("."):
            value = value.get(step, "") if isinstance(value, Mapping) else ""
        if (str(value) == wanted) is (operator == "!="):
            return False
    return True
