"""Makes a runbook into a frozen plan: parameters checked against the topology, every reference resolved.

Pure: the same runbook, playbook, parameters, mode and epoch always give the same plan. What cannot be
resolved is refused here, before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hmsdr.errors import RefusedError
from hmsdr.playbook.base import Model
from hmsdr.playbook.findings import Finding, Keys, nearest
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Names
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.definition import Runbook, StageDefinition, StepDefinition, Together
from hmsdr.runbook.plan import Mode, Plan, PlannedStage, PlannedStep, Rollback, canonical_hash

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


def freeze(
    runbook: Runbook,
    playbook: Playbook,
    catalogue: Catalogue,
    parameters: Mapping[str, str],
    *,
    mode: Mode,
    epoch: int,
    users: str | None = None,
    share: int = 0,
) -> Plan:
    """The plan.

    Args:
        runbook: what is to be frozen.
        playbook: the hospital's.
        catalogue: the actions there are.
        parameters: by name.
        mode: which of its steps are meant.
        epoch: the present one.
        users: the region that users are sent to, ``${users}``; None when that is not known: then the home region.
        share: of users, in per cent, who are sent to the region ``to`` already: what has been reached is not gone through again.

    Raises:
        RefusedError: a parameter is missing, unknown, or names no region or service of the playbook.
        RunbookError: a step names an unknown action, argument or reference; with file and line.
    """
    definition = runbook.definition
    _check_parameters(runbook, playbook, parameters)
    where = _regions(playbook, parameters, users or playbook.home_region)
    if users is not None and runbook.mentions("role"):
        _refuse_without_pods(runbook, playbook, parameters, where)
    values: dict[str, Any] = {
        **where,
        **{name: "" for name, kind in definition.parameters.items() if kind == "words"},
        **parameters,
        "epoch": epoch,
        "next_epoch": epoch + 1,
        "mode": mode,
    }
    findings: list[Finding] = []
    resolver = _Resolver(runbook, playbook, catalogue, values=values, mode=mode, findings=findings)
    title = resolver.text(("title",), definition.title)
    purpose = resolver.text(("purpose",), definition.purpose)
    stages = resolver.stages(_shares(playbook, share))
    rollback = definition.rollback and Rollback(
        runbook=definition.rollback.runbook,
        parameters={
            key: resolver.text(("rollback", "parameters", key), text)
            for key, text in definition.rollback.parameters.items()
        },
    )
    runbook.refuse(findings)
    return Plan(
        runbook=definition.runbook,
        title=title,
        purpose=purpose,
        mode=mode,
        parameters=dict(parameters),
        epoch=epoch,
        playbook=playbook.name if playbook.overlay is None else f"{playbook.name} + {playbook.overlay}",
        playbook_hash=playbook_hash(playbook),
        stages=tuple(_without_empty(stages)),
        rollback=rollback,
    )


def _shares(playbook: Playbook, reached: int) -> list[tuple[int, int]]:
    """The shares that are still to come, each with the one before it; the last one is there to be watched in any case."""
    shares = playbook.procedures.switchback.home_shares
    wanted = [each for each in shares if each > reached] or [shares[-1]]
    return list(zip(wanted, [reached, *wanted], strict=False))


def _regions(playbook: Playbook, parameters: Mapping[str, str], users: str) -> dict[str, str]:
    """The regions that a runbook may name without being given them: where users are, and each time the other one.

    Beside a parameter ``region``, ``role`` is what it is to users: active or standby.
    """
    found = {"users": users, "idle": playbook.other_region(users)}
    if "region" in parameters:
        found["other"] = playbook.other_region(parameters["region"])
        found["role"] = "active" if parameters["region"] == users else "standby"
    return found


def _refuse_without_pods(
    runbook: Runbook, playbook: Playbook, parameters: Mapping[str, str], where: Mapping[str, str]
) -> None:
    """A service that a standby region does not run cannot be brought to its strength there.

    Raises:
        RefusedError: the parameters name such a service and region.
    """
    service = playbook.services.get(parameters.get("service", ""))
    if service is not None and where.get("role") == "standby" and service.replicas.standby == 0:
        raise RefusedError(
            f"planning {runbook.definition.runbook}",
            f"users are sent to {where['users']}, and a standby region runs no pod of {parameters['service']}",
            f"Name region={where['users']}, or give it pods under `services.{parameters['service']}.replicas.standby`",
        )


def _without_empty(stages: list[PlannedStage]) -> Iterator[PlannedStage]:
    """The stages that have a step in this mode. Nobody waits for an empty one.

    Who would then wait for nothing waits for what the empty ones waited for.
    """
    instead: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        after = tuple(name for name in stage.after if name not in instead)
        if not after:
            after = tuple(dict.fromkeys(name for wanted in stage.after for name in instead[wanted]))
        if stage.groups:
            yield stage.model_copy(update={"after": after})
        else:
            instead[stage.name] = after


def playbook_hash(playbook: Playbook) -> str:
    """SHA-256 of the playbook; secrets count as stars, so that the hash tells nothing of them."""
    return canonical_hash(playbook.model_dump(mode="json"))


def _check_parameters(runbook: Runbook, playbook: Playbook, parameters: Mapping[str, str]) -> None:
    wanted = runbook.definition.parameters
    doing = f"planning {runbook.definition.runbook}"
    for name in parameters.keys() - wanted.keys():
        raise RefusedError(doing, f"unknown parameter {name!r}", f"It takes: {', '.join(wanted)}")
    for name, kind in wanted.items():
        if kind == "words":
            continue
        if name not in parameters:
            raise RefusedError(doing, f"the parameter {name!r} is missing", f"Give the {kind}'s name")
        known = playbook.regions if kind == "region" else playbook.services
        if parameters[name] not in known:
            hint = nearest(parameters[name], known)
            raise RefusedError(
                doing,
                f"{name} is {parameters[name]!r}, which is no {kind} of the playbook",
                f"{hint} Known: {', '.join(known)}".strip(),
            )
    if "from" in wanted and parameters["from"] == parameters.get("to"):
        raise RefusedError(
            doing, f"{parameters['from']} would fail over to itself", "Name two different regions"
        )


class _Resolver:
    """Resolves the steps of one plan; what is wrong goes into `findings`."""

    def __init__(
        self,
        runbook: Runbook,
        playbook: Playbook,
        catalogue: Catalogue,
        *,
        values: Mapping[str, Any],
        mode: Mode,
        findings: list[Finding],
    ) -> None:
        self._runbook = runbook
        self._playbook = playbook
        self._catalogue = catalogue
        self._values = values
        self._mode = mode
        self._findings = findings

    def stages(self, shares: Sequence[tuple[int, int]]) -> list[PlannedStage]:
        """All of them; who waits for what became several stages waits for the last of those."""
        found: list[PlannedStage] = []
        last: dict[str, str] = {}
        for number, stage in enumerate(self._runbook.definition.stages):
            previous: tuple[str, ...] = (found[-1].name,) if found else ()
            if stage.after is not None:
                previous = tuple(last[name] for name in stage.after)
            found += self._stages(("stages", number), stage, previous, shares)
            last[stage.stage] = found[-1].name
        return found

    def _stages(
        self, keys: Keys, stage: StageDefinition, previous: tuple[str, ...], shares: Sequence[tuple[int, int]]
    ) -> list[PlannedStage]:
        """One stage, or one for each share."""
        if stage.for_each is None:
            return [self._stage(keys, stage, stage.stage, previous)]
        found = []
        for share, before in shares:
            inner = _Resolver(
                self._runbook,
                self._playbook,
                self._catalogue,
                values={**self._values, "share": share, "before": before},
                mode=self._mode,
                findings=self._findings,
            )
            found.append(inner._stage(keys, stage, f"{stage.stage}-{share}", previous))
            previous = (found[-1].name,)
        return found

    def _stage(
        self, keys: Keys, stage: StageDefinition, name: str, previous: tuple[str, ...]
    ) -> PlannedStage:
        groups = []
        for index, item in enumerate(stage.steps):
            at = (*keys, "steps", index)
            if isinstance(item, Together):
                written = [((*at, "together", inner), step) for inner, step in enumerate(item.together)]
            else:
                written = [(at, item)]
            group = tuple(
                planned
                for where, step in written
                if step.when in (None, self._mode)
                for planned in self._steps(where, name, step)
            )
            if group:
                groups.append(group)
        return PlannedStage(
            name=name,
            title=self.text((*keys, "title"), stage.title),
            after=previous,
            groups=tuple(groups),
        )

    def text(self, keys: Keys, text: str) -> str:
        """`text` with its references replaced; an unknown one becomes a finding at `keys`."""
        try:
            return str(_resolve(text, self._values))
        except KeyError as unknown:
            self._unknown_reference(keys, str(unknown.args[0]), self._values)
            return text

    def _unknown_reference(self, keys: Keys, name: str, values: Mapping[str, Any]) -> None:
        found, known = f"the reference ${{{name}}}", f"one of {', '.join(sorted(values))}"
        self._findings.append(self._runbook.finding(keys, found, known, nearest(name, values)))

    def _steps(self, keys: Keys, stage: str, step: StepDefinition) -> list[PlannedStep]:
        if step.for_each is None:
            return self._step(keys, f"{stage}/{step.step}", step, self._values)
        return [
            planned
            for service in self._playbook.services
            for planned in self._step(
                keys, f"{stage}/{step.step}-{service}", step, {**self._values, "service": service}
            )
        ]

    def _step(
        self, keys: Keys, key: str, step: StepDefinition, values: Mapping[str, Any]
    ) -> list[PlannedStep]:
        if step.action not in self._catalogue:
            names = self._catalogue.names()
            self._findings.append(
                self._runbook.finding(
                    (*keys, "action"),
                    f"action {step.action!r}",
                    "an action of the catalogue",
                    nearest(step.action, names),
                )
            )
            return []
        try:
            arguments = {name: _resolve(value, values) for name, value in step.with_.items()}
            title = _resolve(step.title, values)
        except KeyError as unknown:
            self._unknown_reference(keys, str(unknown.args[0]), values)
            return []
        args_model = self._catalogue.get(step.action).Args
        try:
            args = args_model.model_validate(arguments)
        except ValidationError as error:
            for item in error.errors():
                name = str(item["loc"][0]) if item["loc"] else ""
                self._findings.append(
                    self._runbook.finding(
                        _argument(keys, step, name),
                        f"argument {name!r} of {step.action}: {item['msg'].lower()}",
                        f"arguments {', '.join(args_model.model_fields) or 'none'}",
                        nearest(name, args_model.model_fields),
                    )
                )
            return []
        self._check_names(keys, step, args)
        self._check_role(keys, step)
        return [
            PlannedStep(
                key=key,
                title=title,
                action=step.action,
                arguments=args.model_dump(mode="json"),
                deadline=step.deadline,
                attempts=step.attempts,
                backoff=step.backoff,
                on_failure=step.on_failure,
                approval=step.approval,
                point_of_no_return=step.point_of_no_return,
                settles=step.settles,
            )
        ]

    def _check_names(self, keys: Keys, step: StepDefinition, args: Model) -> None:
        """Arguments that name a region or a service must name one of the playbook."""
        for name, field in type(args).model_fields.items():
            for mark in field.metadata:
                if not isinstance(mark, Names):
                    continue
                known = self._playbook.regions if mark.kind == "region" else self._playbook.services
                value = getattr(args, name)
                if value not in known:
                    self._findings.append(
                        self._runbook.finding(
                            _argument(keys, step, name),
                            f"{value!r}",
                            f"a {mark.kind} of the playbook: {', '.join(known)}",
                            nearest(str(value), known),
                        )
                    )

    def _check_role(self, keys: Keys, step: StepDefinition) -> None:
        """Who is asked to approve must be a role of the playbook."""
        roles = self._playbook.roles
        if step.approval is not None and step.approval.role not in roles:
            role = step.approval.role
            self._findings.append(
                self._runbook.finding(
                    (*keys, "approval", "role"),
                    f"{role!r}",
                    f"a role of the playbook: {', '.join(roles)}",
                    nearest(role, roles),
                )
            )


def _argument(keys: Keys, step: StepDefinition, name: str) -> Keys:
    """Where an argument stands in the file, or where it would."""
    if name in step.with_:
        return (*keys, "with", name)
    return (*keys, "with") if step.with_ else keys


def _resolve(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with its references replaced; a string that is one reference takes the value's own type."""
    if isinstance(value, str):
        whole = _REFERENCE.fullmatch(value)
        if whole:
            return values[whole[1]]
        return _REFERENCE.sub(lambda match: str(values[match[1]]), value)
    if isinstance(value, dict):
        return {_resolve(key, values): _resolve(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, values) for item in value]
    return value
