"""When each line of a container's log was seen: an index beside the log, as a container runtime stamps what it reads.

The container writes its log itself; the kubelet looks how long it is a few times a second, and notes from which byte on
what it found was new. So a time is up to one look late, and never early.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.2


def index(log: Path) -> Path:
    """Where the times of `log` stand: lines of the first and the next offset in bytes, and Unix seconds."""
    return log.with_suffix(".times")


class Clock:
    """Notes the times of one log from its beginning."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._known = 0
        with suppress(OSError):
            index(log).unlink(missing_ok=True)

    def look(self) -> None:
        """Note what is new; a disk that takes no note loses times, not the container."""
        with suppress(OSError):
            size = self._log.stat().st_size
            if size > self._known:
                with index(self._log).open("a") as file:
                    file.write(f"{self._known} {size} {time.time():.6f}\n")
                self._known = size


def lines(log: Path, content: bytes, offset: int = 0) -> Iterator[tuple[float, bytes]]:
    """Each line of `content`, which stands at `offset` of `log`, with Unix seconds of when it was seen."""
    offsets: list[int] = []
    seen: list[float] = []
    known = 0
    with suppress(OSError, ValueError):
        for note in index(log).read_text().splitlines():
            start, end, stamp = note.split()
            offsets.append(int(start))
            known = int(end)
            seen.append(float(stamp))
    for line in content.splitlines(keepends=True):
        place = bisect_right(offsets, offset) - 1
        yield (seen[place] if offset < known and place >= 0 else time.time()), line
        offset += len(line)
