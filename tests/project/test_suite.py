"""The suite's second try: only for few tests with real servers, and never in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[2] / "scripts" / "suite.py"
ONCE = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number):
    seen = Path(__file__).with_suffix(f".{{number}}")
    first = not seen.exists()
    seen.touch()
    assert not first or {always_well}
    assert not {always_ill}
"""


def ran(place: Path, room: str, *, count: int = 1, well: bool = False, ill: bool = False) -> tuple[int, str]:
    (place / "tests" / room).mkdir(parents=True)
    code = ONCE.format(count=count, always_well=well, always_ill=ill)
    (place / "tests" / room / "test_once.py").write_text(code)
    (place / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")
    done = subprocess.run(
        [sys.executable, str(SUITE), "-n", "0"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("room", ["lab", "backup", "control"])
def test_few_with_real_servers_are_tried_once_more_and_named(tmp_path: Path, room: str) -> None:
    status, said = ran(tmp_path, room, count=3)
    assert status == 0
    assert said.splitlines()[-3:] == [f"  FLAKY tests/{room}/test_once.py::test_it[{n}]" for n in range(3)]


@pytest.mark.parametrize(("room", "count"), [("decide", 1), ("sim", 1), ("lab", 4)])
def test_pure_ones_and_many_are_not(tmp_path: Path, room: str, count: int) -> None:
    status, said = ran(tmp_path, room, count=count)
    assert status == 1
    assert "Once more" not in said


def test_what_fails_alone_too_has_failed(tmp_path: Path) -> None:
    status, said = ran(tmp_path, "lab", ill=True)
    assert status == 1
    assert "Once more" in said
    assert "FLAKY" not in said


def test_what_passes_is_tried_once(tmp_path: Path) -> None:
    status, said = ran(tmp_path, "lab", well=True)
    assert status == 0
    assert "Once more" not in said
