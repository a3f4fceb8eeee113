"""A runbook of one's own on a whole lab: checked, rehearsed, approved or not, and taken back when it is not."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from commands import begin, hmsdr
from hmsdr.lab.layout import Layout
from hospital_state import WEST

pytestmark = [pytest.mark.lab, pytest.mark.timeout(200)]
GUIDE = Path(__file__).parents[2] / "docs" / "runbooks.md"
SERVICES = ("appointment", "auth", "billing", "clinical", "patient")


@pytest.fixture
def runbook(tmp_path: Path) -> Path:
    """The guide's, whose steps wait for one another and for people, not for long."""
    (block,) = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "pilot-light.yaml"
    path.write_text(block.replace("deadline: 10m", "deadline: 15s"))
    return path


def replicas(lab: Layout) -> dict[str, int]:
    """Pods that are asked for in the standby region, by service."""
    names = "jsonpath={range .items[*]}{.metadata.name}={.spec.replicas} {end}"
    words = ("kubectl", f"--context={WEST}", "-n", "hms-system", "get", "deployments", "-o", names)
    told = hmsdr("lab", "shell", "--dir", lab.directory, "--", *words)
    assert told.status == 0, told
    pairs = (item.split("=") for item in told.out.split())
    return {name.removesuffix("-service"): int(count) for name, count in pairs}


def scale(lab: Layout, count: int) -> None:
    words = (
        "kubectl",
        f"--context={WEST}",
        "-n",
        "hms-system",
        "scale",
        f"--replicas={count}",
        "deployment",
        "--all",
    )
    told = hmsdr("lab", "shell", "--dir", lab.directory, "--", *words)
    assert told.status == 0, told


def started(lab: Layout, runbook: Path, said: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A run of `runbook` that waits for its approvals, and its name."""
    known = len(hmsdr("run", "list", "--json", lab=lab).json())
    process = begin("run", "start", str(runbook), f"region={WEST}", "--by", "pat", lab=lab, said=said)
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        runs = hmsdr("run", "list", "--json", lab=lab).json()[known:]
        if runs and sum(step["state"] == "waiting" for step in runs[0]["steps"].values()) == len(SERVICES):
            return process, runs[0]["run"]
        time.sleep(0.1)
    raise AssertionError(said.read_text())


@pytest.mark.req("FM-5", "AP-3")
def test_what_everybody_approves_is_done(module_lab: Layout, runbook: Path, tmp_path: Path) -> None:
    scale(module_lab, 2)
    assert hmsdr("runbook", "check", runbook, lab=module_lab).status == 0
    foreseen = hmsdr("run", "start", runbook, f"region={WEST}", "--dry-run", lab=module_lab)
    assert foreseen.status == 0, foreseen
    assert set(replicas(module_lab).values()) == {2}
    process, run = started(module_lab, runbook, tmp_path / "said.txt")
    said = (tmp_path / "said.txt").read_text()
    assert "waits for the incident-commander, at most 15 s:" in said
    for service in SERVICES:
        line = f"run approve {run} scaling-down/scale-{service} --by NAME"
        assert f"hmsdr {line}" in said
        given = hmsdr(*line.replace("NAME", "casey").split(), lab=module_lab)
        assert given.status == 0, given
    assert process.wait(40) == 0, (tmp_path / "said.txt").read_text()
    assert set(replicas(module_lab).values()) == {1}
    again = hmsdr("run", "approve", run, "scaling-down/scale-auth", "--by", "casey", lab=module_lab)
    assert again.status == 2, again


@pytest.mark.req("FM-5")
@pytest.mark.parametrize("answer", ["no", "none"])
def test_what_one_denies_or_nobody_answers_is_taken_back(
    module_lab: Layout, runbook: Path, tmp_path: Path, answer: str
) -> None:
    scale(module_lab, 2)
    if answer == "none":
        runbook.write_text(runbook.read_text().replace("deadline: 15s", "deadline: 8s"))
    process, run = started(module_lab, runbook, tmp_path / "said.txt")
    for service in SERVICES[:-1]:
        given = hmsdr("run", "approve", run, f"scaling-down/scale-{service}", "--by", "casey", lab=module_lab)
        assert given.status == 0, given
    if answer == "no":
        words = ("run", "deny", run, f"scaling-down/scale-{SERVICES[-1]}", "--by", "casey", "--reason", "flu")
        assert hmsdr(*words, lab=module_lab).status == 0
    assert process.wait(60) == 1, (tmp_path / "said.txt").read_text()
    assert set(replicas(module_lab).values()) == {2}
    shown = hmsdr("run", "show", run, lab=module_lab)
    assert "rolled_back" in shown.out
    assert ("flu" in shown.out) is (answer == "no")
