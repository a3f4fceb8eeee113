"""Setup says what is missing and why when it cannot install it, changes nothing then, and is quick when done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("bash", "dirname", "cat", "sha256sum", "cut", "sort", "awk", "flock", "id")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of what setup reads, and a PATH without apt and without one listed command."""
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    for name in (
        "uv.lock",
        "pyproject.toml",
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*")),
    ):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, project / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def run(machine: Path, packages: str) -> subprocess.CompletedProcess[str]:
    (machine / "project" / "scripts" / "system-packages.txt").write_text(packages)
    return subprocess.run(
        [machine / "project" / "scripts" / "setup.sh"],
        env={"PATH": str(machine / "bin"), "HOME": str(machine)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_what_cannot_be_installed_is_named_with_its_reason(machine: Path) -> None:
    done = run(machine, "# a comment\nno-such-server  some-package   keeps the sessions of the lab\n")
    assert done.returncode == 2
    assert "some-package" in done.stderr
    assert "keeps the sessions of the lab" in done.stderr
    assert "apt-get install some-package" in done.stderr
    assert not (machine / "project" / ".venv").exists()


def test_a_machine_without_a_fit_python_is_refused_with_a_remedy(machine: Path) -> None:
    done = run(machine, "cat  coreutils  is there already\n")
    assert done.returncode == 2
    assert "Python 3.11" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_once_done_it_does_nothing(machine: Path) -> None:
    project = machine / "project"
    (project / "scripts" / "system-packages.txt").write_text("cat  coreutils  is there already\n")
    commands = project / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "hmsdr").symlink_to("/bin/true")
    listed = "uv.lock pyproject.toml scripts/system-packages.txt scripts/setup.sh scripts/fetch_kubectl.py"
    subprocess.run(
        f"cat {listed} | sha256sum | cut -d' ' -f1 | tr -d '\\n' > .venv/.hmsdr-setup",
        shell=True,
        cwd=project,
        check=True,
        timeout=10,
    )
    done = run(machine, "cat  coreutils  is there already\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
