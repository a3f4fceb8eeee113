"""The `hmsdr` command as people run it, for tests: a process of its own, its output, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hmsdr.lab.layout import Layout

COMMAND = [sys.executable, "-m", "hmsdr"]


class Done:
    """What a command said and how it ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        assert "Traceback" not in self.out + self.err, self.err

    def __repr__(self) -> str:
        return f"exit {self.status}\n{self.out}\n{self.err}"

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Standard output as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def hmsdr(
    *words: str | Path,
    lab: Layout | None = None,
    seconds: float = 120,
    cwd: Path | None = None,
    **environment: str,
) -> Done:
    """Run ``hmsdr WORDS``; with `lab`, on its playbook."""
    return Done(
        subprocess.run(
            [*COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            env=command_environment(lab) | environment,
        )
    )


def begin(*words: str, lab: Layout | None, said: Path | None = None) -> subprocess.Popen[bytes]:
    """Start ``hmsdr WORDS`` and go on: the caller ends it. What it says is added to the file `said`."""
    with (said or Path(os.devnull)).open("ab") as file:
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=command_environment(lab),
        )


def command_environment(lab: Layout | None) -> dict[str, str]:
    """The environment of a command; with `lab`, its playbook is the one that is meant."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("HMSDR_")}
    return found if lab is None else found | {"HMSDR_PLAYBOOK": str(lab.playbook)}
