"""The playbook's JSON Schema, for editors. Describes; the loader alone judges (it also knows references)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.model import Playbook

SCHEMA_FILE = SHIPPED["hms"].with_name("playbook.schema.json")
"""The committed copy, beside the shipped playbook."""

_PART = "Part"
_EXTENDS = {
    "description": "The playbook that this one is laid over: hms (shipped), or a path such as ./other.yaml.",
    "type": "string",
    "examples": ["hms"],
}


def json_schema() -> dict[str, Any]:
    """The schema: a whole playbook, or, where it says `extends`, any part of one."""
    whole: dict[str, Any] = _untitled(Playbook.model_json_schema(by_alias=True))
    definitions: dict[str, Any] = whole.pop("$defs")
    definitions["Playbook"] = whole
    parts = {f"{name}{_PART}": _part(schema) for name, schema in definitions.items()}
    parts[f"Playbook{_PART}"]["properties"]["extends"] = _EXTENDS
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hmsdr playbook",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": f"#/$defs/Playbook{_PART}"},
        "else": {"$ref": "#/$defs/Playbook"},
        "$defs": {**definitions, **parts},
    }


def schema_text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write(path: Path = SCHEMA_FILE) -> None:
    """Write the committed copy afresh."""
    path.write_text(schema_text(), encoding="utf-8")


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes from names; they say nothing new."""
    if isinstance(value, dict):
        return {
            key: _untitled(item)
            for key, item in value.items()
            if not (key == "title" and isinstance(item, str))
        }
    return [_untitled(item) for item in value] if isinstance(value, list) else value


def _part(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a part: nothing is required, and null may remove any key."""
    part: dict[str, Any] = _pointing_at_parts(copy.deepcopy(schema))
    part.pop("required", None)
    if "properties" in part:
        part["properties"] = {name: _or_null(value) for name, value in part["properties"].items()}
    return part


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in kept}
    rest.pop("minProperties", None)
    if isinstance(rest.get("additionalProperties"), dict):
        rest["additionalProperties"] = {"anyOf": [rest["additionalProperties"], {"type": "null"}]}
    if isinstance(rest.get("patternProperties"), dict):
        rest["patternProperties"] = {
            pattern: {"anyOf": [value, {"type": "null"}]}
            for pattern, value in rest["patternProperties"].items()
        }
    rest.pop("maxProperties", None)
    return {**kept, "anyOf": [rest, {"type": "null"}]}


def _pointing_at_parts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: f"{item}{_PART}" if key == "$ref" else _pointing_at_parts(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_pointing_at_parts(item) for item in value]
    return value


if __name__ == "__main__":
    write()
