"""Lint of a playbook: what parses and still would not work, or not be safe. Apart from everything that uses it.

Reads the frozen model only; what it finds names the place, and `load_checked` adds file and line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hmsdr.check import playbook_figures, playbook_people, playbook_topology
from hmsdr.playbook.findings import Finding, Keys, PlaybookError
from hmsdr.playbook.load import load_tree
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.names import is_blank

__all__ = ["Checked", "Finding", "lint", "load_checked"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A playbook without errors, and what should be looked at all the same."""

    file: Path
    playbook: Playbook
    warnings: tuple[Finding, ...]


def lint(playbook: Playbook) -> list[Finding]:
    """Everything that is wrong (errors) or risky (warnings), errors first; empty when all is well."""
    findings = [
        *_empty_texts(playbook, ()),
        *playbook_topology.check(playbook),
        *playbook_figures.check(playbook),
        *playbook_people.check(playbook),
    ]
    return sorted(findings, key=lambda finding: finding.level)


def _empty_texts(value: Any, keys: Keys) -> Iterator[Finding]:
    """Blank keys and items of lists; the model itself refuses blank fields."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _empty_texts(getattr(value, name), (*keys, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _empty_texts(item, (*keys, name))
            if is_blank(name):
                yield Finding((*keys, name), "an empty name", "a name")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _empty_texts(item, (*keys, index))
    elif isinstance(value, str) and is_blank(value) and isinstance(keys[-1], int):
        yield Finding(keys, "an empty text", "a text")


def load_checked(
    path: Path | str,
    *,
    overlay: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    secrets: bool = True,
) -> Checked:
    """Load a playbook and lint it; arguments as of `hmsdr.playbook.load.load`.

    Raises:
        PlaybookError: it cannot be read, or lint found errors; its findings include the warnings then.
    """
    loaded = load_tree(path, overlay=overlay, environ=environ, secrets=secrets)
    findings = [replace(finding, mark=loaded.tree.locate(finding.keys)) for finding in lint(loaded.playbook)]
    if any(finding.level == "error" for finding in findings):
        raise PlaybookError(loaded.file, findings)
    return Checked(loaded.file, loaded.playbook, tuple(findings))
