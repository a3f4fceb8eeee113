"""The lab's webhook receivers as a process of their own: what they take, what they refuse, and that they forget nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from hmsdr.lab.channels.__main__ import messages
from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import webhook_token, write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    networks = claim_networks(tmp_path, None)
    made = lay_out(tmp_path, "lab-x", None, networks, choose_ports(networks, {}))
    networks.close()
    made.save()
    write_playbook(made)
    return made


@pytest.fixture
def start(layout: Layout) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "hmsdr.lab.channels", "--lab", str(layout.directory)]
        started.append(subprocess.Popen(command))
        ends = time.monotonic() + 30
        while True:
            try:
                if asked(layout, "GET", "/healthz")[0] == 200:
                    return started[-1]
            except OSError:
                assert time.monotonic() < ends, "the receivers did not come up"
                time.sleep(0.02)

    yield run
    for process in started:
        process.kill()
        process.wait(10)


def asked(layout: Layout, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(layout.channels.host, layout.channels.port, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_messages_are_taken_refused_and_kept_over_a_restart(layout: Layout, start: Start) -> None:
    process = start()
    there = f"/slack/{webhook_token(layout, 'slack')}"
    good = json.dumps({"channel": "#x", "text": "Ärzte 🚑", "key": "run-1/begun"}).encode()
    assert asked(layout, "POST", there, good) == (200, "ok")
    for path, body, expected in (
        ("/slack/wrong", good, (403, "invalid_token")),
        (f"/slack/{quote('ä')}", good, (403, "invalid_token")),
        (f"/teams/{webhook_token(layout, 'slack')}", good, (403, "invalid_token")),
        ("/pager/x", good, (403, "invalid_token")),
        (there, b"", (400, "invalid_payload")),
        (there, b"\xff", (400, "invalid_payload")),
        (there, b"[]", (400, "invalid_payload")),
        (there, b"{}", (400, "invalid_payload")),
        (there, b'{"text": "  "}', (400, "no_text")),
        (there, b'{"text": 7}', (400, "no_text")),
    ):
        assert asked(layout, "POST", path, body) == expected, (path, body)
    assert asked(layout, "POST", there, b'{"text": "' + b"x" * 70_000 + b'"}')[0] == 413
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    start()
    assert asked(layout, "POST", there, b'{"text": "again"}') == (200, "ok")
    kept = [json.loads(line) for line in messages(layout).read_text().splitlines()]
    assert [(each["kind"], each["channel"], each["text"], each["key"]) for each in kept] == [
        ("slack", "#x", "Ärzte 🚑", "run-1/begun"), ("slack", "", "again", None),
    ]  # fmt: skip
    assert messages(layout).stat().st_mode & 0o077 == 0
