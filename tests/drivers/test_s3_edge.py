"""The object store at its edges: one that takes the connection and says nothing, and one that is busy for a moment."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading

import pytest

from hmsdr.drivers.s3 import ObjectStore
from hmsdr.playbook.topology import Aws

ASK = """
import asyncio, sys
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.playbook.topology import Aws

async def ask() -> None:
    store = ObjectStore(Aws(endpoint_url=sys.argv[1], access_key_id="k", secret_access_key="s"))
    try:
        await store.listing("bucket", "", deadline=1)
    except TemporaryError as error:
        print(error.found)
    await store.close()

asyncio.run(ask())
"""
LISTING = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>7</Size>"
    b"<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
)


def test_who_asked_a_store_that_hangs_ends_with_its_deadline() -> None:
    """A thread that goes on waiting is joined when the process ends: that took 93 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", ASK, url], capture_output=True, text=True, timeout=25, check=False
        )
    assert (done.returncode, "no answer within 1 s" in done.stdout) == (0, True), done


class Busy(http.server.BaseHTTPRequestHandler):
    """Answers SlowDown twice, then lists."""

    asked = 0

    def do_GET(self) -> None:
        Busy.asked += 1
        body = LISTING if Busy.asked > 2 else b"<Error><Code>SlowDown</Code></Error>"
        self.send_response(200 if Busy.asked > 2 else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.req("FM-1")
async def test_a_store_that_is_busy_for_a_moment_is_asked_again_within_the_deadline() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    store = ObjectStore(
        Aws.model_validate({"endpoint_url": url, "access_key_id": "k", "secret_access_key": "s"})
    )
    try:
        (found,) = await store.listing("bucket", "", deadline=20)
        assert (found.key, found.size, Busy.asked) == ("a", 7, 3)
    finally:
        await store.close()
        server.shutdown()
        server.server_close()
