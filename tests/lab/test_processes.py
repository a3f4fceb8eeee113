"""Which processes belong to a lab: those that carry its mark, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from hmsdr.lab.layout import LAB_ENV, REGION_ENV
from hmsdr.lab.processes import lab_processes, sweep, usage

NAP = "import time; time.sleep(60)"


@pytest.fixture
def lab() -> str:
    """A mark that no other test carries: tests run beside each other, and a sweep is of every process with its mark."""
    return f"lab-{uuid.uuid4().hex}"


def nap(directory: Path, **mark: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", NAP], cwd=directory, env={**os.environ, **mark})
    until = time.monotonic() + 5
    while NAP.encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes() and time.monotonic() < until:
        time.sleep(0.005)
    return child


def test_only_marked_processes_are_swept(tmp_path: Path, lab: str) -> None:
    ours = nap(tmp_path, **{LAB_ENV: lab})
    others = nap(tmp_path, **{LAB_ENV: lab + "-other"})
    shell = nap(tmp_path)  # merely stands in the directory, as a person's shell may
    try:
        assert [process.pid for process in lab_processes(lab, tmp_path)] == [ours.pid]
        killed = sweep(lab, tmp_path, seconds=5)
        assert (killed.count, killed.survivors) == (1, 0)
        assert ours.wait(5) == -9
        assert others.poll() is None
        assert shell.poll() is None
    finally:
        for child in (ours, others, shell):
            child.kill()
            child.wait()


def test_a_sweep_can_be_of_one_region(tmp_path: Path, lab: str) -> None:
    east = nap(tmp_path, **{LAB_ENV: lab, REGION_ENV: "us-east-1"})
    west = nap(tmp_path, **{LAB_ENV: lab, REGION_ENV: "us-west-2"})
    try:
        before = time.monotonic()
        killed = sweep(lab, tmp_path, seconds=5, region="us-east-1")
        assert killed.count == 1
        assert before <= killed.monotonic <= time.monotonic()
        assert east.wait(5) == -9
        assert west.poll() is None
        used = usage(west.pid)
        assert used is not None
        assert used.memory > 1_000_000
        assert usage(east.pid) is None
    finally:
        for child in (east, west):
            child.kill()
            child.wait()


def test_what_is_kept_survives(tmp_path: Path, lab: str) -> None:
    kept = nap(tmp_path, **{LAB_ENV: lab})
    try:
        assert sweep(lab, tmp_path, seconds=5, keep={kept.pid}).count == 0
        assert kept.poll() is None
    finally:
        kept.kill()
        kept.wait()
