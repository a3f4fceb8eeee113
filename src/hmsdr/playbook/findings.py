"""What is wrong with a playbook, said so that it can be mended. Data and its rendering only; finds nothing itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hmsdr.errors import RefusedError

Keys = tuple[str | int, ...]
"""Where a value stands in a playbook: mapping keys and list indices from the top."""


def format_keys(keys: Keys) -> str:
    """``regions.us-east-1.postgres.port``, ``people[2].phone``; control characters are shown escaped."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = key if key.isprintable() else repr(key)
            text += f".{shown}" if text else shown
    return text


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (error) or risky (warning).

    Attributes:
        keys: where in the playbook; empty means the playbook as a whole.
        found: what stands there. Never a secret's value.
        allowed: what may stand there.
        remedy: what the reader can do; empty when `allowed` says it all.
        level: an error refuses the playbook, a warning does not.
        mark: where in which file, when that is known.
    """

    keys: Keys
    found: str
    allowed: str
    remedy: str = ""
    level: Literal["error", "warning"] = "error"
    mark: Mark | None = None

    @property
    def path(self) -> str:
        """The keys as one dotted text."""
        return format_keys(self.keys)

    def __str__(self) -> str:
        head = ": ".join(part for part in (str(self.mark) if self.mark else "", self.path) if part)
        text = f"{head}: found {self.found}; allowed: {self.allowed}" if head else f"found {self.found}"
        if self.level == "warning":
            text = f"warning: {text}"
        return f"{text}. {self.remedy}" if self.remedy else f"{text}."

    def as_json(self) -> dict[str, str | int | None]:
        """The finding as JSON values, for machines."""
        return {
            "level": self.level,
            "file": str(self.mark.file) if self.mark else None,
            "line": self.mark.line if self.mark else None,
            "column": self.mark.column if self.mark else None,
            "path": self.path,
            "found": self.found,
            "allowed": self.allowed,
            "remedy": self.remedy,
        }


class PlaybookError(RefusedError):
    """A playbook cannot be used. Carries everything that was found, in the order of the file."""

    def __init__(self, file: Path, findings: Sequence[Finding]) -> None:
        self.file = file
        self.findings = tuple(sorted(findings, key=_order))
        count = len(self.findings)
        super().__init__(
            f"reading the playbook {file}",
            "1 problem" if count == 1 else f"{count} problems",
            f"Mend this, then run `hmsdr validate {file}`.",
        )

    def __str__(self) -> str:
        return "\n".join([f"{self.doing}: {self.found}", *map(str, self.findings), self.remedy])


def _order(finding: Finding) -> tuple[str, int, int, str]:
    mark = finding.mark
    return (str(mark.file), mark.line, mark.column, finding.path) if mark else ("", 0, 0, finding.path)


def nearest(word: str, names: Iterable[str]) -> str:
    """``Did you mean 'us-east-1'?`` for the most similar of `names`, or nothing when none is similar."""
    matches = difflib.get_close_matches(word[:100], list(names), n=1, cutoff=0.5)
    return f"Did you mean '{matches[0]}'?" if matches else ""


def one_of(names: Iterable[str]) -> str:
    """``one of a, b, c``."""
    listed = sorted(names)
    return f"one of {', '.join(listed)}" if listed else "nothing (none is defined)"
