"""What stands between a request's body and the store: every write is read, cleaned and judged here, or refused whole.

It changes nothing itself; the store is only asked whether the namespace is there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hmsdr.lab.kube import effects, kinds, patch, paused, rules
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.shape import MismatchError, read, too_deep
from hmsdr.lab.kube.shapes import SCALE, SHAPES
from hmsdr.lab.kube.status import ApiError, bad_request, conflict, forbidden, invalid, unsupported
from hmsdr.lab.kube.store import Object, Store, key_of

_STRICT = "Strict"
_VALIDATIONS = frozenset({"", "Ignore", "Warn", _STRICT})
_PROTECTED = frozenset({"default", "kube-system"})
_FIRST_PHASE = {kinds.NAMESPACES: "Active", kinds.PODS: "Pending"}
_WITH_SPEC = frozenset({kinds.PODS, kinds.SERVICES, kinds.INGRESSES, kinds.NODES, kinds.NAMESPACES})
_NEVER: Object = {"metadata": {}, "spec": {"paused": True}}
"""What a deployment that is created takes the place of."""
_GIVEN_BY_SERVER = ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion")


@dataclass(frozen=True, slots=True)
class Admitted:
    """An object that may be written, and the fields that were left out of it."""

    item: Object
    unknown: tuple[str, ...] = ()

    def warnings(self, kind: Kind) -> list[str]:
        """What the client should be told although it was done: fields that are none, or have no effect here."""
        return [f'unknown field "{field[:100]}"' for field in self.unknown] + effects.without_effect(
            kind, self.item
        )


def decode(text: bytes) -> Any:
    """The body of a request as JSON.

    Raises:
        ApiError: BadRequest if it is none, or is nested deeper than any object.
    """
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict | list) or too_deep(found):
        raise bad_request("the body is not an object of Kubernetes")
    return found


def created(
    store: Store, kind: Kind, namespace: str | None, name: str | None, item: Any, validation: str = ""
) -> Admitted:
    """A body that asks for a new object, or (with a `name`) to replace one.

    Raises:
        ApiError: the object, or where it should be, makes no sense.
    """
    admitted = _placed(kind, namespace, name, item, validation)
    if name is None:
        _fresh(store, kind, admitted.item)
    _judge(kind, admitted.item)
    _placeable(store, kind, admitted.item)
    return admitted


def replaced(
    store: Store, kind: Kind, namespace: str | None, name: str, item: Any, validation: str = ""
) -> Admitted:
    """A body that should stand in the place of the object of this name.

    Raises:
        ApiError: NotFound, or the object makes no sense.
    """
    old = store.get(kind, namespace or "", name)
    admitted = created(store, kind, namespace, name, item, validation)
    return Admitted(_changed(kind, old, admitted.item), admitted.unknown)


def patched(content_type: str, kind: Kind, old: Object, change: Any, validation: str = "") -> Admitted:
    """What becomes of `old` by a patch.

    Raises:
        ApiError: the patch does not fit, or what comes of it makes no sense.
    """
    new = patch.apply(content_type, old, change)
    try:
        admitted = _clean(kind, new, validation)
    except MismatchError as error:
        raise invalid(f"patch: Invalid value: {json.dumps(change)[:300]}: {error}") from error
    item = admitted.item
    metadata = item.setdefault("metadata", {})
    if (metadata.get("namespace", ""), metadata.get("name")) != key_of(old):
        raise bad_request("a patch cannot change name or namespace")
    if metadata.get("resourceVersion") not in {None, "", old["metadata"]["resourceVersion"]}:
        raise conflict(kind.qualified, old["metadata"]["name"])
    _judge(kind, item)
    return Admitted(_changed(kind, old, item), admitted.unknown)


def scaled(old: Object, scale: Any) -> Object:
    """A deployment or statefulset with the pods and the version that a Scale names.

    Raises:
        ApiError: the Scale makes no sense.
    """
    try:
        scale = read(scale, SCALE, "Scale", [])
    except MismatchError as error:
        raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {error}') from error
    wanted = (scale.get("spec") or {}).get("replicas", 0)
    if problems := list(rules.replicas(wanted, old["spec"].get("template") or {})):
        raise invalid(_told(problems), "Scale", old["metadata"]["name"], problems)
    metadata = old["metadata"]
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        metadata = metadata | {"resourceVersion": version}
    return old | {"metadata": metadata, "spec": old["spec"] | {"replicas": wanted}}


def check_stored(kind: Kind, item: Any) -> Object:
    """An object as it was read from disk, cleaned.

    Raises:
        ValueError: it cannot be one that was once admitted.
    """
    try:
        found: Object = read(item, SHAPES[kind.plural], kind.kind, [])
        if too_deep(item) or not found["metadata"]["uid"] or not found["metadata"]["resourceVersion"]:
            raise ValueError("it has no uid or version, or is nested too deep")
        if kind.plural not in kinds.READ_ONLY:
            _judge(kind, found)
        int(found["metadata"]["resourceVersion"])
        key_of(found)
    except (MismatchError, ApiError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return found


def check_deletion(kind: Kind, name: str, options: Any, old: Object) -> None:
    """Refuse a deletion that real Kubernetes refuses, or that the lab would not carry out as asked.

    Raises:
        ApiError: it is refused.
    """
    if not isinstance(options, dict):
        raise bad_request("the options of a deletion are an object")
    if kind is kinds.NAMESPACES and name in _PROTECTED:
        raise forbidden(kind.qualified, name, "this namespace may not be deleted")
    if kind is kinds.NODES:
        raise unsupported("deleting a region's only node")
    if options.get("propagationPolicy") == "Orphan" or options.get("orphanDependents"):
        raise unsupported("propagationPolicy Orphan")
    wanted = options.get("preconditions") or {}
    for field in ("uid", "resourceVersion"):
        if isinstance(wanted, dict) and wanted.get(field) not in {None, old["metadata"].get(field)}:
            raise conflict(kind.qualified, name)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _placed(kind: Kind, namespace: str | None, name: str | None, item: Any, validation: str) -> Admitted:
    """Types, and the path's namespace and name."""
    if kind.plural in kinds.READ_ONLY:
        raise unsupported(f"writing {kind.qualified} (the controllers alone do)")
    word = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
    if not isinstance(item, dict):
        raise bad_request(f"{word}: the body is not an object")
    for field, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if item.get(field, wanted) != wanted:
            raise bad_request(f"the {field} in the data does not match the expected {field} ({wanted})")
    try:
        admitted = _clean(kind, item, validation)
    except MismatchError as error:
        raise bad_request(f"{word}: {error}") from error
    _address(kind, namespace, name, admitted.item.setdefault("metadata", {}))
    if kind in {kinds.DEPLOYMENTS, kinds.STATEFULSETS} and "spec" in admitted.item:
        admitted.item["spec"].setdefault("replicas", 1)
    if kind is kinds.STATEFULSETS and "spec" in admitted.item:
        admitted.item["spec"].setdefault("updateStrategy", {"type": "RollingUpdate"})
    if kind in _WITH_SPEC:
        admitted.item.setdefault("spec", {})
    return admitted


def _fresh(store: Store, kind: Kind, item: Object) -> None:
    """What is new comes into a namespace that is there and stays, and without what only the server gives."""
    if kind is kinds.NODES:
        raise unsupported("another node")
    metadata = item["metadata"]
    if kind.namespaced:
        home = store.get(kinds.NAMESPACES, "", metadata["namespace"])
        if home["metadata"].get("deletionTimestamp"):
            place = metadata["namespace"]
            why = f"unable to create new content in namespace {place} because it is being terminated"
            raise forbidden(kind.qualified, metadata.get("name", ""), why)
    for field in _GIVEN_BY_SERVER:
        metadata.pop(field, None)
    item.pop("status", None)
    if kind is kinds.DEPLOYMENTS:
        item["metadata"] = paused.remember(_NEVER, item)["metadata"]
    if kind in _FIRST_PHASE:
        item["status"] = {"phase": _FIRST_PHASE[kind]}


def _address(kind: Kind, namespace: str | None, name: str | None, metadata: Object) -> None:
    """Put the path's namespace and name into the metadata, or refuse one that says otherwise."""
    if not kind.namespaced:
        metadata.pop("namespace", None)
    elif not namespace:
        raise bad_request("an empty namespace may not be set during creation")
    elif metadata.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the object does not match the namespace on the request")
    if not metadata.get("name"):
        if name is not None:
            metadata["name"] = name
        elif metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)[:5]}"
    if name not in {None, metadata.get("name")}:
        raise bad_request("the name of the object does not match the name on the URL")


def _clean(kind: Kind, item: Any, validation: str) -> Admitted:
    """The object without nulls and without fields that its kind does not have.

    Raises:
        ApiError: BadRequest for such a field, if the client asked for it.
        MismatchError: a field has another type.
    """
    if validation not in _VALIDATIONS:
        raise bad_request(f"fieldValidation: Unsupported value: {validation!r}")
    unknown: list[str] = []
    found = read(item, SHAPES[kind.plural], kind.kind, unknown)
    if unknown and validation == _STRICT:
        told = ", ".join(f'unknown field "{field}"' for field in unknown[:10])
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {told}"
        )
    return Admitted(found, () if validation == "Ignore" else tuple(unknown))


def _judge(kind: Kind, item: Object) -> None:
    if problems := rules.problems(kind, item):
        name = str((item.get("metadata") or {}).get("name", ""))
        raise invalid(f'{kind.kind} "{name}" is invalid: {_told(problems)}', kind.kind, name, problems)


def _placeable(store: Store, kind: Kind, item: Object) -> None:
    """A pod may name its node itself; then it must be one that there is."""
    node = item["spec"].get("nodeName") if kind is kinds.PODS else None
    if node and store.find(kinds.NODES, "", node) is None:
        problem = rules.Problem("spec.nodeName", f'Invalid value: "{node}": the region has no such node')
        raise invalid(_told([problem]), kind.kind, key_of(item)[1], [problem])


def _changed(kind: Kind, old: Object, new: Object) -> Object:
    """The new object with what no client may change: its status; and what the controllers must remember of the old."""
    if problems := rules.change_problems(kind, old, new):
        name = key_of(old)[1]
        raise invalid(f'{kind.kind} "{name}" is invalid: {_told(problems)}', kind.kind, name, problems)
    new = {field: value for field, value in new.items() if field != "status"}
    if "status" in old:
        new["status"] = old["status"]
    return paused.remember(old, new) if kind is kinds.DEPLOYMENTS else new


def _told(problems: Sequence[rules.Problem]) -> str:
    words = [f"{problem.field}: {problem.message}" for problem in problems]
    return words[0] if len(words) == 1 else f"[{', '.join(words)}]"
