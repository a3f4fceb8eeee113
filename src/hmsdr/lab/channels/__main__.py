"""``python -m hmsdr.lab.channels --lab DIR``: webhooks as of Slack and Teams, a gateway for text messages and calls, and a mail server, until SIGTERM.

What is accepted is kept (`hmsdr.lab.channels.kept`) before it is answered. A wrong token, an empty text and a body that is no JSON are
refused with Slack's words. Too many are refused as the real ones do it: Slack by 429 with ``Retry-After``, Teams by a 200 whose
text says that it was not delivered.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import time
from pathlib import Path

import click
from aiohttp import web

from hmsdr.lab.channels.allowance import Allowance
from hmsdr.lab.channels.gateway import PhoneGateway
from hmsdr.lab.channels.kept import Kept
from hmsdr.lab.channels.mail import MailServer
from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import MAILBOXES, webhook_token

_LARGEST = 64 * 1024
_STOP_SECONDS = 0.5
_TEAMS_TOO_MANY = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId lab"


class Receivers:
    """The webhooks of one lab."""

    def __init__(self, layout: Layout, kept: Kept) -> None:
        self._tokens = {kind: webhook_token(layout, kind) for kind in ("slack", "teams")}
        self._kept = kept
        self._gateway = PhoneGateway(layout, kept)
        # Slack's documented message a second, with short bursts; Teams's four a second.
        self._allowed = {"slack": Allowance(1.0, 20), "teams": Allowance(4.0, 20)}

    def app(self) -> web.Application:
        """The application with all routes."""
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_get("/healthz", self._healthy)
        self._gateway.add_routes(app)
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
        return self._take(kind, channel, text, message.get("key"))

    def _take(self, kind: str, channel: str, text: str, key: object) -> web.Response:
        if wait := self._allowed[kind].wait(time.monotonic()):
            if kind == "teams":
                return web.Response(text=_TEAMS_TOO_MANY)
            return web.Response(status=429, text="rate_limited", headers={"Retry-After": str(wait)})
        try:
            self._kept.add(kind, channel, text, key=key)
        except OSError:
            return web.Response(status=500, text="rollup_error")
        return web.Response(text="1" if kind == "teams" else "ok")


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
    kept = Kept(layout)
    mail = await MailServer(kept, MAILBOXES).start(layout.mail.host, layout.mail.port)
    runner = web.AppRunner(Receivers(layout, kept).app(), access_log=None, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, layout.channels.host, layout.channels.port, reuse_address=True).start()
        await stop.wait()
    finally:
        mail.close()
        await runner.cleanup()


if __name__ == "__main__":
    main()
