"""``python -m bench.endpoints N``: N real HTTP servers in one process, each on a port of its own; writes the ports to standard output.

They answer as a healthy service does, and stay until standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from typing import cast

_BODY = json.dumps(
    {"status": "ok", "service": "patient", "region": "us-east-1", "milliseconds": 1.5}
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-HMS-Region: us-east-1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class _Healthy(asyncio.Protocol):
    """Answers each request of a connection that is kept."""

    def __init__(self) -> None:
        self._came = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer whole requests; they have no bodies."""
        *requests, self._came = (self._came + data).split(b"\r\n\r\n")
        if requests and self._transport is not None:
            self._transport.write(_ANSWER * len(requests))


async def _serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Healthy, "127.0.0.1", 0) for _ in range(count)]
    print(json.dumps([each.sockets[0].getsockname()[1] for each in servers]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve(int(sys.argv[1])))
