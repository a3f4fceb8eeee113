"""Freezing a runbook: stages that are empty in a mode, and what cannot be resolved, refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from books import SECRETS
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.errors import RefusedError
from hmsdr.playbook.findings import PlaybookError
from hmsdr.playbook.layers import SHIPPED
from hmsdr.playbook.load import load as load_playbook
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.topology import Replicas
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import _without_empty, freeze
from hmsdr.runbook.plan import Mode, Plan, PlannedStage, PlannedStep

PLAYBOOK = load_playbook(SHIPPED["hms"], environ=SECRETS)
EAST, WEST = "us-east-1", "us-west-2"
PARAMETERS = {"from": EAST, "to": WEST, "region": EAST, "service": "patient", "path": "rewind"}
STEP = PlannedStep.model_validate(
    {
        "key": "a/b", "title": "", "action": "x", "arguments": {}, "deadline": "1s", "attempts": 1,
        "backoff": "1s", "on_failure": "stop",
    }
)  # fmt: skip


@st.composite
def stages(draw: st.DrawFn) -> list[PlannedStage]:
    made: list[PlannedStage] = []
    for number in range(draw(st.integers(1, 9))):
        after = draw(
            st.lists(st.sampled_from(made), unique_by=lambda stage: stage.name) if made else st.just([])
        )
        groups = ((STEP,),) if draw(st.booleans()) else ()
        names = tuple(stage.name for stage in after)
        made.append(PlannedStage(name=f"s{number}", title="", after=names, groups=groups))
    return made


@given(stages())
def test_nobody_waits_for_an_empty_stage_and_nobody_begins_before_its_turn(
    given_stages: list[PlannedStage],
) -> None:
    before = {stage.name: stage for stage in given_stages}
    kept = list(_without_empty(given_stages))
    assert [stage.name for stage in kept] == [stage.name for stage in given_stages if stage.groups]
    seen: set[str] = set()
    for stage in kept:
        assert set(stage.after) <= seen, "it waits for what is there, and comes before it"
        seen.add(stage.name)
        wanted = before[stage.name].after
        real = {name for name in wanted if before[name].groups}
        # What it waited for and is there, it still waits for; only who has nothing left inherits.
        assert set(stage.after) == (real or inherited(before, wanted))
        assert len(set(stage.after)) == len(stage.after)


def inherited(before: dict[str, PlannedStage], wanted: tuple[str, ...]) -> set[str]:
    """What empty stages waited for, as far back as it takes to find stages that have steps."""
    found: set[str] = set()
    for name in wanted:
        after = before[name].after
        found |= {each for each in after if before[each].groups} or inherited(before, after)
    return found


def frozen(name: str, mode: Mode) -> Plan:
    found = definition.load(definition.find(name))
    parameters = {key: PARAMETERS[key] for key in found.definition.parameters if key in PARAMETERS}
    return freeze(found, PLAYBOOK, installed(), parameters, mode=mode, epoch=3)


@pytest.mark.req("FA-2", "FM-5")
@pytest.mark.parametrize("mode", ["planned", "unplanned"])
@pytest.mark.parametrize("name", definition.SHIPPED)
def test_every_shipped_runbook_freezes_and_so_does_its_way_back(name: str, mode: Mode) -> None:
    plan = frozen(name, mode)
    assert all(stage.groups for stage in plan.stages)
    assert "${" not in plan.model_dump_json()
    assert plan == Plan.model_validate_json(plan.model_dump_json())
    assert plan.digest() == frozen(name, mode).digest()
    # They take nothing from anybody: there is nothing to go back to.
    if name in ("database-follow", "hand-back", "region-recovery", "network-recovery"):
        assert plan.rollback is None
        return
    assert plan.rollback is not None
    back = definition.load(definition.find(plan.rollback.runbook))
    assert freeze(back, PLAYBOOK, installed(), plan.rollback.parameters, mode=mode, epoch=4).stages


@pytest.mark.req("SV-3")
def test_a_service_is_restored_to_what_its_region_is_to_users() -> None:
    found = definition.load(definition.find("service-failover"))
    parameters = {"region": WEST, "service": "patient"}

    def plan(users: str, playbook: Playbook = PLAYBOOK) -> Plan:
        return freeze(found, playbook, installed(), parameters, mode="unplanned", epoch=1, users=users)

    for users, role in ((WEST, "active"), (EAST, "standby")):
        steps = {step.key: step.arguments for step in plan(users).steps()}
        assert (steps["scaling-up/scale"]["role"], steps["validation/answers"]["role"]) == (role, role)
    patient = PLAYBOOK.services["patient"]
    none = patient.model_copy(update={"replicas": Replicas(active=2, standby=0)})
    bare = PLAYBOOK.model_copy(update={"services": {**PLAYBOOK.services, "patient": none}})
    assert plan(WEST, bare).stages
    with pytest.raises(RefusedError, match="a standby region runs no pod of patient"):
        plan(EAST, bare)


def test_the_shipped_runbooks_are_the_files_that_are_there() -> None:
    assert sorted(definition.SHIPPED) == sorted(
        path.stem for path in definition.shipped_directory().glob("*.yaml")
    )


@pytest.mark.req("FA-2")
def test_an_unplanned_failover_fences_without_waiting_for_scaling_and_a_planned_one_when_all_is_ready() -> (
    None
):
    after = {
        mode: {stage.name: set(stage.after) for stage in frozen("regional-failover", mode).stages}
        for mode in ("planned", "unplanned")
    }
    assert after["unplanned"]["fencing"] == {"verification"}
    assert after["planned"]["fencing"] == {"readiness"}
    for stages_after in after.values():
        assert "fencing" in stages_after["promotion"]
        assert {"promotion", "scaling-up"} <= stages_after["dns-update"]


RUNBOOK = """\
runbook: mine
title: {title}
purpose: to test
parameters: {{from: region, to: region}}
rollback: {{runbook: mine, parameters: {{from: "{back}"}}}}
stages:
  - stage: only
    title: {stage}
    steps:
      - step: one
        title: {step}
        action: {action}
        with: {{{argument}}}
        deadline: 1s
"""
GOOD = {
    "title": "x", "back": "${to}", "stage": "x", "step": "x", "action": "postgres.checkpoint",
    "argument": 'region: "${from}"',
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "text", "line", "words"),
    [
        ("title", "go to ${nowhere}", 2, "the reference ${nowhere}"),
        ("back", "${form}", 5, "Did you mean 'from'?"),
        ("stage", "${From}", 8, "the reference ${From}"),
        ("step", "${to } and ${}", 10, "the reference ${to }"),
        ("argument", 'region: "${FROM}"', 10, "the reference ${FROM}"),
        ("argument", "region: us-eest-1", 13, "a region of the playbook: us-east-1, us-west-2"),
        ("argument", "region: us-eest-1", 13, "Did you mean 'us-east-1'?"),
        ("argument", "regoin: us-east-1", 13, "regoin"),
        ("argument", "", 10, "argument 'region'"),
        ("action", "postgres.checkpiont", 12, "Did you mean 'postgres.checkpoint'?"),
    ],
)
def test_what_cannot_be_resolved_is_refused_with_its_line(
    tmp_path: Path, place: str, text: str, line: int, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RUNBOOK.format(**{**GOOD, place: text}))
    with pytest.raises(PlaybookError) as caught:
        freeze(
            definition.load(path), PLAYBOOK, installed(), {"from": EAST, "to": WEST}, mode="planned", epoch=1
        )
    assert f"{path}:{line}:" in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "the parameter 'from' is missing"),
        ({"from": EAST, "to": EAST}, "would fail over to itself"),
        ({"from": EAST, "to": "us-west-1"}, "Did you mean 'us-west-2'?"),
        ({"from": EAST, "to": WEST, "how": "fast"}, "unknown parameter 'how'"),
    ],
)
def test_parameters_are_checked_against_the_playbook(parameters: dict[str, str], words: str) -> None:
    found = definition.load(definition.find("regional-failover"))
    with pytest.raises(RefusedError) as caught:
        freeze(found, PLAYBOOK, installed(), parameters, mode="planned", epoch=1)
    assert words in str(caught.value)


@pytest.mark.req("SW-1", "SW-2")
@pytest.mark.parametrize(
    ("reached", "shares"),
    [
        (0, [(20, 0), (40, 20), (60, 40), (80, 60), (100, 80)]),
        (40, [(60, 40), (80, 60), (100, 80)]),
        (50, [(60, 50), (80, 60), (100, 80)]),
        (100, [(100, 100)]),
    ],
)
def test_a_stage_for_each_share_that_is_still_to_come(reached: int, shares: list[tuple[int, int]]) -> None:
    plan = freeze(
        definition.load(definition.find("switchback")),
        PLAYBOOK,
        installed(),
        {"from": "us-west-2", "to": "us-east-1"},
        mode="planned",
        epoch=3,
        share=reached,
    )
    stages = {stage.name: stage for stage in plan.stages}
    moving = [stage for stage in plan.stages if stage.name.startswith("traffic-")]
    assert [stage.name for stage in moving] == [f"traffic-{share}" for share, _ in shares]
    for stage, (share, before) in zip(moving, shares, strict=True):
        weigh, watch = stage.steps()
        for each in (weigh, watch):
            assert (each.arguments["share"], each.arguments["before"]) == (share, before)
            assert each.arguments["epoch"] == 4
    assert [stage.after for stage in moving] == [("baseline",), *((stage.name,) for stage in moving[:-1])]
    assert stages["validation"].after == (moving[-1].name,)
    settling = [step.key for step in plan.steps() if step.settles]
    assert settling == ["handed-over/database"]
