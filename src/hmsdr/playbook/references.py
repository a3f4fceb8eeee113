"""Whether names that a playbook uses are defined in it. Works on the tree, so that it speaks up beside other errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from hmsdr.playbook.document import Node
from hmsdr.playbook.findings import Finding, Keys, nearest, one_of
from hmsdr.playbook.people import SeverityName


def check(tree: Node) -> list[Finding]:
    """One finding for each name that is used and not defined, and for each severity that is missing."""
    return [
        *_home(tree),
        *_copies(tree),
        *_watched(tree),
        *_roles(tree),
        *_on_call(tree),
        *_escalation(tree),
        *_severities(tree),
    ]


def _unknown(tree: Node, keys: Keys, what: str, names: Iterable[str]) -> Iterator[Finding]:
    node = tree.find(keys)
    known = list(dict.fromkeys(names))
    if node is None or not isinstance(node.value, str) or node.value in known:
        return
    if any("${" in name for name in (node.value, *known)):
        return  # known only when loaded; the lint of the loaded playbook looks again
    hint = nearest(node.value, known)
    yield Finding(keys, f"the unknown {what} {node.value!r}", one_of(known), hint, mark=node.mark)


def _names(tree: Node, keys: Keys) -> list[str]:
    node = tree.find(keys)
    return list(node.entries()) if node else []


def _home(tree: Node) -> Iterator[Finding]:
    if regions := _names(tree, ("regions",)):
        yield from _unknown(tree, ("home_region",), "region", regions)


def _watched(tree: Node) -> Iterator[Finding]:
    if regions := _names(tree, ("regions",)):
        for name in _names(tree, ("watch",)):
            yield from _unknown(tree, ("watch", name, "region"), "region", regions)


def _copies(tree: Node) -> Iterator[Finding]:
    regions = _names(tree, ("regions",))
    buckets = {name: _text(tree, ("regions", name, "backups", "bucket")) for name in regions}
    if None in buckets.values():
        return
    for name in regions:
        others = [bucket for other, bucket in buckets.items() if bucket and other != name]
        yield from _unknown(
            tree, ("regions", name, "backups", "copy_bucket"), "bucket of another region", others
        )


def _roles(tree: Node) -> Iterator[Finding]:
    people = tree.find(("people",))
    if people is None or not isinstance(people.value, tuple):
        return
    names = [name for index in range(len(people.value)) if (name := _text(tree, ("people", index, "name")))]
    for role in _names(tree, ("roles",)):
        for key in ("primary", "backup"):
            yield from _unknown(tree, ("roles", role, key), "person", names)


def _on_call(tree: Node) -> Iterator[Finding]:
    people = tree.find(("people",))
    if people is None or not isinstance(people.value, tuple):
        return
    names = [name for index in range(len(people.value)) if (name := _text(tree, ("people", index, "name")))]
    roles = _names(tree, ("roles",))
    duties = tree.find(("on_call", "roles"))
    for role, entry in (duties.entries() if duties else {}).items():
        keys: Keys = ("on_call", "roles", role)
        if roles and role not in roles:
            yield Finding(
                keys, f"the unknown role {role!r}", one_of(roles), nearest(role, roles), mark=entry.mark
            )
        for place in (*_items(tree, (*keys, "rotation", "people")), *_items(tree, (*keys, "overrides"))):
            person = place if place[-2] == "people" else (*place, "person")
            yield from _unknown(tree, person, "person", names)


def _items(tree: Node, keys: Keys) -> Iterator[Keys]:
    node = tree.find(keys)
    if node is not None and isinstance(node.value, tuple):
        yield from ((*keys, index) for index in range(len(node.value)))


def _escalation(tree: Node) -> Iterator[Finding]:
    keys: Keys = ("channels", "escalation")
    text = _text(tree, keys)
    if text is None or not text.startswith("phone:") or tree.find(("roles",)) is None:
        return
    role, roles = text.removeprefix("phone:"), _names(tree, ("roles",))
    if role not in roles:
        node = tree.find(keys)
        mark = node.mark if node else None
        yield Finding(keys, f"the unknown role {role!r}", one_of(roles), nearest(role, roles), mark=mark)


def _severities(tree: Node) -> Iterator[Finding]:
    node = tree.find(("severities",))
    if node is None or not isinstance(node.value, dict):
        return
    for name in get_args(SeverityName):
        if name not in node.value:
            allowed = "all four severities"
            yield Finding(("severities", name), "nothing", allowed, mark=tree.locate(("severities",)))


def _text(tree: Node, keys: Keys) -> str | None:
    node = tree.find(keys)
    return node.value if node and isinstance(node.value, str) else None
