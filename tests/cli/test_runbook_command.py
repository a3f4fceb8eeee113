"""`hmsdr runbook`: for people and for machines the same, and a file that is none is answered as a runbook."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from hmsdr.cli.runbook import runbook
from hmsdr.errors import ExitStatus, HmsdrError
from hmsdr.runbook.definition import SHIPPED

RUNNER = CliRunner()


def out(*arguments: str) -> str:
    result = RUNNER.invoke(runbook, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_the_list_for_machines_has_what_the_list_for_people_has() -> None:
    listed = json.loads(out("list", "--json"))
    text = out("list")
    assert {each["runbook"] for each in listed} == set(SHIPPED)
    for each in listed:
        assert each["runbook"] in text
        assert each["purpose"] in text
        assert all(f"{name}=<{kind}>" in text for name, kind in each["parameters"].items())
    (regional,) = [each for each in listed if each["runbook"] == "regional-failover"]
    assert len(regional["stages"]) >= 6
    assert regional["rollback"] == "regional-failover"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_runbook_for_machines_is_the_one_that_people_read(name: str) -> None:
    plan = json.loads(out("show", name, "--json", "--playbook", "hms"))
    text = out("show", name, "--playbook", "hms")
    assert (plan["runbook"], plan["mode"], plan["epoch"]) == (name, "unplanned", 1)
    steps = [step for stage in plan["stages"] for group in stage["groups"] for step in group]
    assert steps
    for step in steps:
        assert step["title"] in text
        for line in (*step["by_hand"]["commands"], step["by_hand"]["expected"], *step["by_hand"]["if_not"]):
            assert line in text
        assert step["by_hand"]["commands"]
    assert all(line in text for line in plan["way_back"])


def refusal(name: str, command: str = "show") -> str:
    result = RUNNER.invoke(runbook, [command, name, "--playbook", "hms"])
    assert isinstance(result.exception, HmsdrError), result.output
    assert result.exception.status == ExitStatus.REFUSED
    said = str(result.exception)
    assert "runbook" in said
    assert "playbook" not in said
    assert "extends" not in said
    return said


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize(
    ("file", "content", "found", "allowed"),
    [
        ("empty.yaml", b"", "an empty file", "Start from a shipped one"),
        ("comment.yaml", b"# nothing\n", "an empty file", "a runbook"),
        ("list.yaml", b"- a\n", "not a mapping", "runbook, title, purpose, parameters, stages"),
        ("regional-failver.yaml", None, "no such file", "Did you mean 'regional-failover'?"),
        ("missing.yaml", None, "no such file", f"one of the shipped runbooks: {', '.join(SHIPPED)}"),
        ("binary.yaml", b"\x7fELF\x02\x00\x00", "a binary file", "a YAML file with a runbook"),
        ("latin.yaml", b"runbook: \xe4\n", "the byte 0xe4", "UTF-8 text"),
        ("large.yaml", b"x" * 600_000, "more than", "at most"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_runbook(
    tmp_path: Path, command: str, file: str, content: bytes | None, found: str, allowed: str
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    said = refusal(str(tmp_path / file), command)
    assert str(tmp_path / file) in said
    assert found in said
    assert allowed in said


def test_a_directory_a_pipe_and_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    assert "found a directory" in refusal(f"{tmp_path}/")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a regular file" in refusal(str(tmp_path / "pipe.yaml"))
    assert "cannot be read" in refusal(str(tmp_path / ("x" * 5000 + ".yaml")))
    (tmp_path / "own-failover.yaml").write_text("runbook: own\n")
    assert f"Did you mean '{tmp_path}/own-failover.yaml'?" in refusal(str(tmp_path / "own-failovr.yaml"))
    if os.geteuid() != 0:
        (tmp_path / "own-failover.yaml").chmod(0)
        assert "Permission denied" in refusal(str(tmp_path / "own-failover.yaml"))


def test_a_name_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Did you mean 'cache-failover'?" in refusal("cash-failover")
    assert ", ".join(SHIPPED) in refusal("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("runbook: mine\n")
    assert "write ./mine" in refusal("mine")
