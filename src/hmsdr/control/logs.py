"""Structured lines to standard error: one JSON object each, no secrets. The only output of agent and controller.

Nobody who logs waits for whoever reads: a thread writes, from a queue with a bound. A reader that is stuck costs lines, which are
counted and said, never a lease.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_ROOM = 2000
"""Lines that wait, at most."""
_EXIT_SECONDS = 1.0
"""For so long the end of the process waits for the reader."""
_BUSY_SECONDS = 0.05
_STDERR = 2
LISTENER: ContextVar[Callable[[str, Mapping[str, Any]], None] | None] = ContextVar("listener", default=None)
"""Who is told instead, event and fields; None: standard error."""


class Lines:
    """Lines on their way to a file descriptor.

    Args:
        descriptor: where they are written; it is not closed.
        room: how many may wait.
    """

    def __init__(self, descriptor: int = _STDERR, room: int = _ROOM) -> None:
        self._descriptor = descriptor
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._writing = False
        self._unsaid = 0
        self.dropped = 0
        """Lines that were not written since the beginning."""

    def put(self, line: bytes) -> None:
        """Have `line` written; when too many wait, drop it. Never waits for a reader."""
        with self._changed:
            if len(self._waiting) >= self._room or not self._begun():
                self.dropped += 1
                self._unsaid += 1
                return
            self._waiting.append(line)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, at most `seconds`; whether it was."""
        ends = time.monotonic() + seconds
        with self._changed:
            while self._waiting or self._writing or self._unsaid:
                left = ends - time.monotonic()
                if left <= 0 or self._thread is None:
                    return False
                self._changed.wait(left)
        return True

    def _begun(self) -> bool:
        """Whether the thread runs; a machine without room for a thread is no reason to stop guarding a database."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._write_for_ever, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _write_for_ever(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._unsaid:
                    self._changed.wait()
                if self._waiting:
                    line = self._waiting.popleft()
                else:
                    line, self._unsaid = _line("log.dropped", "warning", {"lines": self._unsaid}), 0
                self._writing = True
            try:
                self._write(line)
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # somebody who shares the descriptor made it so
                time.sleep(_BUSY_SECONDS)
            except OSError:
                return  # the reader is gone: no reason to stop guarding a database


_lines = Lines()
atexit.register(lambda: _lines.flush(_EXIT_SECONDS))


def log(event: str, *, level: str = "info", **fields: Any) -> None:
    """Have one line about `event` written; a reader that is stuck or gone is no reason to stop guarding a database."""
    listener = LISTENER.get()
    if listener is not None:
        listener(event, fields)
        return
    with suppress(ValueError, TypeError):
        _lines.put(_line(event, level, fields))


def dropped() -> int:
    """Lines that were not written since this process began."""
    return _lines.dropped


def _line(event: str, level: str, fields: dict[str, Any]) -> bytes:
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "event": event,
        **fields,
    }
    return json.dumps(line, default=str).encode() + b"\n"


class _Library(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        found = record.getMessage() + (f": {type(error).__name__}: {error}" if error is not None else "")
        log("library.said", level=record.levelname.lower(), logger=record.name, found=found)


def take_over_libraries() -> None:
    """Have what libraries warn of go the same way: their own would wait for the reader."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Library()], force=True)
    logging.captureWarnings(True)
