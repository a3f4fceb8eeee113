"""A run shown on a terminal: the line that ticks is there from the beginning, before anything of the run is known."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

SHOWN = """
from hmsdr.cli.progress import Progress
from hmsdr.runbook.plan import Plan
shown = Progress(Plan.__new__(Plan), "run", as_json=False)
shown._out("a line above it")
shown._live.stop()
"""


def test_it_begins_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", SHOWN], stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False
    )
    os.close(theirs)
    with suppress(OSError):  # Linux says so when the other end is closed
        said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0, said
    assert "a line above it" in said
