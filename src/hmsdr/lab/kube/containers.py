"""How the kubelet starts a container's process: a fork of the services' code where it can, else a program of its own.

A process is a session of its own and dies with the kubelet, as containers die with their machine. Restarts and probes
are the kubelet's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hmsdr.lab.kube.forkserver import LARGEST_MESSAGE
from hmsdr.lab.processes import DIE_WITH_PARENT

_FORK_SECONDS = 30.0


class Container(Protocol):
    """A running process."""

    @property
    def pid(self) -> int:
        """Of the process, which leads a session of its own."""

    async def wait(self) -> int:
        """The exit status; minus the signal's number if it was killed."""

    def send_signal(self, signal: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: it has ended.
        """


async def run(
    command: list[str], environment: Mapping[str, str], directory: Path, log: Path
) -> asyncio.subprocess.Process:
    """Start a program.

    Raises:
        OSError: there is no such program, or it may not be run.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *DIE_WITH_PARENT,
            *command,
            env=environment,
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


class Forked:
    """A pod's process that the fork server made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """The exit status; minus the signal's number if it was killed."""
        return await asyncio.shield(self.code)

    def send_signal(self, signal: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self.code.done():
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, signal)


class ForkServer:
    """The kubelet's end of a fork server; started with the first pod, and again if it should die.

    Args:
        environment: what the server itself runs with; each fork has its own.
        directory: where it works.
        log: where it writes.
    """

    def __init__(self, environment: Mapping[str, str], directory: Path, log: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._log = log
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Forked]] = {}
        self._forks: dict[int, Forked] = {}

    async def fork(self, name: str, environment: Mapping[str, str], directory: Path, log: Path) -> Forked:
        """Start a pod of one of the hospital's services.

        Raises:
            OSError: the fork server does not come up, or does not answer.
        """
        async with self._starting:
            if self._socket is None:
                await self.start()
        number = next(self._numbers)
        asked: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        order = {
            "order": number,
            "name": name,
            "environment": dict(environment),
            "directory": str(directory),
        }
        try:
            with log.open("ab") as output:
                if self._socket is None:
                    raise ConnectionResetError(f"the fork server has just ended; see {self._log}")
                socket.send_fds(self._socket, [json.dumps(order).encode()], [output.fileno()])
            return await asyncio.wait_for(asked, _FORK_SECONDS)
        except TimeoutError as error:
            raise OSError(
                f"the fork server did not answer in {_FORK_SECONDS:g} s; see {self._log}"
            ) from error
        finally:
            self._asked.pop(number, None)

    async def start(self) -> None:
        """Start the server; what it is to load takes a moment, and orders wait for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(*DIE_WITH_PARENT, sys.executable, "-m", "hmsdr.lab.kube.forkserver", str(theirs.fileno())),
                env=self._environment,
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
            )
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._hear, ours)

    async def stop(self) -> None:
        """End it, and with it every fork that still runs."""
        self._gone()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _hear(self, ours: socket.socket) -> None:
        try:
            data = ours.recv(LARGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        answer: dict[str, Any] = json.loads(data)
        if "code" in answer:
            if (ended := self._forks.pop(answer["pid"], None)) is not None:
                ended.code.set_result(answer["code"])
            return
        fork = self._forks[answer["pid"]] = Forked(answer["pid"])
        asked = self._asked.get(answer["order"])
        if asked is not None and not asked.done():
            asked.set_result(fork)
        else:  # nobody waits for it any more
            fork.send_signal(signal.SIGKILL)

    def _gone(self) -> None:
        """The server has ended: so has every fork, by its parent's death."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ConnectionResetError(f"the fork server ended; see {self._log}"))
        for fork in self._forks.values():
            fork.code.set_result(-signal.SIGKILL)
        self._forks.clear()
