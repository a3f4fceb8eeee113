"""Every way in which a server can answer or not, from real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hmsdr.drivers.errors import PermanentError
from hmsdr.drivers.http import BODY_BYTES, HttpProbe, Outcome

HOST = "127.91.3.1"
NAME = "api.hms.enterprise.com"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Away\r\nX-HMS-Region: us-west-2\r\nContent-Length: 2\r\n\r\nno")
    await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")
    await writer.drain()
    await reader.read()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def gossip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"+PONG\r\n\r\n")
    await writer.drain()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            writer.write(b"x" * 8192)
            await writer.drain()
    except ConnectionError:
        return


@pytest.fixture
async def probe() -> AsyncIterator[HttpProbe]:
    made = HttpProbe()
    yield made
    await made.close()


async def test_any_status_is_an_answer(probe: HttpProbe) -> None:
    async with serving(answering) as port:
        answer = await probe.get(f"http://{HOST}:{port}/health", deadline=5)
    assert (answer.outcome, answer.status, answer.body) == (Outcome.ANSWERED, 503, b"no")
    assert answer.headers.get("x-hms-region") == "us-west-2"
    assert answer.address == HOST


@pytest.mark.parametrize(
    ("handler", "deadline", "expected"),
    [
        (silent, 0.3, Outcome.HALF_OPEN),
        (slow, 0.3, Outcome.TIMEOUT),
        (resetting, 5, Outcome.RESET),
        (gossip, 5, Outcome.RESET),
    ],
)
async def test_each_way_of_not_answering_has_its_word(
    probe: HttpProbe, handler: Handler, deadline: float, expected: Outcome
) -> None:
    async with serving(handler) as port:
        answer = await probe.get(f"http://{HOST}:{port}/", deadline=deadline)
    assert (answer.outcome, answer.status) == (expected, None)
    assert answer.found
    assert answer.seconds < 3


async def test_a_server_silent_in_the_tls_handshake_is_half_open(probe: HttpProbe) -> None:
    async with serving(silent) as port:
        answer = await probe.get(f"https://{HOST}:{port}/", deadline=0.3)
    assert answer.outcome is Outcome.HALF_OPEN


async def test_nobody_there_is_refused(probe: HttpProbe) -> None:
    async with serving(answering) as port:
        pass
    answer = await probe.get(f"http://{HOST}:{port}/", deadline=5)
    assert answer.outcome is Outcome.REFUSED


async def test_a_full_backlog_is_no_connection_in_time(probe: HttpProbe) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            answer = await probe.get(f"http://{HOST}:{address[1]}/", deadline=0.4)
        finally:
            for filler in fillers:
                filler.close()
    assert answer.outcome is Outcome.TIMEOUT


async def test_the_body_is_read_up_to_its_limit(probe: HttpProbe) -> None:
    async with serving(endless) as port:
        answer = await probe.get(f"http://{HOST}:{port}/", deadline=5)
    assert answer.outcome is Outcome.ANSWERED
    assert len(answer.body) == BODY_BYTES


async def test_what_is_no_url_or_no_certificate_is_the_callers_mistake(
    probe: HttpProbe, tmp_path: Path
) -> None:
    with pytest.raises(PermanentError):
        await probe.get("ftp://nowhere/", deadline=1)
    with pytest.raises(PermanentError):
        HttpProbe((), str(tmp_path / "absent.pem"))


class OneName(asyncio.DatagramProtocol):
    """A DNS server that knows one name, and says of the others that they do not exist."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        if str(query.question[0].name) == f"{NAME}.":
            reply.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", HOST))
        else:
            reply.set_rcode(3)
        self.transport.sendto(reply.to_wire(), addr)


class Mute(asyncio.DatagramProtocol):
    """A DNS server that takes questions and says nothing."""


@asynccontextmanager
async def dns_server(kind: type[asyncio.DatagramProtocol]) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(kind, local_addr=(HOST, 0))
    try:
        yield f"{HOST}:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()


async def test_names_are_asked_of_the_given_servers_only() -> None:
    async with dns_server(OneName) as server, serving(answering) as port:
        probe = HttpProbe((server,))
        known = await probe.get(f"http://{NAME}:{port}/", deadline=5)
        unknown = await probe.get(f"http://localhost.{NAME}:{port}/", deadline=5)
    assert (known.outcome, known.address) == (Outcome.ANSWERED, HOST)
    assert unknown.outcome is Outcome.DNS


async def test_a_mute_name_server_is_a_failure_of_dns() -> None:
    async with dns_server(Mute) as server:
        answer = await HttpProbe((server,)).get(f"http://{NAME}/", deadline=0.3)
    assert answer.outcome is Outcome.DNS


def certificate(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = directory / f"{name}.pem", directory / f"{name}.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


async def test_the_certificate_is_held_to_the_name_in_the_url(tmp_path: Path) -> None:
    right, right_tls = certificate(tmp_path, NAME)
    wrong, wrong_tls = certificate(tmp_path, "other.example")
    async with (
        dns_server(OneName) as server,
        serving(answering, right_tls) as good,
        serving(answering, wrong_tls) as bad,
    ):
        trusted = HttpProbe((server,), str(right))
        assert (await trusted.get(f"https://{NAME}:{good}/", deadline=5)).outcome is Outcome.ANSWERED
        assert (await trusted.get(f"https://{NAME}:{bad}/", deadline=5)).outcome is Outcome.TLS
        misnamed = HttpProbe((server,), str(wrong))
        assert (await misnamed.get(f"https://{NAME}:{bad}/", deadline=5)).outcome is Outcome.TLS
