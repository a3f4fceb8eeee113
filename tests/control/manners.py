"""An HTTP server whose manners a test changes while it runs: well, slow, wrong, mute; on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

DEADLINE = 15.0


class Server:
    """An HTTP server whose manners can be changed while it runs."""

    def __init__(self) -> None:
        self.status, self.delay, self.mute = 200, 0.0, False
        self.connections = self.requests = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/health"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if self.mute:
                    await reader.read()  # until the client hangs up
                    break
                await asyncio.sleep(self.delay)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % self.status)
        writer.close()


async def until(holds: Callable[[], bool], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
