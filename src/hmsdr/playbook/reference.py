"""The table of all settings, written from the models, for docs/playbook.md. Describes; judges nothing.

`python -m hmsdr.playbook.reference docs/playbook.md` writes it into the document, between two markers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hmsdr.playbook import fields
from hmsdr.playbook.model import Playbook

BEGIN = "<!-- settings: begin; written by `python -m hmsdr.playbook.reference docs/playbook.md` -->"
END = "<!-- settings: end -->"
_TYPES = {
    timedelta: "duration",
    datetime: "local date and time",
    time: "time of day",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
}


def settings() -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and meaning of every setting, in the order of the models."""
    yield from _of_model(Playbook, "")


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        annotation = info.rebuild_annotation()
        below, suffix = _below(annotation)
        if below is None:
            yield path, type_name(annotation), default_of(info), " ".join((info.description or "").split())
        else:
            yield from _of_model(below, f"{path}{suffix}.")


def _below(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model whose fields stand below a setting, and how the path goes on to them."""
    if (model := fields.model_of(annotation)) is not None:
        return model, ""
    for kind, _ in fields.alternatives(annotation):
        if get_origin(kind) is dict:
            model, suffix = _below(get_args(kind)[1])
            return model, f".NAME{suffix}"
        if get_origin(kind) is tuple:
            model, suffix = _below(get_args(kind)[0])
            return model, f"[]{suffix}"
    return None, ""


def type_name(annotation: Any) -> str:
    """The type in words of a reader: ``whole number``, ``list: text``."""
    if fields.is_secret(annotation):
        return "secret"
    if fields.is_path(annotation):
        return "path"
    kind = next(kind for kind, _ in fields.alternatives(annotation) if kind is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list: {type_name(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"map: {type_name(get_args(kind)[1])}"
    return _TYPES[kind]


def default_of(info: FieldInfo) -> str:
    """The default as a reader would write it, or that there is none."""
    if info.is_required():
        return "required"
    value = info.default
    if value is PydanticUndefined or value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "empty" if value in ((), "") else f"`{value}`"


def settings_table() -> str:
    """The settings as a Markdown table between the markers."""
    rows = list(settings())
    lines = [BEGIN, "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{path}` | {kind} | {default} | {meaning} |" for path, kind, default, meaning in rows]
    return "\n".join([*lines, "", END])


def rewritten(document: str) -> str:
    """`document` with the table between its markers written afresh."""
    before, rest = document.split(BEGIN)
    return f"{before}{settings_table()}{rest.split(END)[1]}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(rewritten(target.read_text(encoding="utf-8")), encoding="utf-8")
