"""The table of all actions, written from the catalogue, for docs/runbooks.md and the terminal. Describes; judges nothing.

`python -m hmsdr.runbook.reference docs/runbooks.md` writes it into the document, between two markers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from hmsdr.playbook.reference import default_of, type_name
from hmsdr.runbook.action import Names, UndoableAction
from hmsdr.runbook.catalogue import Catalogue, installed

BEGIN = "<!-- actions: begin; written by `python -m hmsdr.runbook.reference docs/runbooks.md` -->"
END = "<!-- actions: end -->"


def actions(catalogue: Catalogue) -> Iterator[tuple[str, str, bool, dict[str, str]]]:
    """Name, summary, whether a rollback can take it back, and the arguments with what they may be, by name."""
    for action in sorted(catalogue, key=lambda each: each.name):
        arguments = {name: _argument(info) for name, info in action.Args.model_fields.items()}
        yield action.name, action.summary, isinstance(action, UndoableAction), arguments


def _argument(info: FieldInfo) -> str:
    kind = next((mark.kind for mark in info.metadata if isinstance(mark, Names)), None)
    text = kind or type_name(info.rebuild_annotation())
    return text if info.is_required() else f"{text}, {default_of(info)} if not given"


def actions_table() -> str:
    """The actions as a Markdown table between the markers."""
    lines = [BEGIN, "", "| action | what it does | arguments | undone by a rollback |", "|---|---|---|---|"]
    for name, summary, undone, arguments in actions(installed()):
        told = "; ".join(f"`{argument}`: {kind}" for argument, kind in arguments.items())
        lines.append(f"| `{name}` | {summary} | {told} | {'yes' if undone else ''} |")
    return "\n".join([*lines, "", END])


def rewritten(document: str) -> str:
    """`document` with the table between its markers written afresh."""
    before, rest = document.split(BEGIN)
    return f"{before}{actions_table()}{rest.split(END)[1]}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(rewritten(target.read_text(encoding="utf-8")), encoding="utf-8")
