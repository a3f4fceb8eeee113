"""What a runbook's file may say: each mistake is named once, with line, what is allowed, and the nearest name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hmsdr.playbook.load import load as load_playbook
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.definition import RunbookError, load
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.reference import rewritten

GUIDE = Path(__file__).parents[2] / "docs" / "runbooks.md"
HEAD = "runbook: own\ntitle: Own\npurpose: To test.\nparameters: {region: region}\nstages:\n"
STEP = '{step: a, title: A, action: kubernetes.ready, with: {region: "${region}"}, deadline: 5s}'


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """Findings without the file's name."""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(RunbookError) as caught:
        freeze(
            load(path),
            load_playbook("hms", secrets=False),
            installed(),
            {"region": "us-west-2"},
            mode="planned",
            epoch=1,
        )
    return [
        re.sub(r"^.*?:9:\d+:", "9:N:", str(each)).removeprefix(f"{path}:") for each in caught.value.findings
    ]


def stage(*steps: str) -> str:
    return (
        HEAD + "  - stage: one\n    title: One\n    steps:\n" + "".join(f"      - {step}\n" for step in steps)
    )


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            STEP.replace("deadline: 5s", "deadline: 5s, on_failure: explode"),
            "9:N: stages[0].steps[0].on_failure: found 'explode'; allowed: one of continue, rollback, stop.",
        ),
        (
            STEP.replace("deadline: 5s", "deadline: 5"),
            "9:N: stages[0].steps[0].deadline: found 5; allowed: a duration such as 30s, 5m or 1h30m.",
        ),
        (
            STEP.replace("deadline: 5s", "deadlin: 5s"),
            "9:N: stages[0].steps[0].deadline: found nothing; allowed: a value; it is required.",
        ),
        (
            f"{{together: [{STEP}], deadline: 4s}}",
            "9:N: stages[0].steps[0].deadline: found the unknown key 'deadline'; allowed: one of together.",
        ),
        (
            f"together: [{STEP.replace('step: a', 'step: A b')}]",
            "9:N: stages[0].steps[0].together[0].step: found 'A b'; allowed: small letters and digits, "
            "with single hyphens between them: dns-update.",
        ),
        ("hello", "9:N: stages[0].steps[0]: found 'hello'; allowed: a mapping."),
        ("together: []", "9:N: stages[0].steps[0].together: found too few; allowed: 1 or more."),
        (
            STEP.replace("kubernetes.ready", "kubernetes.reddy"),
            "9:N: stages[0].steps[0].action: found action 'kubernetes.reddy'; allowed: an action of the catalogue. "
            "Did you mean 'kubernetes.ready'?",
        ),
        (
            STEP.replace("${region}", "us-west-3"),
            "9:N: stages[0].steps[0].with.region: found 'us-west-3'; allowed: a region of the playbook: "
            "us-east-1, us-west-2. Did you mean 'us-west-2'?",
        ),
        (
            STEP.replace("deadline: 5s", "deadline: 5s, approval: {role: comander, deadline: 5s}"),
            "approval.role: found 'comander'; allowed: a role of the playbook: ",
        ),
    ],
)
def test_a_mistake_is_said_once_where_it_stands(tmp_path: Path, step: str, told: str) -> None:
    found = mistakes(tmp_path, stage(step))
    assert any(told in text for text in found), found
    assert len(found) == (2 if "deadlin:" in step else 1), found


def test_many_mistakes_are_said_at_once_and_none_that_follows_from_others(tmp_path: Path) -> None:
    found = mistakes(tmp_path, HEAD.replace("title", "titel").replace("To test.", "5") + "  - 7\n")
    assert [text.split(": found")[0] for text in found] == ["1:1: title", "2:1: titel", "3:10: purpose", "6:5: stages[0]"]  # fmt: skip


def test_the_runbook_of_the_guide_is_valid_and_its_table_current(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    assert rewritten(text) == text, "run python -m hmsdr.runbook.reference docs/runbooks.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "guide.yaml"
    path.write_text(block)
    playbook = load_playbook("hms", secrets=False)
    plan = freeze(load(path), playbook, installed(), {"region": "us-west-2"}, mode="unplanned", epoch=3)
    assert len(list(plan.steps())) == 2 + len(playbook.services)
