"""The benchmark as a command: what it refuses, and that its quick part leaves figures. How long things take is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_rounds_that_are_none_are_refused(wrong: str) -> None:
    done = bench("--rounds", wrong)
    assert done.returncode == 2
    assert "no number of rounds" in done.stderr or "expected one argument" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("--only", "journal", "--out", tmp_path / "file" / "there")
    assert done.returncode == 2
    assert "file/there: Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_journal_is_measured_and_written_down(tmp_path: Path) -> None:
    done = bench("--only", "journal", "--rounds", "2", "--out", tmp_path)
    assert done.returncode in (0, 1), (
        done.stderr
    )  # 1: a busy machine; what was measured stands there all the same
    assert "empty step with its journal" in done.stdout
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [len(found["journal"][each]) for each in ("step_ms", "two_bare_writes_ms")] == [2, 2]
    assert min(found["journal"]["step_ms"]) > 0
    assert "failover" not in found


def test_a_seed_of_the_simulator_is_measured(tmp_path: Path) -> None:
    done = bench("--only", "simulator", "--rounds", "1", "--out", tmp_path)
    assert done.returncode in (0, 1), done.stderr
    assert "a seed of the simulator" in done.stdout
    assert list(json.loads((tmp_path / "bench.json").read_text())) == ["machine", "rounds", "simulator"]
