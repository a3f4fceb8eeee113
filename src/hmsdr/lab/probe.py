"""Asking the lab's servers whether they are ready, with nothing but a socket. One question, one deadline, no retries.

Used by the supervisor, which should stay small; everything that matters goes through the production drivers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from hmsdr.lab.layout import Endpoint

_OK = 200
_HEADER = 12


async def get(
    endpoint: Endpoint,
    path: str,
    *,
    deadline: float,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
) -> tuple[int, bytes] | None:
    """GET `path`: status and body; None when there was no answer within `deadline` seconds.

    Args:
        endpoint: where.
        path: with its query.
        deadline: seconds.
        headers: more of them.
        tls: for https; `name` is then checked against the certificate.
        name: the Host.
    """
    lines = [f"GET {path} HTTP/1.0", f"Host: {name or endpoint.host}", "Connection: close"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_connection(
                endpoint.host, endpoint.port, ssl=tls, server_hostname=name if tls else None
            )
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            await writer.drain()
            answer = await reader.read()
            head, _, body = answer.partition(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return None
    finally:
        if writer is not None:
            writer.close()


async def answers(endpoint: Endpoint, path: str, *, deadline: float, ca_file: Path | None = None) -> bool:
    """Whether GET `path` gives 200 within `deadline` seconds; over TLS when `ca_file` says whom to trust."""
    if ca_file is None:
        found = await get(endpoint, path, deadline=deadline)
    elif not ca_file.exists():
        return False
    else:
        tls = ssl.create_default_context(cafile=ca_file)
        found = await get(endpoint, path, deadline=deadline, tls=tls, name=endpoint.host)
    return found is not None and found[0] == _OK


async def get_json(
    endpoint: Endpoint, path: str, *, deadline: float, headers: dict[str, str] | None = None
) -> Any:
    """The JSON behind GET `path`; None when it is not 200, no JSON, or late."""
    found = await get(endpoint, path, deadline=deadline, headers=headers)
    if found is None or found[0] != _OK:
        return None
    with suppress(ValueError):
        return json.loads(found[1])
    return None


async def resolves(server: Endpoint, name: str, *, deadline: float) -> bool:
    """Whether `server` gives an address for `name` over UDP within `deadline` seconds."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split("."))
    query = struct.pack("!6H", 0x686D, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        try:
            async with asyncio.timeout(deadline):
                await loop.sock_connect(channel, (server.host, server.port))
                await loop.sock_sendall(channel, query)
                answer = await loop.sock_recv(channel, 4096)
        except (OSError, TimeoutError):
            return False
    return len(answer) > _HEADER and answer[3] & 0x0F == 0 and struct.unpack("!H", answer[6:8])[0] > 0
