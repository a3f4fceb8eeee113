"""Schema and documentation cannot drift from the models."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from books import SHIPPED_TEXT

from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load
from hmsdr.playbook.reference import rewritten, settings
from hmsdr.playbook.schema import SCHEMA_FILE, json_schema, schema_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "playbook.md"
VALIDATOR: Any = importlib.import_module("jsonschema").Draft202012Validator


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run python -m hmsdr.playbook.schema"


def test_the_shipped_playbook_names_its_schema() -> None:
    first = SHIPPED_TEXT.splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE.name}"
    assert SCHEMA_FILE.parent == SHIPPED["hms"].parent


def test_the_schema_is_one_and_takes_the_shipped_playbook() -> None:
    VALIDATOR.check_schema(json_schema())
    VALIDATOR(json_schema()).validate(yaml.safe_load(SHIPPED_TEXT))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("extends: hms", True),
        ("extends: hms\nregions: {us-east-1: {postgres: {password: null, port: 5433}}}", True),
        ("extends: hms\nregions: {us-east-1: null}", True),
        ("name: X", False),
        ("extends: hms\nregoins: {}", False),
        ("extends: hms\nregions: {us-east-1: {postgres: {prot: 5433}}}", False),
        ("extends: hms\nregions: {us-east-1: {postgres: {password: literal}}}", False),
        ("extends: hms\ncadence: {update: 15}", False),
    ],
)
def test_the_schema_knows_parts(text: str, valid: bool) -> None:
    assert VALIDATOR(json_schema()).is_valid(yaml.safe_load(text)) is valid


def test_every_setting_has_a_meaning() -> None:
    assert [path for path, _, _, meaning in settings() if not meaning] == []


def test_the_table_in_the_guide_is_current() -> None:
    text = DOCUMENT.read_text()
    assert rewritten(text) == text, "run python -m hmsdr.playbook.reference docs/playbook.md"


def test_whole_playbooks_of_the_guide_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    whole = [block for block in blocks if "extends: hms" in block]
    assert len(whole) == 2
    for index, block in enumerate(whole):
        path = tmp_path / f"{index}.yaml"
        path.write_text(block)
        load(path, environ={}, secrets=False)


def test_the_schema_is_json() -> None:
    assert json.loads(schema_text()) == json_schema()
