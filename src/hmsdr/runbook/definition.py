"""Runbooks as data: what a YAML file may say, and reading it with errors that name file, line and remedy.

Values are not resolved here (see `hmsdr.runbook.freeze`), and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hmsdr.errors import RefusedError
from hmsdr.playbook.base import Duration, Model
from hmsdr.playbook.document import Node, read_document
from hmsdr.playbook.findings import Finding, Keys, PlaybookError, nearest
from hmsdr.runbook.plan import Approval, Mode, OnFailure, Rollback

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
SHIPPED = ("regional-failover", "database-failover", "cache-failover", "service-failover")


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


class Together(Model):
    """Steps that run in parallel."""

    together: Annotated[tuple[StepDefinition, ...], Field(min_length=1)]


class StageDefinition(Model):
    """A stage as written."""

    stage: Name
    title: str
    after: tuple[Name, ...] | None = None
    """Stages to wait for; None means the one written before."""
    steps: Annotated[tuple[StepDefinition | Together, ...], Field(min_length=1)]


class RunbookDefinition(Model):
    """A runbook as written."""

    runbook: Name
    title: str
    purpose: str
    parameters: dict[Name, Literal["region", "service"]]
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

    def refuse(self, findings: list[Finding]) -> None:
        """Raise all of `findings`, if there are any."""
        if findings:
            raise PlaybookError(self.path, findings)

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


def find(name: str) -> Path:
    """The file of a shipped runbook, or `name` itself when it is a path.

    Raises:
        RefusedError: no such runbook.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    path = shipped_directory() / f"{name}.yaml"
    if not path.exists():
        raise RefusedError(
            f"looking up runbook {name!r}",
            "there is none",
            nearest(name, SHIPPED) or f"Known: {', '.join(SHIPPED)}",
        )
    return path


def load(path: Path) -> Runbook:
    """Read a runbook and check its form.

    Raises:
        PlaybookError: not YAML, or not a runbook; every finding at once, with its line.
    """
    node = read_document(path)
    try:
        definition = RunbookDefinition.model_validate(_plain(node))
    except ValidationError as error:
        findings = [_explain(node, item) for item in error.errors()]
        raise PlaybookError(path, findings) from error
    runbook = Runbook(path, node, definition)
    runbook.refuse(_structure(runbook))
    return runbook


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [_plain(item) for item in node.value]
    return node.value


def _explain(node: Node, error: Any) -> Finding:
    # pydantic names union members ("StepDefinition") in the location; those are not places in the file.
    keys: Keys = tuple(key for key in error["loc"] if not (isinstance(key, str) and key[:1].isupper()))
    found = repr(error["input"]) if not isinstance(error["input"], dict | list) else "this part"
    if error["type"] == "extra_forbidden":
        known = {
            name for model in (StepDefinition, StageDefinition, RunbookDefinition) for name in _names(model)
        }
        return Finding(
            keys,
            f"unknown key {keys[-1]!r}",
            "a key of a runbook",
            nearest(str(keys[-1]), known),
            mark=node.locate(keys),
        )
    return Finding(keys, found, error["msg"], mark=node.locate(keys))


def _names(model: type[Model]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


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
