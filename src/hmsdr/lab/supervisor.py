"""``python -m hmsdr.lab.supervisor``: the one long-running process of a lab; parent of its servers, keeper of its faults.

It is started by `hmsdr.lab.control.up`, which holds the other end of ``--owner``: when that end closes before the
lab is up, everything is taken down again. Afterwards it serves requests, one JSON line each, on ``--control``. It ends when
whoever attached itself to the lab is gone, and when somebody removed the lab's directory under it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.lab.faults import Faults
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import sweep
from hmsdr.lab.reaper import fork_reaper

DOWN_SECONDS = 8.0
_LINE_LIMIT = 1 << 20
_LOOK_SECONDS = 1.0


class Supervisor:
    """A lab from up to down.

    Args:
        layout: the lab.
        created: directories that go with it, innermost first; the lab's own is always emptied.
        reaper: pid of the child that is left alone until the end.
    """

    def __init__(self, layout: Layout, created: list[Path], reaper: int, *, keep_failed: bool) -> None:
        from hmsdr.lab import council  # noqa: PLC0415 - after the fork
        from hmsdr.lab.components import Component  # noqa: PLC0415
        from hmsdr.lab.servers import of_region, shared  # noqa: PLC0415

        self.layout = layout
        self._created = created
        self._reaper = reaper
        self._keep_failed = keep_failed
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lab")
        servers = [
            *shared(layout),
            *(server for name in layout.regions for server in of_region(layout, name)),
            *council.servers(layout),
        ]
        self.components = {server.key: Component(layout, server, self._log) for server in servers}
        self.faults = Faults(layout, self.components)
        self._stop: asyncio.Future[bool] | None = None
        self._since = time.time()
        self._up = False

    async def run(self, control: socket.socket, owner: socket.socket) -> None:
        """Bring the lab up, serve until it is taken down."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop, False)
        reader, writer = await asyncio.open_unix_connection(sock=owner, limit=_LINE_LIMIT)
        server = await asyncio.start_unix_server(self._serve, sock=control, limit=_LINE_LIMIT)
        failed = await self._bring_up(reader, writer)
        if failed is None:
            self._log("up")
            self._up = True
            _say(writer, {"up": time.time() - self._since})
            watching = asyncio.create_task(self._watch_directory())
            keep = await self._stop
            watching.cancel()
            self._up = False
        else:
            keep = self._keep_failed
        await self._take_down(keep=keep)
        if failed is not None:
            _say(writer, failed)
        server.close()
        with suppress(OSError):
            await writer.drain()
        writer.close()

    def stop(self, keep: bool) -> None:
        """End the lab; with `keep`, its directory stays."""
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(keep)

    async def _bring_up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> dict[str, Any] | None:
        """None when it is up, else what to tell the one who asked for it."""
        from hmsdr.lab.bringup import BringUp  # noqa: PLC0415 - after the fork

        assert self._stop is not None  # noqa: S101 - set by run
        began = time.monotonic()

        def say(step: str, state: str) -> None:
            at = round(time.monotonic() - began, 3)
            self._log(f"{at:7.3f} {state:<9} {step}")
            _say(writer, {"step": step, "state": state, "at": at})

        work = asyncio.create_task(BringUp(self.layout, self.components, self._executor, say).run())
        gone = asyncio.create_task(reader.read(1))
        waits: list[asyncio.Future[Any]] = [work, gone, self._stop]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            return {"interrupted": True}
        if work.exception() is None:
            return None
        error = _first(work.exception())
        self._log(f"failed: {error}")
        return _problem(error)

    async def _watch_directory(self) -> None:
        """Servers write on into a directory that was removed, and make parts of it anew: nobody could take that lab down."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self.layout.file.exists():
                self._log("its directory was removed")
                self.stop(False)

    async def _take_down(self, *, keep: bool) -> None:
        for component in self.components.values():
            component.hold()
        self.faults.end()
        # Threads of the bringing up may start another program until they notice: sweep, join, sweep again.
        self._executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._sweep)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._executor.shutdown), DOWN_SECONDS)
        await asyncio.to_thread(self._sweep)
        if keep:
            return
        for _ in range(3):  # a process that died a moment ago may still have closed a file into being
            shutil.rmtree(self.layout.directory, ignore_errors=True)
            if not self.layout.directory.exists():
                break
        if self.layout.directory not in self._created:
            self.layout.directory.mkdir(exist_ok=True)
        for directory in self._created:
            with suppress(OSError):
                directory.rmdir()

    def _sweep(self) -> None:
        sweep(self.layout.lab_id, self.layout.directory, seconds=DOWN_SECONDS, keep={self._reaper})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            if _peer(writer) not in (0, os.geteuid()):
                return
            request = json.loads(await reader.readline())
            try:
                answer = await self._answer(request)
            except HmsdrError as error:
                answer = _problem(error)
            if request.get("do") == "down":
                self.stop(bool(request.get("keep")))  # also if who asked hears the answer no more
            _say(writer, answer)
            await writer.drain()
            if request.get("do") == "attach" and await reader.read(1) == b"":
                self._log("whoever was attached to it is gone")
                self.stop(False)
        writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("do") == "ping":
            return {"pid": os.getpid()}
        if request.get("do") == "down":
            return {"stopping": True}
        if request.get("do") == "attach":
            return {"attached": True}
        if request.get("do") == "status":
            from hmsdr.lab.components import summary  # noqa: PLC0415

            return {
                "since": self._since,
                "up": self._up,
                "pid": os.getpid(),
                "reaper": self._reaper,
                "components": [summary(component) for component in self.components.values()],
                "faults": self.faults.list(),
            }
        if request.get("do") == "break":
            return await self.faults.break_(
                request["fault"], request.get("region"), request.get("service"), hold=request["hold"]
            )
        if request.get("do") == "heal":
            return await self.faults.heal()
        raise RefusedError(
            "asking the lab", f"it does not know {request.get('do')!r}", "Use the same version"
        )

    def _log(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - its log


def _say(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(line).encode() + b"\n")


def _problem(error: BaseException) -> dict[str, Any]:
    if isinstance(error, HmsdrError):
        parts = {"doing": error.doing, "found": error.found, "remedy": error.remedy}
        return {"error": {**parts, "refused": isinstance(error, RefusedError)}}
    found = f"{type(error).__name__}: {error}"
    return {
        "error": {"doing": "bringing the lab up", "found": found, "remedy": "Report it", "refused": False}
    }


def _first(error: BaseException | None) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        known = [each for each in error.exceptions if isinstance(each, HmsdrError | BaseExceptionGroup)]
        error = (known or list(error.exceptions))[0]
    return error or FailedError("bringing the lab up", "it was cancelled", "Try again")


def _peer(writer: asyncio.StreamWriter) -> int:
    """User id of who is at the other end: an abstract socket has no permissions of its own."""
    connection = writer.get_extra_info("socket")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hmsdr.lab.supervisor")
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--control", type=int, required=True, help="listening Unix socket (descriptor)")
    parser.add_argument("--owner", type=int, required=True, help="connection to who asked (descriptor)")
    parser.add_argument(
        "--claim", type=int, action="append", default=[], help="claim of a network (descriptor)"
    )
    parser.add_argument(
        "--created", type=Path, action="append", default=[], help="directory to remove at the end"
    )
    parser.add_argument("--keep-failed", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Run it."""
    given = _arguments()
    for descriptor in (given.control, given.owner, *given.claim):
        os.set_inheritable(descriptor, False)
    layout = Layout.load(given.lab)
    reaper = fork_reaper(layout.lab_id, layout.directory, {given.control, *given.claim})
    control, owner = socket.socket(fileno=given.control), socket.socket(fileno=given.owner)
    supervisor = Supervisor(layout, given.created, reaper, keep_failed=given.keep_failed)
    asyncio.run(supervisor.run(control, owner))


if __name__ == "__main__":
    main()
