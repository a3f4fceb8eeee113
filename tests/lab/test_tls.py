"""The lab's certificates, as a client sees them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from hmsdr.lab.tls import write_certificates


@pytest.mark.parametrize(
    ("name", "good"), [("api.hms.example", True), ("127.77.1.10", True), ("api.elsewhere.example", False)]
)
async def test_a_client_that_trusts_the_authority_accepts_its_names_only(
    tmp_path: Path, name: str, good: bool
) -> None:
    write_certificates(tmp_path, ["hms.example", "*.hms.example"], ["127.77.1.10"])
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(tmp_path / "ingress.pem", tmp_path / "ingress.key")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    client_side = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    try:
        connecting = asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname=name)
        if good:
            _, writer = await asyncio.wait_for(connecting, 5)
            writer.close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.wait_for(connecting, 5)
    finally:
        server.close()


def test_the_key_is_nobody_elses(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["hms.example"], [])
    assert (tmp_path / "ingress.key").stat().st_mode & 0o077 == 0
