"""Pydantic's validation errors as findings that name place, value, what is allowed, and the nearest valid name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from hmsdr.playbook import fields
from hmsdr.playbook.document import Node
from hmsdr.playbook.findings import Finding, Keys, nearest, one_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST = 60
_USERINFO = re.compile(r"//[^/@\s]*@")
"""User and password of a URL: it should not be there, and what is wrong with it is said without it."""
_SHAPES = {"model_type": "a mapping", "dict_type": "a mapping", "tuple_type": "a list", "list_type": "a list"}
_NULL = "null removes a key of the playbook that is extended; there is none here."


def describe(node: Node | None) -> str:
    """What stands at a place, short and printable. A reference is shown as it is written, never its value."""
    value = node.value if node else None
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = repr(_USERINFO.sub("//…@", value) if isinstance(value, str) else value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(shown)} characters)"


def explain(
    error: ValidationError, tree: Node, model: type[BaseModel], *, tags: frozenset[str] = frozenset()
) -> list[Finding]:
    """All findings of `error`, which came from validating the values of `tree` as `model`.

    Args:
        error: of pydantic.
        tree: what was read.
        model: what it should have been.
        tags: names of the members of unions, which pydantic puts behind an index and which stand nowhere in a file.
    """
    details = error.errors(include_url=False, include_input=False)
    places = [detail["loc"] for detail in details]
    return [
        _finding(detail, _without(detail["loc"], tags), tree, model)
        for detail in details
        # A list whose every item is wrong is "too short" as well: that would be said of something that is not.
        if not (detail["type"] == "too_short" and any(_below(place, detail["loc"]) for place in places))
    ]


def _without(keys: tuple[int | str, ...], tags: frozenset[str]) -> tuple[int | str, ...]:
    behind_index = (isinstance(before, int) for before in ("", *keys))
    return tuple(
        key for key, indexed in zip(keys, behind_index, strict=False) if not (indexed and key in tags)
    )


def _below(place: tuple[int | str, ...], of: tuple[int | str, ...]) -> bool:
    return len(place) > len(of) and place[: len(of)] == of


def _finding(detail: ErrorDetails, keys: Keys, tree: Node, model: type[BaseModel]) -> Finding:
    of_key = bool(keys) and keys[-1] == "[key]"
    keys = keys[:-1] if of_key else keys
    node = tree.find(keys)
    mark = node.mark if node and not of_key else tree.locate(keys)
    if detail["type"] == "extra_forbidden":
        return _unknown(keys, detail["loc"], tree, model)
    if detail["type"] == "missing":
        wanted = fields.at(model, detail["loc"][:-1])
        owner = fields.model_of(wanted)
        meaning = _meaning(owner, str(keys[-1])) if owner else ""
        return Finding(keys, "nothing", "a value; it is required", meaning, mark=mark)
    found = f"the key {keys[-1]!r}" if of_key else describe(node)
    if detail["type"] == "literal_error":
        names = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        word = str(keys[-1]) if of_key else str(node.value if node else "")
        if names:
            return Finding(keys, found, one_of(names), nearest(word, names), mark=mark)
    if detail["type"] == "too_short":
        least = detail.get("ctx", {}).get("min_length", 1)
        return Finding(keys, "too few", f"{least} or more", mark=mark)
    allowed = _SHAPES.get(detail["type"]) or re.sub(
        r"^(Input should be |Value error, |String should )", "", detail["msg"]
    )
    remedy = _NULL if node is not None and node.value is None else _remedy(detail, node, model)
    return Finding(keys, found, allowed, remedy, mark=mark)


def _remedy(detail: ErrorDetails, node: Node | None, model: type[BaseModel]) -> str:
    """What the model says about a value of the wrong form; the nearest right one, unless it came by a reference."""
    context = detail.get("ctx", {})
    if remedy := context.get("remedy"):
        return str(remedy)
    written = node.value if node else None
    if (hint := context.get("hint")) and isinstance(written, str) and "${" not in written:
        return f"Did you mean {hint!r}?"
    if detail["type"] == "string_pattern_mismatch" and detail["loc"]:
        owner = fields.model_of(fields.at(model, detail["loc"][:-1]))
        return _meaning(owner, str(detail["loc"][-1])) if owner else ""
    return ""


def _unknown(keys: Keys, place: Keys, tree: Node, model: type[BaseModel]) -> Finding:
    owner = fields.model_of(fields.at(model, place[:-1]))
    names = fields.names_of(owner) if owner else ()
    name = str(keys[-1])
    there = tree.find(keys[:-1])
    free = [known for known in names if there is None or known not in there.entries()]
    hint = nearest(name, free) or nearest(name, names)
    return Finding(keys, f"the unknown key {name!r}", one_of(names), hint, mark=tree.locate(keys))


def _meaning(model: type[BaseModel], name: str) -> str:
    for field, info in model.model_fields.items():
        if (info.alias or field) == name and info.description:
            return f"{name}: {' '.join(info.description.split())}"
    return ""
