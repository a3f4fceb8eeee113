"""Playbooks for tests: the shipped one with its secrets at hand, and small files laid over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hmsdr.playbook.findings import Finding, PlaybookError
from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load

SECRETS = {
    "HMSDR_POSTGRES_PASSWORD": "pg-Geheimnis-4711",
    "HMSDR_AGENT_KEY_US_EAST_1": "agent-Geheimnis-east",
    "HMSDR_AGENT_KEY_US_WEST_2": "agent-Geheimnis-west",
}
SHIPPED_TEXT = SHIPPED["hms"].read_text()


def write(directory: Path, text: str, name: str = "playbook.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refused(path: Path) -> tuple[Finding, ...]:
    """The findings with which `path` is refused."""
    with pytest.raises(PlaybookError) as caught:
        load(path, environ=SECRETS)
    assert caught.value.findings
    return caught.value.findings


def edited(directory: Path, edit: Callable[[dict[str, object]], None]) -> Path:
    """The shipped playbook, after `edit` changed its plain values."""
    values = yaml.safe_load(SHIPPED_TEXT)
    edit(values)
    return write(directory, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
