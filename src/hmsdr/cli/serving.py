"""Where a long-running process serves: reading HOST:PORT, and listening there. A face only."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from aiohttp import web

from hmsdr.errors import RefusedError


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


async def listen(runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None, what: str) -> None:
    """Serve `runner` there.

    Raises:
        RefusedError: the port cannot be had.
    """
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError as error:
        raise RefusedError(
            f"serving {what} on {host}:{port}",
            error.strerror or str(error),
            "Free the port, or name another with --listen and in the playbook's url",
        ) from error
