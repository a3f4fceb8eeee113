"""What a command says when somebody presses Ctrl-C: only what is true then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hmsdr.cli.common import find_playbook, interruptible, lab_directory
from hmsdr.cli.lab_view import left_lines
from hmsdr.cli.main import interrupted
from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab.launch import Remains, remains


@pytest.mark.parametrize(
    ("left", "begun", "told"),
    [
        (Remains(True, 40, True), True, "A lab is up in d: `hmsdr lab status` shows it, `hmsdr lab down` ends it"),
        (Remains(False, 3, True), True, "3 processes of it are still running: `hmsdr lab down --dir d` ends them"),
        (Remains(False, 0, True), True, "Nothing of it runs; its files are in d"),
        (Remains(False, 0, False), True, "What had been started was stopped and removed: nothing is left"),
        (Remains(False, 0, False), False, "Nothing had been started: nothing is left"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_lab(left: Remains, begun: bool, told: str) -> None:
    assert left_lines(left, Path("d"), begun=begun).startswith(told)


def test_an_empty_place_has_no_remains(tmp_path: Path) -> None:
    assert remains(tmp_path, seconds=0.1) == Remains(False, 0, False)


PRESSED_ON_IMPORT = """
import os, signal, sys
from hmsdr.cli import main
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "hmsdr.cli.lab":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["hmsdr", "lab", "up"]
main.main()
"""


def test_before_a_command_is_loaded_nothing_was_begun(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESSED_ON_IMPORT],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted before anything was begun.")
    assert not list(tmp_path.iterdir())


def test_a_command_that_was_entered_may_have_begun_a_run() -> None:
    assert "If a run was begun, it is in the log" in interrupted(entered=True)


def test_what_a_command_says_of_itself() -> None:
    with (
        pytest.raises(FailedError, match=r"healing x: it was interrupted\. Try again"),
        interruptible("healing x", "Try again"),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_names_no_directory(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It meant the directory here: `hmsdr lab up` wanted to fill it, and took its playbook.yaml for the lab's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "playbook.yaml").write_text("extends: hms\n")
    monkeypatch.setenv("HMSDR_LAB", text)
    monkeypatch.setenv("HMSDR_PLAYBOOK", text)
    assert lab_directory() == Path(".hmsdr/lab")
    with pytest.raises(RefusedError, match=r"no lab in \.hmsdr/lab"):
        find_playbook(None)
    monkeypatch.setenv("HMSDR_LAB", str(tmp_path))
    assert find_playbook(None) == tmp_path / "playbook.yaml"
