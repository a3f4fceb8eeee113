"""The last one out: kills what is left of a lab when its supervisor vanished without taking it down.

A child of the supervisor that waits for the end of a pipe which only the supervisor holds open: it wakes at no
other time. It starts nothing and removes no file.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Collection
from pathlib import Path

from hmsdr.lab.processes import sweep

SWEEP_SECONDS = 10.0
_PR_SET_NAME = 15


def fork_reaper(lab_id: str, directory: Path, keep_open: Collection[int]) -> int:
    """Start the reaper; gives its pid. Call it before the first thread and the event loop exist.

    Args:
        lab_id: the lab's mark.
        directory: the lab's directory.
        keep_open: descriptors it shares: while it sweeps, nobody else may bring a lab up in the same place.
    """
    waits, _ = ends = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _wait_and_sweep(lab_id, directory, waits, keep_open)
        finally:
            os._exit(0)
    os.close(ends[0])
    # The other end stays open, and inherited by nobody, as long as the supervisor lives.
    return pid


def _wait_and_sweep(lab_id: str, directory: Path, waits: int, keep_open: Collection[int]) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"hmsdr-reaper", 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names suffice
        descriptor = int(name)
        if descriptor > 2 and descriptor != waits and descriptor not in keep_open:  # noqa: PLR2004 - stderr
            try:
                os.close(descriptor)
            except OSError:
                continue
    while os.read(waits, 1):
        pass
    sweep(lab_id, directory, seconds=SWEEP_SECONDS)
