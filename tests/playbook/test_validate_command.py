"""`hmsdr validate`: exit statuses, what is printed, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from books import SECRETS, write
from click.testing import CliRunner

from hmsdr.cli.validate import command

RUNNER = CliRunner(env=dict(SECRETS))


def test_the_shipped_playbook_is_valid() -> None:
    result = RUNNER.invoke(command, ["hms"])
    assert result.exit_code == 0, result.output
    for said in (
        "us-east-1 (home), us-west-2; witness us-east-2",
        "patient, appointment",
        "RTO 15m, RPO 30s",
    ):
        assert said in result.output


def test_without_secrets() -> None:
    runner = CliRunner(env=dict.fromkeys(SECRETS))
    assert runner.invoke(command, ["hms"]).exit_code == 2
    result = runner.invoke(command, ["hms", "--no-secrets"])
    assert result.exit_code == 0
    assert "not checked" in result.output


def test_an_invalid_playbook(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: hms\ntraffic: {tll: 5}\n")
    result = RUNNER.invoke(command, [str(path)])
    assert result.exit_code == 2
    assert f"{path}:2:11: traffic.tll: found the unknown key 'tll'" in result.output
    assert "Did you mean 'ttl'?" in result.output


def test_lint_errors_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: hms\nthresholds: {triggers: {region_unreachable: 11m}}\n")
    result = RUNNER.invoke(command, [str(path)])
    assert result.exit_code == 2
    assert "thresholds.triggers.region_unreachable: found 11m" in result.output


def test_json_for_machines(tmp_path: Path) -> None:
    valid = json.loads(RUNNER.invoke(command, ["hms", "--json"]).output)
    assert valid["result"] == "valid"
    path = write(tmp_path, "extends: hms\nhome_region: x\n")
    result = RUNNER.invoke(command, [str(path), "--json"])
    assert result.exit_code == 2
    (finding,) = json.loads(result.output)["findings"]
    assert (finding["file"], finding["line"], finding["path"]) == (str(path), 2, "home_region")


def test_an_overlay(tmp_path: Path) -> None:
    path = write(tmp_path, "traffic: {ttl: 7}", "rehearsal.yaml")
    result = RUNNER.invoke(command, ["hms", "--overlay", str(path)])
    assert "with the overlay rehearsal" in result.output
    assert "ttl 7s" in result.output


def test_the_schema() -> None:
    result = RUNNER.invoke(command, ["--schema"])
    assert result.exit_code == 0
    assert json.loads(result.output)["title"] == "hmsdr playbook"


def test_no_file_is_a_usage_error() -> None:
    assert RUNNER.invoke(command, []).exit_code == 2


@pytest.mark.parametrize(
    "name", ["missing.yaml", ".", b"odd-\xff.yaml", "x" * 5000, "/dev/null", "/dev/zero"]
)
def test_in_a_process_of_its_own_there_is_no_traceback(tmp_path: Path, name: str | bytes) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "hmsdr", "validate", name],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert b"found" in result.stderr
