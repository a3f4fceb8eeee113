"""The lab's webhook receivers as a process of their own: what they take, what they refuse, and that they forget nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from hmsdr.cli.lab import lab
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.notifier import Notifier
from hmsdr.drivers.webhook import Webhook
from hmsdr.lab.channels.allowance import Allowance
from hmsdr.lab.channels.kept import messages, received
from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import MAILBOXES, webhook_token, write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.playbook.load import load

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


@pytest.mark.req("CM-3")
def test_mail_to_each_audience_of_the_labs_playbook_is_in_its_mailbox(layout: Layout, start: Start) -> None:
    start()
    playbook = load(layout.playbook)
    for name, channel in MAILBOXES.items():
        url = playbook.audiences[name].endpoints[channel].get_secret_value()
        asyncio.run(Notifier(url, name).send("Login is back ✓", f"for {name}\n.\nend", deadline=20))
    kept = received(layout)
    assert [each["channel"] for each in kept] == [f"{name}@hospital.example" for name in MAILBOXES]
    assert {each["subject"] for each in kept} == {"Login is back ✓"}
    for name, each in zip(MAILBOXES, kept, strict=True):
        assert f"for {name}" in each["text"]
        assert each["text"].rstrip().endswith("end")
        assert abs(time.time() - each["at"]) < 60


def test_mail_that_is_not_for_this_lab_or_not_whole_is_refused(layout: Layout, start: Start) -> None:
    process = start()
    ward, mail = "clinical-staff@hospital.example", "Subject: s\r\n\r\n"
    with smtplib.SMTP(layout.mail.host, layout.mail.port, timeout=5) as client:
        assert client.docmd("DATA")[0] == 503
        assert client.docmd("RCPT", f"TO:<{ward}>")[0] == 503
        assert client.docmd("STARTTLS")[0] == 502
        assert client.docmd("MAIL", "FROM:nobody")[0] == 501
        client.ehlo()
        assert client.docmd("MAIL", "FROM:<a@b.example>")[0] == 250
        assert client.rcpt("nobody@hospital.example")[0] == 550
        assert client.rcpt("clinical-staff@elsewhere.example") == (550, b"5.7.1 nothing is relayed")
        assert client.rcpt(ward)[0] == 250
        assert client.data(mail + "x\r\n" * 400_000)[0] == 552
        client.sendmail("a@b.example", [ward, "management@hospital.example"], mail + "good")
        assert client.docmd("NOOP " + "x" * 5000)[0] == 500
    assert [(each["channel"], each["text"].strip()) for each in received(layout)] == [
        (ward, "good"), ("management@hospital.example", "good"),
    ]  # fmt: skip
    process.kill()
    process.wait(10)
    with messages(layout).open("ab") as file:
        file.write(b'{"at": 1, "ki')  # cut off by a crash: never acknowledged
    start()
    with smtplib.SMTP(layout.mail.host, layout.mail.port, timeout=5) as client:
        client.sendmail("a@b.example", ward, mail + "later")
    assert [each["text"].strip() for each in received(layout)] == ["good", "good", "later"]


def test_too_many_are_refused_as_slack_and_teams_do_it(layout: Layout, start: Start) -> None:
    start()

    async def flood(kind: str) -> int:
        """How many were taken before one was not."""
        url = (layout.directory / "secrets" / f"{kind}-webhook").read_text().strip()
        taken = 0
        while taken < 500:
            try:
                await Webhook(url).post({"text": str(taken)}, deadline=5)
            except TemporaryError as error:
                assert ("429" if kind == "slack" else "not delivered") in error.found, error
                return taken
            taken += 1
        return taken

    counts = {kind: asyncio.run(flood(kind)) for kind in ("slack", "teams")}
    kept = [each["kind"] for each in received(layout)]
    assert {kind: kept.count(kind) for kind in counts} == counts
    assert all(20 <= count < 500 for count in counts.values()), counts


def test_an_allowance_fills_with_time() -> None:
    allowance = Allowance(0.5, 2)
    assert [allowance.wait(10.0) for _ in range(3)] == [0, 0, 2]
    assert allowance.wait(11.0) == 1
    assert allowance.wait(12.0) == 0
    assert allowance.wait(12.0) == 2
    assert [allowance.wait(99.0) for _ in range(3)] == [0, 0, 2]


def test_what_arrived_is_shown_by_a_command(layout: Layout, start: Start) -> None:
    def shown(*more: str) -> str:
        done = CliRunner().invoke(lab, ["messages", "--dir", str(layout.directory), *more])
        assert done.exit_code == 0, done.output
        return done.output

    assert shown() == "Nothing has arrived.\n"
    start()
    body = json.dumps({"channel": "#x", "text": "wards \x1b[2J are\nback"}).encode()
    assert asked(layout, "POST", f"/slack/{webhook_token(layout, 'slack')}", body) == (200, "ok")
    (line,) = shown().splitlines()
    assert line.split()[1:3] == ["slack", "#x"]
    assert "\x1b" not in line
    assert line.endswith("back")
    assert [each["channel"] for each in json.loads(shown("--json"))] == ["#x"]
