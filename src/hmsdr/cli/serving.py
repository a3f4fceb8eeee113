"""A long-running process: until which signal it runs, and where it serves meanwhile. A face only."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from hmsdr.errors import RefusedError

_SHUTDOWN_SECONDS = 2.0


def address(text: str, what: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` for `what`.

    Raises:
        RefusedError: it is none.
    """
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise RefusedError(
            f"starting {what}", f"{text!r} is no HOST:PORT", "Give both, as in --listen 10.0.0.5:7443"
        )
    return host, port


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets, from now on, in the loop that runs."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def serving(
    application: web.Application, host: str, port: int, tls: ssl.SSLContext | None, what: str
) -> AsyncIterator[None]:
    """Serve `application` there for as long as the block runs.

    Raises:
        RefusedError: the port cannot be had.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise RefusedError(
                f"serving {what} on {host}:{port}",
                error.strerror or str(error),
                "Free the port, or name another with --listen and in the playbook's url",
            ) from error
        yield
    finally:
        await runner.cleanup()
