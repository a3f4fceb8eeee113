"""``python -m hmsdr.lab.dns --lab DIR``: serves DNS on UDP and TCP, following the records in sync by long poll."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import struct
from pathlib import Path
from typing import cast

import aiohttp
import click
import dns.exception
import dns.message
import dns.rcode

from hmsdr.lab.dns.answers import Answers, Record
from hmsdr.lab.layout import CLUSTER_DOMAIN, ZONE, Layout

_CLUSTER_TTL = 5
_POLL_DEADLINE = 30.0
_RETRY_SECONDS = 0.2
_TCP_DEADLINE = 5.0
_HEADER, _RESPONSE = 12, 0x80
_log = logging.getLogger(__name__)


class Server(asyncio.DatagramProtocol):
    """Answers from the newest records."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._answers = Answers(cluster_records(layout), (ZONE, CLUSTER_DOMAIN))
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question; what is no question is ignored."""
        answer = self._respond(data)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question over TCP."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            async with asyncio.timeout(_TCP_DEADLINE):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self._respond(await reader.readexactly(length))
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        writer.close()

    async def follow(self) -> None:
        """Learn new records until cancelled."""
        serial = 0
        url = f"http://{self._layout.aws}/__lab/zone"
        timeout = aiohttp.ClientTimeout(total=_POLL_DEADLINE)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(url, params={"since": serial}) as answer:
                        body = json.loads(await answer.read())
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    # The old answers stay: resolvers go on while the control plane is away.
                    await asyncio.sleep(_RETRY_SECONDS)
                    serial = 0
                    continue
                serial = int(body["serial"])
                records = [
                    Record(item["name"], item["type"], item["ttl"], tuple(item["values"]), item["weight"])
                    for item in body["records"]
                ]
                self._answers = Answers([*cluster_records(self._layout), *records], (ZONE, CLUSTER_DOMAIN))

    def _respond(self, data: bytes) -> bytes | None:
        """Always an answer to a question, be it that it makes no sense or that we failed; to an answer, never one."""
        if len(data) < _HEADER or data[2] & _RESPONSE:
            return None
        try:
            query = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError):
            return _formerr(data)
        try:
            return self._answers.answer(query, random.random()).to_wire()  # noqa: S311 - picks among weights
        except Exception:  # noqa: BLE001 - whatever a record is, whoever asked must not wait for ever
            _log.exception("answering %s", [str(each) for each in query.question])
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()


def _formerr(data: bytes) -> bytes:
    """The header alone: what it asked cannot be read."""
    flags = (data[2] | _RESPONSE) & 0xF9, dns.rcode.FORMERR
    return data[:2] + bytes(flags) + bytes(_HEADER - 4)


def cluster_records(layout: Layout) -> list[Record]:
    """The names that applications use inside the clusters: one server each, wherever its role moves."""
    records = []
    for region in layout.regions.values():
        for store, endpoint in (("postgres", region.postgres), ("redis", region.redis)):
            name = f"{store}-{region.ordinal_name}.{CLUSTER_DOMAIN}."
            records.append(Record(name, "A", _CLUSTER_TTL, (endpoint.host,)))
    return records


@click.command()
@click.option("--lab", type=click.Path(path_type=Path), required=True)
def main(lab: Path) -> None:
    """Serve the lab's DNS."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(Layout.load(lab)))


async def _run(layout: Layout) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    server = Server(layout)
    where = (layout.dns.host, layout.dns.port)
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=where)
    tcp = await asyncio.start_server(server.tcp, *where)
    try:
        await server.follow()
    finally:
        tcp.close()
        transport.close()


if __name__ == "__main__":
    main()
