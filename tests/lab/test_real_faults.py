"""Real faults under the clinics' writes: never two regions that write, nothing lost but what asynchronous replication may.

Two faults that stand for all run by default; `make faults` runs every one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults_world
import pytest
from faults_made import FAULTS

from hmsdr.lab import wires

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]
REPRESENTATIVE = ("control-plane-killed", "one-way-out-of-active")
CHOSEN = tuple(FAULTS) if os.environ.get("HMSDR_FAULTS") == "all" else REPRESENTATIVE
ENDS_SECONDS = 60


class World:
    """`faults_world.py` in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "world.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, faults_world.__file__, str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def suffer(self, name: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the world ended: {self.log.read_text()[-3000:]}"
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(ENDS_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, self.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if (why := wires.why_not()) is not None:
        pytest.skip(f"sites cannot stand in networks of their own here: {why}")
    opened = World(tmp_path_factory.mktemp("faults"))
    yield opened
    opened.end()


@pytest.mark.req("FA-3", "FA-4", "TV-6")
@pytest.mark.parametrize("name", CHOSEN)
def test_after_a_fault_nobody_wrote_beside_another_and_nothing_unreported_is_lost(
    world: World, name: str
) -> None:
    fault, found = FAULTS[name], world.suffer(name)
    print(json.dumps(found))  # noqa: T201 - for whoever looks at a failure, or at -s
    assert found["problem"] == "", found
    assert found["acknowledged"] > 20, "the clinics were hardly at work"
    assert found["dual_writers"] == 0, found
    assert found["overlapping"] == [], found
    assert found["unexplained"] == [], found
    assert found["primaries"] == [found["holder"]], found
    assert found["phase"] == "held", found
    if fault.over is not None:
        assert found["epoch"] == found["epoch_before"] + fault.over, found
        assert len(found["decided"]) == fault.over, found
        assert found["runs"] == ["succeeded"] * fault.over, found
    if found["epoch"] == found["epoch_before"]:
        assert found["lost"] == 0, found
    if fault.undisturbed:
        assert found["postmaster_kept"], found
