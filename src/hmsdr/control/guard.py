"""The guard: a tiny process that kills the database when the lease last published has run out (SAFETY rule 2).

It runs apart from the agent, on the standard library alone, and trusts nothing but a small shared file and the
boot-time clock. It never starts, promotes or extends anything, and waits for nobody. The agent writes through `GuardFile`; a second
guard takes over from the first without a gap: the old one leaves when it sees the new one's generation.
"""

from __future__ import annotations

import _thread
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from hmsdr.control.proctable import boottime, kill_database

_LAYOUT = struct.Struct("<8sQQQQQQQQ")
# magic, deadline ns, its complement, generation wanted, generation active, guard pid, kills, killed at ns, last look ns
_MAGIC = b"hmsdrG01"
_FIELD = struct.Struct("<Q")
_ALL_ONES = (1 << 64) - 1
_LONGEST_SLEEP = 0.05
_KILL_SECONDS = 1.0
_NANO = 1_000_000_000
SIZE = 4096


class GuardFile:
    """The shared file: the deadline the agent publishes, and the guard's signs of life.

    All times are CLOCK_BOOTTIME, so the file means nothing after a reboot; then the database is dead too.
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < SIZE:
                os.ftruncate(descriptor, SIZE)
            self._begin(mmap.mmap(descriptor, SIZE))
        finally:
            os.close(descriptor)

    def _begin(self, memory: mmap.mmap | bytearray) -> None:
        self._map = memory
        if self._map[:8] != _MAGIC:
            self._map[: _LAYOUT.size] = _LAYOUT.pack(_MAGIC, 0, _ALL_ONES, 0, 0, 0, 0, 0, 0)

    def publish(self, deadline: float | None) -> None:
        """Let the database live until `deadline` (boot-time seconds); None: there is no right to guard."""
        value = 0 if deadline is None else max(1, int(deadline * _NANO))
        self._put(1, value)
        self._put(2, value ^ _ALL_ONES)

    def deadline(self) -> float | None:
        """The deadline last published whole; None when there is none."""
        for _ in range(1000):
            value = self._get(1)
            if value ^ _ALL_ONES == self._get(2):
                return value / _NANO if value else None
        # Half published, and whoever wrote it does not go on: the earlier of the two is the safe one.
        halves = [half for half in (self._get(1), self._get(2) ^ _ALL_ONES) if half]
        return min(halves) / _NANO if halves else None

    def want_generation(self) -> int:
        """A new generation number, for a guard that is about to be started."""
        generation = self._get(3) + 1
        self._put(3, generation)
        return generation

    @property
    def generation(self) -> int:
        """Generation of the guard that is on duty."""
        return self._get(4)

    @property
    def guard_pid(self) -> int:
        """Process id of the guard on duty."""
        return self._get(5)

    @property
    def kills(self) -> int:
        """How often the guard found the deadline passed and something to kill."""
        return self._get(6)

    @property
    def killed_at(self) -> float | None:
        """When it last proved the database dead after a kill (boot-time seconds)."""
        return self._get(7) / _NANO or None

    @property
    def last_look(self) -> float:
        """When the guard last looked (boot-time seconds)."""
        return self._get(8) / _NANO

    def take_duty(self, generation: int) -> None:
        """The guard of `generation` is on duty from now on."""
        self._put(5, os.getpid())
        self._put(4, generation)

    def looked(self) -> None:
        """The guard just looked."""
        self._put(8, int(boottime() * _NANO))

    def count_kill(self) -> None:
        """The guard killed the database and proved it dead."""
        self._put(7, int(boottime() * _NANO))
        self._put(6, self.kills + 1)

    def close(self) -> None:
        """Unmap the file."""
        if isinstance(self._map, mmap.mmap):
            self._map.close()

    def _get(self, index: int) -> int:
        value: int = _FIELD.unpack_from(self._map, index * 8)[0]
        return value

    def _put(self, index: int, value: int) -> None:
        _FIELD.pack_into(self._map, index * 8, value)


def watch(file: GuardFile, directory: str, generation: int, owner: tuple[int, int] | None) -> None:
    """Stand guard until superseded, or until the agent is gone and there is nothing left to guard."""
    agent = os.getppid()
    file.take_duty(generation)

    def kill() -> tuple[int, int]:
        return kill_database(directory, _KILL_SECONDS, owner)

    def said(deadline: float, killed: int) -> None:
        _say(directory, deadline, killed)

    while (wait := look(file, generation, kill, said, orphaned=lambda: os.getppid() != agent)) is not None:
        time.sleep(wait)


def look(
    file: GuardFile,
    generation: int,
    kill: Callable[[], tuple[int, int]],
    said: Callable[[float, int], None],
    *,
    orphaned: Callable[[], bool],
) -> float | None:
    """One look of the guard of `generation`: kill when the deadline has passed. Gives the seconds to the next look; None: leave.

    Args:
        file: where the deadline is.
        generation: ours; another one relieves us.
        kill: kills every process of the database; gives how many were killed, and how many survived.
        said: told of a kill: the deadline, and how many.
        orphaned: whether the agent that started us is gone.
    """
    if file.generation != generation:
        return None
    file.looked()
    deadline = file.deadline()
    now = boottime()
    if deadline is not None and now >= deadline:
        killed, survivors = kill()
        if survivors:
            return 0.0
        if killed:
            file.count_kill()
            said(deadline, killed)
        if orphaned():
            return None
    elif deadline is None and orphaned():
        return None
    wait = _LONGEST_SLEEP if deadline is None or now >= deadline else deadline - now
    return min(_LONGEST_SLEEP, max(0.0005, wait))


def main(arguments: list[str]) -> int:
    """Run as ``guard FILE DATA_DIRECTORY GENERATION [UID GID]``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the next guard, or the end of what it guards, ends it
    path, directory, generation, *owner = arguments
    with suppress(OSError):
        os.nice(-10)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - see proctable
        score.write("-900")
    watch(GuardFile(path), directory, int(generation), (int(owner[0]), int(owner[1])) if owner else None)
    return 0


def _say(directory: str, deadline: float, killed: int) -> None:
    """Tell it, without waiting for whoever reads: one message at a time is on its way, another one is not told."""
    late = (boottime() - deadline) * 1000
    line = (
        f'{{"level": "warning", "event": "guard.killed", "directory": "{directory}", '
        f'"processes": {killed}, "dead_after_deadline_ms": {late:.1f}}}\n'
    )
    if _saying.acquire(blocking=False):
        try:
            _thread.start_new_thread(_write, (line.encode(),))
        except RuntimeError:
            _saying.release()


def _write(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:
        pass
    finally:
        _saying.release()


_saying = _thread.allocate_lock()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
