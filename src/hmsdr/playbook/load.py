"""From a YAML file to a `Playbook`, or to everything that is wrong with it at once. Decides nothing, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hmsdr.playbook import references
from hmsdr.playbook.document import Node
from hmsdr.playbook.explain import explain
from hmsdr.playbook.findings import Finding, Keys, PlaybookError
from hmsdr.playbook.layers import compose, resolve_name
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.values import Values


@dataclass(frozen=True, slots=True)
class Loaded:
    """A playbook, and where each of its values was written."""

    file: Path
    playbook: Playbook
    tree: Node


def load(
    path: Path | str,
    *,
    overlay: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    secrets: bool = True,
) -> Playbook:
    """Read a playbook.

    Args:
        path: its file, or ``hms`` for the shipped one.
        overlay: a file to lay over it, without ``extends``.
        environ: where ``${env:NAME}`` looks.
        secrets: False leaves every secret empty and does not look for it: for validation, not for work.

    Raises:
        PlaybookError: with all findings.
    """
    return load_tree(path, overlay=overlay, environ=environ, secrets=secrets).playbook


def load_tree(
    path: Path | str,
    *,
    overlay: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    secrets: bool = True,
) -> Loaded:
    """As `load`, keeping the places, so that later findings can name a file and a line."""
    file = resolve_name(path)
    tree = compose(file, overlay)
    values = Values(environ, secrets=secrets)
    plain = values.of(tree, Playbook)
    findings = values.findings
    playbook: Playbook | None = None
    try:
        playbook = Playbook.model_validate(plain)
    except ValidationError as error:
        findings = [*findings, *explain(error, tree, Playbook)]
    findings = [*findings, *references.check(tree)]
    if playbook is None or findings:
        raise PlaybookError(file, _first_of_each(findings))
    return Loaded(file, playbook, tree)


def raw(path: Path | str, *, overlay: Path | None = None) -> dict[str, Any]:
    """The merged playbook as plain values, references as they are written: for showing and for writing overlays.

    Raises:
        PlaybookError: a file cannot be read. The content is not judged.
    """
    plain: dict[str, Any] = _plain(compose(resolve_name(path), overlay))
    return plain


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [_plain(item) for item in node.value]
    return node.value


def _first_of_each(findings: list[Finding]) -> list[Finding]:
    """The first finding of each place: a reference that cannot be resolved is not also a malformed value."""
    unique: dict[Keys, Finding] = {}
    for finding in findings:
        unique.setdefault(finding.keys, finding)
    return list(unique.values())
