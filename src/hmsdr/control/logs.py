"""Structured lines to standard error: one JSON object each, no secrets. The agent's only output."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any


def log(event: str, *, level: str = "info", **fields: Any) -> None:
    """Write one line about `event`; a reader that is gone is no reason to stop guarding a database."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "event": event,
        **fields,
    }
    try:
        sys.stderr.write(json.dumps(line, default=str) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return
