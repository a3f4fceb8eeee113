"""A chat webhook for tests: a real server that takes messages, or does not, as the test says."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web


class Receiver:
    """Keeps what was posted to it; answers with `status`, after `delay` seconds."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.tries = 0
        self.status, self.delay = 200, 0.0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/hook"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def texts(self, part: str) -> list[str]:
        return [each["text"] for each in self.messages if part in each["text"]]

    async def _receive(self, request: web.Request) -> web.Response:
        self.tries += 1
        await asyncio.sleep(self.delay)
        if self.status < 300:
            self.messages.append(await request.json())
        return web.Response(status=self.status)
