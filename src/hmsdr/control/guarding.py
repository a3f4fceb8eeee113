"""The agent's side of the guard: keeps one on duty, publishes the lease's deadline to it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import hmsdr
from hmsdr.control.guard import GuardFile
from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.errors import FailedError

_SOURCE = Path(hmsdr.__file__).parent.parent
_START = f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from hmsdr.control.guard import main; sys.exit(main(sys.argv[1:]))"
DEFAULT_COMMAND = (sys.executable, "-S", "-E", "-s", "-c", _START)
"""Without site packages, so that it stays under 15 MB: the guard's arguments follow."""
_READY_SECONDS = 5.0


class Guarding:
    """One guard on duty for one data directory.

    Args:
        path: the shared file, in the agent's state directory.
        data_directory: what the guard kills.
        owner: whom the database runs as, when not as us.
        command: how to start a guard.
    """

    def __init__(
        self,
        path: Path,
        data_directory: Path,
        owner: tuple[int, int] | None,
        command: tuple[str, ...] = DEFAULT_COMMAND,
    ) -> None:
        self.file = GuardFile(str(path))
        self._arguments = [str(path), str(data_directory)]
        self._owner = [str(number) for number in owner] if owner else []
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether our guard runs."""
        return self._process is not None and self._process.poll() is None

    async def ensure(self) -> None:
        """Have a guard of ours on duty; one of an earlier agent leaves when it sees ours.

        Raises:
            FailedError: it does not come up.
        """
        if self.alive:
            return
        generation = self.file.want_generation()
        # A session of its own: a signal to the agent's group must not reach the guard.
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork, not a wait
            [*self._command, *self._arguments, str(generation), *self._owner],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = boottime() + _READY_SECONDS
        while self.file.generation != generation and self._process.poll() is None and boottime() < until:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
        if self.file.generation != generation:
            raise FailedError(
                "starting the guard",
                f"it did not report within {_READY_SECONDS:g} s (exit status {self._process.poll()})",
                "Look at its message above; without a guard the database is not made writable",
            )
        log("guard.on_duty", pid=self._process.pid, generation=generation)

    def publish(self, deadline: float | None) -> None:
        """Let the database live until `deadline` (boot-time seconds); None: nothing to guard."""
        self.file.publish(deadline)

    def ran_out(self) -> bool:
        """Whether the deadline published has passed: a database that is dead now did not crash, and comes back with the lease."""
        deadline = self.file.deadline()
        return deadline is not None and deadline <= boottime()

    def release(self) -> None:
        """Nothing is left to guard: send our guard home."""
        self.file.publish(None)
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, 9)
            self._process.wait(timeout=5)
