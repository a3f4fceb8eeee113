"""`kubectl exec`: a command beside a pod's process, over the WebSocket protocol of Kubernetes (v5 and v4.channel.k8s.io).

It has the pod's environment, and the commands of a database's or cache's container mean that very server. It dies with the
client's connection, with the pod's container, and with the kubelet. Promoting and stopping go to the agent, as everything that may change who writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import termios
from typing import Any

from aiohttp import WSMsgType, web

from hmsdr.lab.kube import podcommands
from hmsdr.lab.kube.kubelet import EXEC_ENV, Kubelet
from hmsdr.lab.kube.podstatus import check_container, is_ending
from hmsdr.lab.kube.status import bad_request, conflict
from hmsdr.lab.kube.store import Object, key_of

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 16 * 1024
_LONGEST_SECONDS = 3600.0
_KILL_SECONDS = 2.0
_NOT_FOUND = 127
_LARGEST_MESSAGE = 4 * 1024 * 1024


class PodExec:
    """Serves ``pods/NAME/exec``."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._numbers = itertools.count(1)

    async def serve(self, request: web.Request, pod: Object) -> web.StreamResponse:
        """Run the command; ends when it has ended or the client is gone."""
        query = request.query
        command = query.getall("command", [])
        if not command:
            raise bad_request("you must specify at least one command for the container")
        check_container(pod, query.get("container"))
        if is_ending(pod) or pod.get("status", {}).get("phase") != "Running":
            raise conflict("pods", key_of(pod)[1])
        channels = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=_LARGEST_MESSAGE)
        if not channels.can_prepare(request).ok:
            raise bad_request("exec is offered over WebSocket only: not supported by the lab")
        await channels.prepare(request)
        wants = {name: query.get(name) in {"1", "true"} for name in ("stdin", "tty")}
        session = _Session(channels, stdin=wants["stdin"], tty=wants["tty"])
        argv, env, directory = podcommands.prepare(self._kubelet, pod, command)
        mark = env[EXEC_ENV] = f"{pod['metadata']['uid']}/{next(self._numbers)}"
        self._kubelet.entered.add(pod["metadata"]["uid"])
        status, over = None, False
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                status = await session.run(argv, env, directory)
            over = status is not None
        except TimeoutError:
            status = _failure("InternalError", f"still running after {_LONGEST_SECONDS:g} s", None)
        finally:
            # What a command that has ended left in the background lives as long as the container does.
            if not over:
                await self._kubelet.end_commands(mark)
        if status is None:
            return channels
        with contextlib.suppress(ConnectionError, RuntimeError):
            await channels.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
            await channels.close()
        return channels


class _Session:
    """One command and the client's channels."""

    def __init__(self, channels: web.WebSocketResponse, *, stdin: bool, tty: bool) -> None:
        self._channels = channels
        self._stdin = stdin
        self._tty = tty
        self._terminal: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, command: list[str], env: dict[str, str], directory: str) -> dict[str, Any] | None:
        """The status that is told to the client; None when it is gone."""
        try:
            readers = await self._start(command, env, directory)
        except OSError as error:
            return _failure("InternalError", f"exec failed: {command[-1]}: {error.strerror}", _NOT_FOUND)
        process = self._process
        assert process is not None  # noqa: S101 - just started
        listening = asyncio.create_task(self._listen())
        talking = asyncio.create_task(self._talk(process, readers))
        try:
            await asyncio.wait({listening, talking}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                return None
            code = talking.result()
        except ConnectionError:
            return None
        finally:
            listening.cancel()
            talking.cancel()
            await self._end(process)
            await asyncio.gather(listening, talking, return_exceptions=True)
        if code == 0:
            return {"metadata": {}, "status": "Success"}
        number = code if code > 0 else 128 - code
        return _failure(
            "NonZeroExitCode", f"command terminated with non-zero exit code: exit status {number}", number
        )

    async def _talk(
        self, process: asyncio.subprocess.Process, readers: list[tuple[int, asyncio.StreamReader]]
    ) -> int:
        await asyncio.gather(*(self._forward(channel, reader) for channel, reader in readers))
        return await process.wait()

    async def _start(
        self, command: list[str], env: dict[str, str], directory: str
    ) -> list[tuple[int, asyncio.StreamReader]]:
        if not self._tty:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=env,
                cwd=directory,
                stdin=asyncio.subprocess.PIPE if self._stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            out, err = self._process.stdout, self._process.stderr
            assert out is not None  # noqa: S101 - pipes were asked for
            assert err is not None  # noqa: S101
            return [(_STDOUT, out), (_STDERR, err)]
        ours, theirs = pty.openpty()
        try:
            self._process = await asyncio.create_subprocess_exec(
                "setsid", "--ctty", "--wait", *command,
                env={"TERM": "xterm", **env}, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs,
            )  # fmt: skip
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._terminal = ours
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(ours), "rb", 0)
        )
        return [(_STDOUT, reader)]

    async def _forward(self, channel: int, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                data = await reader.read(_CHUNK)
            except OSError:  # a terminal whose last user is gone says EIO
                return
            if not data:
                return
            await self._channels.send_bytes(bytes([channel]) + data)

    async def _listen(self) -> None:
        """What the client sends, until it hangs up."""
        async for message in self._channels:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _STDIN:
                await self._write(data)
            elif channel == _CLOSE and data[:1] == bytes([_STDIN]):
                self._close_stdin()
            elif channel == _RESIZE and self._terminal is not None:
                self._resize(data)

    async def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._terminal is not None:
                await asyncio.to_thread(os.write, self._terminal, data)
            elif self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _resize(self, data: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, OSError):
            size = json.loads(data)
            packed = struct.pack("HHHH", int(size["Height"]), int(size["Width"]), 0, 0)
            fcntl.ioctl(self._terminal or 0, termios.TIOCSWINSZ, packed)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_SECONDS)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def _kill(self) -> None:
        """All of it: the command is the leader of a session of its own."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _failure(reason: str, message: str, code: int | None) -> dict[str, Any]:
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "reason": reason, "message": message}
    if code is not None:
        status["reason"] = "NonZeroExitCode"
        status["details"] = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return status
