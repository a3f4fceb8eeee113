"""Running a lab's servers: starting one, noticing its end, starting it again unless it was broken on purpose.

Every server is a direct child that dies with the supervisor (``PR_SET_PDEATHSIG``). Order and readiness are the
caller's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hmsdr.errors import FailedError
from hmsdr.lab import binaries, wires
from hmsdr.lab.layout import LAB_ENV, REGION_ENV, Layout
from hmsdr.lab.processes import DIE_WITH_PARENT
from hmsdr.lab.servers import Server

_BACKOFF = (0.2, 1.0, 3.0, 10.0)
_STEADY_SECONDS = 30.0
_READY_PAUSE = 0.03
_TAIL = 6


class Component:
    """One server and the process that it is now.

    Args:
        layout: the lab.
        server: what to run.
        ended: told when the process ended by itself.
    """

    def __init__(self, layout: Layout, server: Server, ended: Callable[[str], None]) -> None:
        self.server = server
        self.restarts = 0
        self.held = False
        """Broken on purpose: its end is no reason to start it."""
        self._layout = layout
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._started = 0.0
        self._quick = 0

    @property
    def pid(self) -> int | None:
        """Of the live process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Start it unless it runs."""
        if self.pid is not None:
            return
        self.held = False
        server = self.server
        for directory in (server.log.parent, server.directory):
            directory.mkdir(parents=True, exist_ok=True)
        with server.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*DIE_WITH_PARENT, *self._there(), *server.command],
                cwd=server.directory,
                env=environment(self._layout, server.region),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._started = time.monotonic()
        handle = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(handle, self._died, handle, self._process)

    def _there(self) -> tuple[str, ...]:
        """How a command comes to where this server stands."""
        place = self.server.site or self.server.region
        return wires.prefix(place) if self._layout.namespaces else ()

    def hold(self) -> None:
        """From now on it stays down until `start`."""
        self.held = True
        if self._again is not None:
            self._again.cancel()

    async def until_ready(self, seconds: float, *, however_often: bool = False) -> None:
        """Wait until it is ready.

        Args:
            seconds: for how long.
            however_often: it may end meanwhile, and is started again: controllers are crash-only.

        Raises:
            FailedError: it was not within `seconds`, or it ended; the end of its log is in the text.
        """
        ends = time.monotonic() + seconds
        while not await self.server.ready():
            ended = self.pid is None and not however_often
            if ended or time.monotonic() > ends:
                found = "it ended" if self.pid is None else f"it is not ready after {seconds:g} s"
                raise FailedError(
                    f"starting {self.server.key}", f"{found}: {self.last_words()}", "See its log"
                )
            await asyncio.sleep(_READY_PAUSE)

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            lines = self.server.log.read_text(errors="replace").splitlines()[-_TAIL:]
            return " | ".join(line.strip() for line in lines) or "(it said nothing)"
        return "(it has no log)"

    def _died(self, handle: int, process: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(handle)
        os.close(handle)
        process.wait()
        if self.held or process is not self._process:
            return
        self._ended(f"{self.server.key} ended ({_how(process.returncode)})")
        self._quick = 0 if time.monotonic() - self._started > _STEADY_SECONDS else self._quick + 1
        self.restarts += 1
        pause = _BACKOFF[min(self._quick, len(_BACKOFF) - 1)]
        self._again = loop.call_later(pause, self.start)


def environment(layout: Layout, region: str | None) -> dict[str, str]:
    """The environment of a process of the lab."""
    variables = {**os.environ, LAB_ENV: layout.lab_id, "PATH": binaries.search_path()}
    variables.pop(REGION_ENV, None)
    if region is not None:
        variables[REGION_ENV] = region
    return variables


def summary(component: Component) -> dict[str, Any]:
    """For `hmsdr lab status`."""
    return {
        "name": component.server.key,
        "region": component.server.region,
        "pid": component.pid,
        "restarts": component.restarts,
        "held": component.held,
    }


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
