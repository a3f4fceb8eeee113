"""Runbooks as data: what a YAML file may say, and reading it with errors that name file, line and remedy.

Values are not resolved here (see `hmsdr.runbook.freeze`), and nothing is executed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError

from hmsdr.errors import RefusedError
from hmsdr.playbook.base import Duration, Model
from hmsdr.playbook.document import Kind, Node, read_document
from hmsdr.playbook.explain import explain
from hmsdr.playbook.findings import Finding, Keys, PlaybookError, nearest
from hmsdr.runbook.plan import Approval, Mode, OnFailure, Rollback

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _named(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("small letters and digits, with single hyphens between them: dns-update")
    return text


Name = Annotated[str, AfterValidator(_named)]
SHIPPED = (
    "regional-failover",
    "database-failover",
    "database-follow",
    "hand-back",
    "cache-failover",
    "service-failover",
    "region-recovery",
    "network-recovery",
    "switchback",
)


class RunbookError(PlaybookError):
    """A runbook cannot be used: findings as in a playbook's file."""

    def __init__(self, file: Path, findings: Sequence[Finding]) -> None:
        super().__init__(file, findings)
        self.doing = f"reading the runbook {file}"
        self.remedy = "Mend this, then try again."


class StepDefinition(Model):
    """One step as written."""

    step: Name
    title: str
    action: str
    with_: dict[str, Any] = Field(alias="with", default_factory=dict)
    when: Mode | None = None
    """Only in plans of this mode; None means always."""
    for_each: Literal["service"] | None = None
    """Becomes one step for each service of the playbook, together; ``${service}`` is its name."""
    deadline: Duration
    attempts: Annotated[int, Field(ge=1, le=1000)] = 1
    backoff: Annotated[Duration, Field(validate_default=True)] = "200ms"  # type: ignore[assignment]
    on_failure: OnFailure = "stop"
    approval: Approval | None = None
    point_of_no_return: bool = False
    settles: bool = False
    """Behind it the run may be stopped and taken back again, up to here, although a point of no return lies before it."""


class Together(Model):
    """Steps that run in parallel."""

    together: Annotated[tuple[StepDefinition, ...], Field(min_length=1)]


def _kind(item: Any) -> str:
    """Whether an item of a stage is meant as a group or as a step: what is wrong with it is said of that alone."""
    group = isinstance(item, Together) or (isinstance(item, dict) and "together" in item)
    return "(together)" if group else "(step)"


_TAGS = frozenset({"(step)", "(together)"})
Item = Annotated[
    Annotated[StepDefinition, Tag("(step)")] | Annotated[Together, Tag("(together)")], Discriminator(_kind)
]


class StageDefinition(Model):
    """A stage as written."""

    stage: Name
    title: str
    after: tuple[Name, ...] | None = None
    """Stages to wait for; None means the one written before."""
    for_each: Literal["share"] | None = None
    """Becomes one stage for each share of the playbook's switching back that is still to come, one after the other; ``${share}`` is
    the home region's share in per cent, ``${before}`` the one before it."""
    steps: Annotated[tuple[Item, ...], Field(min_length=1)]


class RunbookDefinition(Model):
    """A runbook as written."""

    runbook: Name
    title: str
    purpose: str
    parameters: dict[Name, Literal["region", "service", "words"]]
    """``words`` are a person's, and may be left out: then they are empty."""
    stages: Annotated[tuple[StageDefinition, ...], Field(min_length=1)]
    rollback: Rollback | None = None


class Runbook:
    """A runbook and where each part of it stands in its file."""

    def __init__(self, path: Path, node: Node, definition: RunbookDefinition) -> None:
        self.path = path
        self._node = node
        self.definition = definition

    def finding(self, keys: Keys, found: str, allowed: str, remedy: str = "") -> Finding:
        """A finding at `keys` with its line."""
        return Finding(keys, found, allowed, remedy, mark=self._node.locate(keys))

    def mentions(self, *names: str) -> bool:
        """Whether any of its texts or arguments refers to one of these values."""
        text = self.definition.model_dump_json(by_alias=True)
        return any(f"${{{name}}}" in text for name in names)

    def refuse(self, findings: list[Finding]) -> None:
        """Raise all of `findings`, if there are any."""
        if findings:
            raise RunbookError(self.path, findings)

    def steps(self) -> Iterator[tuple[Keys, StageDefinition, StepDefinition]]:
        """Every step with its place in the file."""
        for number, stage in enumerate(self.definition.stages):
            for index, item in enumerate(stage.steps):
                keys: Keys = ("stages", number, "steps", index)
                if isinstance(item, Together):
                    for inner, step in enumerate(item.together):
                        yield (*keys, "together", inner), stage, step
                else:
                    yield keys, stage, item


@cache
def shipped_directory() -> Path:
    """Where the shipped runbooks lie."""
    return Path(str(files("hmsdr.runbook") / "data"))


def _meant(path: Path) -> str:
    """The runbook that was probably meant: a shipped one, or a file beside `path`."""
    known = {name: name for name in SHIPPED}
    try:
        beside = [each for each in path.parent.iterdir() if each.suffix in (".yaml", ".yml") and each != path]
    except (OSError, ValueError):
        beside = []
    known |= {each.stem: str(each) for each in beside}
    matches = difflib.get_close_matches(path.stem[:100], known, n=1, cutoff=0.5)
    return f"Did you mean '{known[matches[0]]}'?" if matches else ""


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


KIND = Kind(
    "a runbook",
    f"or one of the shipped runbooks: {', '.join(SHIPPED)}",
    "a mapping of a runbook's keys: runbook, title, purpose, parameters, stages",
    "Start from a shipped one: `hmsdr runbook list`; docs/runbooks.md tells the keys.",
    _meant,
)


def find(name: str) -> Path:
    """The file of a shipped runbook, or `name` itself when it is a path.

    Raises:
        RefusedError: no such runbook.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    if name not in SHIPPED:
        hint = nearest(name, SHIPPED)
        if name and _is_there(name):
            hint = f"For the file or directory of that name, write ./{name}."
        raise RefusedError(
            f"looking up runbook {name!r}",
            "there is none of that name",
            f"Known: {', '.join(SHIPPED)}; or a file, with a / or .yaml in its name. {hint}".rstrip(),
        )
    return shipped_directory() / f"{name}.yaml"


def load(path: Path) -> Runbook:
    """Read a runbook and check its form; a file that has not changed since is not read again.

    Raises:
        RunbookError: not YAML, or not a runbook; every finding at once, with its line.
    """
    try:
        seen = path.stat()
    except OSError:
        return _load(path)  # it says what is wrong
    return _known(path, seen.st_mtime_ns, seen.st_size, seen.st_ino)


@lru_cache(maxsize=32)
def _known(path: Path, *_: int) -> Runbook:
    return _load(path)


def _load(path: Path) -> Runbook:
    try:
        node = read_document(path, KIND)
    except PlaybookError as error:
        raise RunbookError(path, error.findings) from error
    try:
        definition = RunbookDefinition.model_validate(_plain(node))
    except ValidationError as error:
        raise RunbookError(path, explain(error, node, RunbookDefinition, tags=_TAGS)) from error
    runbook = Runbook(path, node, definition)
    runbook.refuse(_structure(runbook))
    return runbook


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [_plain(item) for item in node.value]
    return node.value


def _structure(runbook: Runbook) -> list[Finding]:
    """Stages and steps that are named twice, or wait for a stage that is not there or comes later."""
    findings = []
    seen: list[str] = []
    for number, stage in enumerate(runbook.definition.stages):
        keys: Keys = ("stages", number)
        if stage.stage in seen:
            findings.append(
                runbook.finding((*keys, "stage"), f"a second stage {stage.stage!r}", "names used once")
            )
        for index, name in enumerate(stage.after or ()):
            if name not in seen:
                findings.append(
                    runbook.finding(
                        (*keys, "after", index),
                        f"stage {name!r}",
                        f"a stage written before it: {', '.join(seen) or 'none'}",
                        nearest(name, seen),
                    )
                )
        seen.append(stage.stage)
    used: set[str] = set()
    for keys, stage, step in runbook.steps():
        key = f"{stage.stage}/{step.step}"
        if key in used:
            findings.append(
                runbook.finding((*keys, "step"), f"a second step {key!r}", "names used once in a stage")
            )
        used.add(key)
    return findings
