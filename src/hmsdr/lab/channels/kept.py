"""What the lab's receivers took: one JSON object a line in ``channels/messages.jsonl``, written before it is acknowledged.

It keeps and reads; what is taken or refused, the receivers decide. A line that was cut off by a crash was never acknowledged, and is
passed over.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from hmsdr.lab.layout import Layout


class Kept:
    """The file, open for appending.

    Args:
        layout: the lab.
    """

    def __init__(self, layout: Layout) -> None:
        path = messages(layout)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        if (size := os.fstat(self._file).st_size) and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def add(self, kind: str, channel: str, text: str, **more: Any) -> None:
        """Keep one message, with the time now.

        Args:
            kind: ``slack``, ``teams``, ``email``, ``sms`` or ``phone``.
            channel: to whom: the channel's name, the mailbox, or the number.
            text: what was said.
            more: what else is known of it.

        Raises:
            OSError: it was not kept, or not whole: it must not be acknowledged.
        """
        line = {"at": time.time(), "kind": kind, "channel": channel, "text": text, **more}
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            os.write(self._file, b"\n")
            raise OSError(f"{written} of {len(data)} bytes were written")


def messages(layout: Layout) -> Path:
    """Where the messages are kept, one JSON object a line."""
    return layout.directory / "channels" / "messages.jsonl"


def received(layout: Layout) -> list[dict[str, Any]]:
    """All messages that arrived in this lab, in the order of their arrival; ``at`` is in seconds since 1970."""
    try:
        lines = messages(layout).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            found.append(message)
    return found
