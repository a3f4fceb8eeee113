"""``python -m hmsdr.lab.delaying PORT MILLISECONDS``: a relay that hands every byte on late, both ways. For labs of `wires` only.

The kernel here has no `tc netem`. So the packet filter of a place hands what its programs connect to elsewhere to this relay,
which asks the kernel where it was meant to go. It reads nothing of what it hands on.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import suppress

MARK = 77
"""Of the relay's own packets: the filter lets them pass."""
_ORIGINAL_DESTINATION = 80
_CHUNK = 64 * 1024
_WAITING = 1000
"""Chunks under way in one direction, at most."""
_CONNECT_SECONDS = 30.0


async def relay(port: int, seconds: float) -> None:
    """Serve on the loopback address of this network, for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(2 * seconds)  # a connection is there after a round trip
            there, back = await _onward(writer)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_late(reader, back, seconds))
            group.create_task(_late(there, writer, seconds))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _onward(writer: asyncio.StreamWriter) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to where `writer`'s peer wanted to go."""
    accepted: socket.socket = writer.get_extra_info("socket")
    raw = accepted.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16)
    port, address = struct.unpack("!2xH4s8x", raw)
    onward = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        onward.setblocking(False)
        onward.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(onward, (socket.inet_ntoa(address), port))
            return await asyncio.open_connection(sock=onward)
    except BaseException:
        onward.close()
        raise


async def _late(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    """Copy until the end, each chunk `seconds` after it came; the end, and a reset, are handed on as late."""
    clock = asyncio.get_running_loop().time
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)

    async def take() -> None:
        data = b"?"
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            await chunks.put((clock() + seconds, data))

    taking = asyncio.create_task(take())
    with suppress(OSError):
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(due - clock())
            if not data:
                break
            sink.write(data)
            await sink.drain()
    taking.cancel()
    sink.close()


def main(arguments: list[str]) -> None:
    """Run it."""
    port, milliseconds = arguments
    asyncio.run(relay(int(port), float(milliseconds) / 1000))


if __name__ == "__main__":
    main(sys.argv[1:])
