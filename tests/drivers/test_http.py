"""The HTTP probe against real sockets, certificates and a name server, in each way that a network can fail."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import dns.message
import pytest
import pytest_asyncio
from aiohttp import web

from hmsdr.drivers.errors import PermanentError
from hmsdr.drivers.http import BODY_LIMIT, HttpOutcome, HttpProbe
from hmsdr.lab.dns.answers import Answers, Record
from hmsdr.lab.tls import write_certificates

NAME = "api.hms.enterprise.com"
HTTP, HTTPS, SILENT, RESETTING, STRANGE, NOBODY = range(18080, 18086)
_Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Net:
    """Servers on one loopback address."""

    def __init__(self, host: str, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.dns = f"{host}:15353"
        self.connections: set[str] = set()

    def probe(self) -> HttpProbe:
        return HttpProbe([self.dns], self.directory / "ca.pem")

    async def page(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(str(request.transport and request.transport.get_extra_info("peername")))
        if request.path == "/slow":
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(b"begun")
            await asyncio.sleep(30)
        if request.path == "/large":
            return web.Response(body=b"x" * (BODY_LIMIT * 3))
        if request.path == "/away":
            raise web.HTTPFound("/")
        status = 503 if request.path == "/ill" else 200
        return web.json_response({"host": request.host}, status=status, headers={"X-HMS-Region": "us-east-1"})


class Dns(asyncio.DatagramProtocol):
    def __init__(self, host: str) -> None:
        self.host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        if "silence" not in str(query.question[0].name):
            records = [Record(f"{NAME}.", "A", 1, (self.host,))]
            answer = Answers(records, ("hms.enterprise.com",)).answer(query, 0.5)
            self.transport.sendto(answer.to_wire(), addr)  # type: ignore[attr-defined]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    own = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"220 this is not HTTP\r\n\r\n")
    await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    host = f"127.{random.randrange(200, 240)}.{random.randrange(1, 255)}.1"
    made = Net(host, tmp_path)
    write_certificates(tmp_path, [NAME], [host])
    app = web.Application()
    app.router.add_get("/{path:.*}", made.page)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.load_cert_chain(tmp_path / "ingress.pem", tmp_path / "ingress.key")
    await web.TCPSite(runner, host, HTTP).start()
    await web.TCPSite(runner, host, HTTPS, ssl_context=secure).start()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Dns(host), local_addr=(host, 15353))
    talks: list[tuple[int, _Talk]] = [(SILENT, silent), (RESETTING, resetting), (STRANGE, strange)]
    servers = [await asyncio.start_server(talk, host, port) for port, talk in talks]
    yield made
    for server in servers:
        server.close()
    transport.close()
    await runner.cleanup()


@pytest.mark.req("FM-4", "SV-3")
async def test_an_answer_is_told_with_status_headers_body_and_address(net: Net) -> None:
    probe = net.probe()
    well = await probe.get(f"https://{NAME}:{HTTPS}/health", 2)
    assert (well.outcome, well.status, well.address) == (HttpOutcome.ANSWERED, 200, net.host)
    assert well.headers["x-hms-region"] == "us-east-1"
    assert NAME.encode() in well.body
    ill = await probe.get(f"https://{NAME}:{HTTPS}/ill", deadline=2)
    assert (ill.outcome, ill.status) == (HttpOutcome.ANSWERED, 503)
    assert (await probe.get(f"http://{NAME}:{HTTP}/away", 2)).status == 302
    assert len((await probe.get(f"http://{NAME}:{HTTP}/large", 2)).body) == BODY_LIMIT


async def test_via_goes_elsewhere_with_the_name_of_the_url(net: Net) -> None:
    probe = HttpProbe([], net.directory / "ca.pem")
    answer = await probe.get(f"https://{NAME}:{HTTPS}/", 2, via=net.host)
    assert (answer.status, NAME.encode() in answer.body) == (200, True)
    answer = await probe.get(f"https://{NAME}/", 2, via=f"{net.host}:{HTTPS}")
    assert answer.status == 200, answer
    answer = await probe.get(f"https://{net.host}:{HTTPS}/", 2)
    assert answer.status == 200, answer


@pytest.mark.parametrize(
    ("port", "outcome", "word"),
    [
        (NOBODY, HttpOutcome.REFUSED, "connection refused"),
        (SILENT, HttpOutcome.HALF_OPEN, "not one byte"),
        (RESETTING, HttpOutcome.RESET, ""),
        (STRANGE, HttpOutcome.RESET, ""),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_a_broken_peer_looks_like(
    net: Net, scheme: str, port: int, outcome: HttpOutcome, word: str
) -> None:
    answer = await net.probe().get(f"{scheme}://{NAME}:{port}/", 0.4)
    if (scheme, port) == ("https", STRANGE):
        outcome = HttpOutcome.TLS
    assert answer.outcome is outcome, answer
    assert word in answer.found
    assert answer.status is None
    assert answer.address == net.host
    assert answer.seconds < 1


async def test_an_answer_slower_than_the_deadline_is_a_timeout(net: Net) -> None:
    began = time.monotonic()
    answer = await net.probe().get(f"http://{NAME}:{HTTP}/slow", 0.3)
    assert answer.outcome is HttpOutcome.TIMEOUT
    assert 0.25 < time.monotonic() - began < 1


async def test_a_certificate_is_for_the_name_and_from_the_authority(net: Net, tmp_path: Path) -> None:
    wrong_name = await net.probe().get(f"https://other.enterprise.com:{HTTPS}/", 2, via=net.host)
    assert (wrong_name.outcome, "other.enterprise.com" in wrong_name.found) == (HttpOutcome.TLS, True)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    write_certificates(stranger, [NAME], [net.host])
    unknown = await HttpProbe([net.dns], stranger / "ca.pem").get(f"https://{NAME}:{HTTPS}/", 2)
    assert unknown.outcome is HttpOutcome.TLS
    plain = await net.probe().get(f"https://{NAME}:{HTTP}/", 2)
    assert plain.outcome is HttpOutcome.TLS
    with pytest.raises(PermanentError, match=r"missing\.pem"):
        await HttpProbe([net.dns], tmp_path / "missing.pem").get(f"https://{NAME}:{HTTPS}/", 2)


async def test_names_that_have_no_address_and_name_servers_that_do_not_answer(net: Net) -> None:
    probe = net.probe()
    for name in ("nobody.hms.enterprise.com", "elsewhere.example"):
        answer = await probe.get(f"http://{name}:{HTTP}/", 1)
        assert (answer.outcome, answer.address) == (HttpOutcome.DNS, None)
    answer = await probe.get(f"http://silence.hms.enterprise.com:{HTTP}/", 0.3)
    assert answer.outcome is HttpOutcome.DNS
    assert answer.seconds < 1
    second = HttpProbe([f"{net.host}:1", net.dns], None)
    assert (await second.get(f"http://{NAME}:{HTTP}/", 2)).status == 200


async def test_connections_are_fresh_unless_reuse_is_asked_for(net: Net) -> None:
    probe = net.probe()
    for _ in range(3):
        assert (await probe.get(f"https://{NAME}:{HTTPS}/", 2)).status == 200
    assert len(net.connections) == 3
    net.connections.clear()
    for _ in range(3):
        assert (await probe.get(f"https://{NAME}:{HTTPS}/", 2, reuse=True)).status == 200
    assert len(net.connections) == 1
    await probe.close()


async def test_a_probe_that_is_cancelled_leaves_nothing_behind(net: Net) -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(net.probe().get(f"http://{NAME}:{SILENT}/", 30))
    await asyncio.wait({task}, timeout=0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [each for each in asyncio.all_tasks() - before if "_read" in str(each)]
