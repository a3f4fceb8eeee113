"""The webhook driver against real sockets: every way a receiver can fail, and the URL, a secret, told by none of them."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
import time
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from hospital import free_network

from hmsdr.drivers.errors import (
    DriverError,
    OutcomeUnknownError,
    PermanentError,
    TemporaryError,
    asked_to_wait,
)
from hmsdr.drivers.webhook import Webhook, whom_to_trust
from hmsdr.lab.tls import write_certificates

TOKEN = "Geheimnis-" + secrets.token_hex(8)
HTTP, HTTPS, SILENT, DROPPING, STRANGE, NOBODY = range(18090, 18096)


class Receiver:
    def __init__(self, host: str, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.got: list[object] = []

    async def page(self, request: web.Request) -> web.Response:
        status = int(request.query.get("status", "200"))
        if status < 300:
            self.got.append(await request.json())
        return web.Response(status=status, text=f"you posted to {request.url}", headers={"Location": "/"})


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def dropping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    writer.write(b"220 no HTTP, and it repeats " + line + b"\r\n\r\n")
    await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    made = Receiver(f"{free_network()}.9", tmp_path)
    write_certificates(tmp_path, ["other.example"], [made.host])
    app = web.Application()
    app.router.add_post("/{path:.*}", made.page)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.load_cert_chain(tmp_path / "ingress.pem", tmp_path / "ingress.key")
    await web.TCPSite(runner, made.host, HTTP).start()
    await web.TCPSite(runner, made.host, HTTPS, ssl_context=secure).start()
    talks = [(SILENT, silent), (DROPPING, dropping), (STRANGE, strange), (80, strange)]
    servers = [
        await asyncio.start_server(talk, made.host, port) for port, talk in talks if port > 1023 or _root()
    ]
    yield made
    for server in servers:
        server.close()
    await runner.cleanup()


def _root() -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.99", 80))
        except OSError:
            return False
        return True


async def failure(hook: Webhook, deadline: float = 2) -> DriverError:
    """The error of a post that fails; nothing of it tells the secret."""
    with pytest.raises(DriverError) as caught:
        await hook.post({"text": "x"}, deadline=deadline)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value)
    assert TOKEN not in told
    assert TOKEN[10:] not in told
    return caught.value


async def test_a_message_is_posted_once_as_json(receiver: Receiver) -> None:
    hook = Webhook(f"https://{receiver.host}:{HTTPS}/slack/{TOKEN}", receiver.directory / "ca.pem")
    await hook.post({"text": "Überfall: „Ärzte“ 🚑", "channel": "#x"}, deadline=5)
    assert receiver.got == [{"text": "Überfall: „Ärzte“ 🚑", "channel": "#x"}]


async def test_a_long_list_reads_whom_to_trust_once(receiver: Receiver, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes((receiver.directory / "ca.pem").read_bytes())
    before = whom_to_trust.cache_info().misses
    for number in range(8):
        hook = Webhook(f"https://{receiver.host}:{HTTPS}/slack/{TOKEN}", trusted)
        await hook.post({"text": f"{number}"}, deadline=5)
    assert len(receiver.got) == 8
    # Twice when a minute ended meanwhile.
    assert 1 <= whom_to_trust.cache_info().misses - before <= 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, TemporaryError),
        (503, TemporaryError),
        (408, TemporaryError),
        (400, PermanentError),
        (403, PermanentError),
        (404, PermanentError),
        (410, PermanentError),
        (302, PermanentError),
    ],
)
async def test_refusals_are_told_apart_and_no_redirect_is_followed(
    receiver: Receiver, status: int, kind: type[DriverError]
) -> None:
    error = await failure(Webhook(f"http://{receiver.host}:{HTTP}/{TOKEN}?status={status}"))
    assert type(error) is kind
    assert str(status) in error.found
    assert receiver.got == []


@pytest.mark.parametrize(
    ("port", "kind"),
    [
        (NOBODY, TemporaryError),
        (SILENT, OutcomeUnknownError),
        (DROPPING, OutcomeUnknownError),
        (STRANGE, OutcomeUnknownError),
    ],
)
async def test_a_lost_answer_is_unknown_and_nobody_there_is_temporary(
    receiver: Receiver, port: int, kind: type[DriverError]
) -> None:
    began = time.monotonic()
    error = await failure(Webhook(f"http://{receiver.host}:{port}/{TOKEN}"), deadline=0.5)
    assert type(error) is kind, error
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "form", ["http://LOCALHOST:{port}/{token} x", "http://localhost:{port}/ä/{token}", "80"]
)
async def test_no_way_of_writing_the_url_lets_it_out(receiver: Receiver, form: str) -> None:
    """The library repeats the URL as it understood it, which need not be as it was written."""
    if form == "80":
        if not _root():
            pytest.skip("port 80 cannot be bound here")
        await failure(Webhook(f"http://{receiver.host}:80/{TOKEN}"))
        return
    server = await asyncio.start_server(strange, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await failure(Webhook(form.format(port=port, token=TOKEN)))
    server.close()


@pytest.mark.parametrize(
    "url",
    ["", "no url", "ftp://a/{token}", "http://[::1/{token}", "http://:0/{token}", "http://a:99999/{token}"],
)
async def test_what_is_no_url_is_permanent(url: str) -> None:
    assert isinstance(await failure(Webhook(url.format(token=TOKEN))), PermanentError)


async def test_a_certificate_must_be_trusted_and_readable(receiver: Receiver, tmp_path: Path) -> None:
    url = f"https://{receiver.host}:{HTTPS}/{TOKEN}"
    strangers = tmp_path / "other"
    strangers.mkdir()
    write_certificates(strangers, ["x.example"], [])
    error = await failure(Webhook(url, strangers / "ca.pem"))
    assert isinstance(error, PermanentError)
    assert "certificate" in error.found
    error = await failure(Webhook(url, tmp_path / "missing.pem"))
    assert isinstance(error, PermanentError)
    assert "missing.pem" in error.found
    assert isinstance(await failure(Webhook(f"https://{receiver.host}:{HTTP}/{TOKEN}")), DriverError)
    assert receiver.got == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        (" 0 ", 0.0),
        ("99999", 3600.0),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("१२", None),
    ],
)
def test_retry_after_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert asked_to_wait(header, datetime(2026, 1, 1, tzinfo=UTC)) == seconds
