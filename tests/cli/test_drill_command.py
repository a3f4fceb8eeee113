"""`hmsdr drill`: what cannot be begun is refused before a lab is brought up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def hmsdr(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hmsdr", "drill", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "regional-outrage"), "Did you mean 'regional-outage'?"),
        (("run", "regional-outage", "--out", "old"), "a report is there already"),
        (("run", "regional-outage", "--out", "file/below"), "Name another directory with --out"),
        (("run", "regional-outage", "--rate", "0"), "--rate"),
        (("run",), "Missing argument"),
    ],
)
def test_bad_input_is_refused_and_no_lab_is_made(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    (tmp_path / "file").write_text("")
    result = hmsdr(tmp_path, *words)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / ".hmsdr" / "lab").exists()
    assert (tmp_path / "old" / "report.json").read_text() == "{}"


def test_the_scenarios_are_listed(tmp_path: Path) -> None:
    result = hmsdr(tmp_path, "list")
    assert (result.returncode, result.stdout.split()[0]) == (0, "regional-outage")
