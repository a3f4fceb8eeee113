"""``python -m hmsdr.lab.channels --lab DIR``: incoming webhooks that answer as Slack's and Teams's do, until SIGTERM.

Each message that is accepted is one line of ``channels/messages.jsonl``. A wrong token, an empty text and a body that
is no JSON are refused with the words that the real ones use.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import signal
import time
from pathlib import Path

import click
from aiohttp import web

from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import webhook_token

_LARGEST = 64 * 1024
_STOP_SECONDS = 0.5


class Receivers:
    """The webhooks of one lab."""

    def __init__(self, layout: Layout) -> None:
        self._tokens = {kind: webhook_token(layout, kind) for kind in ("slack", "teams")}
        messages(layout).parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(messages(layout), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def app(self) -> web.Application:
        """The application with all routes."""
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_get("/healthz", self._healthy)
        app.router.add_post("/{kind}/{token}", self._receive)
        return app

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _receive(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        token = self._tokens.get(kind)
        given = request.match_info["token"].encode()
        if token is None or not hmac.compare_digest(token.encode(), given):
            return web.Response(status=403, text="invalid_token")
        try:
            message = json.loads(await request.read())
            text, channel = message["text"], str(message.get("channel", ""))
        except (ValueError, LookupError, TypeError):
            return web.Response(status=400, text="invalid_payload")
        if not isinstance(text, str) or not text.strip():
            return web.Response(status=400, text="no_text")
        line = {"at": time.time(), "kind": kind, "channel": channel, "text": text, "key": message.get("key")}
        os.write(self._file, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return web.Response(text="ok")


def messages(layout: Layout) -> Path:
    """Where the messages are kept, one JSON object a line."""
    return layout.directory / "channels" / "messages.jsonl"


@click.command()
@click.option(
    "--lab", required=True, type=click.Path(path_type=Path, exists=True), help="The lab's directory."
)
def main(lab: Path) -> None:
    """Receive messages until SIGTERM."""
    asyncio.run(_serve(Layout.load(lab)))


async def _serve(layout: Layout) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(Receivers(layout).app(), access_log=None, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, layout.channels.host, layout.channels.port, reuse_address=True).start()
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
