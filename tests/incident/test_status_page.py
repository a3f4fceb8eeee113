"""The status page: public words only, the same bytes whoever makes it, readable by everybody, in every bucket that takes it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import boto3
import botocore.exceptions
import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from casebook import BOOK, Log
from hmsdr.check.playbook_people import check
from hmsdr.cli.incident import incident as command
from hmsdr.decide.incident import Word
from hmsdr.decide.incidents import SAID
from hmsdr.decide.statuspage import PublicStatus, public_status
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.incident.desk import Declaration, Desk
from hmsdr.incident.keeper import said_by_hand
from hmsdr.incident.publisher import WRITE_SECONDS, Publisher
from hmsdr.incident.statusfiles import _STYLE, files
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import StatusPage
from hmsdr.playbook.topology import Aws

BUCKETS = {"us-east-1": "status-east", "us-west-2": "status-west"}
PAGE = StatusPage(url="https://status.hospital.example", buckets=BUCKETS, prefix="s/")
WRITTEN = "John Miller of ward 7 <script>alert(1)</script>"


def status(log: Log, page: StatusPage = PAGE) -> PublicStatus:
    return public_status(log.book, BOOK, page, log.now)


def made(found: PublicStatus) -> dict[str, str]:
    return {each.name: each.content.decode() for each in files(found, BOOK, PAGE)}


def opened(severity: str = "SEV-0") -> Log:
    log = Log()
    log.add(
        "incident.opened", "INC-1", WRITTEN, title=WRITTEN, severity=severity, roles={}, reasons=[WRITTEN]
    )
    return log


def first(log: Log) -> Log:
    log.later(minutes=3).add(SAID, "INC-1", "Ada Quill", word="first", audience="response-team", channel="x")
    return log


@pytest.mark.req("CM-3")
def test_nothing_that_anybody_wrote_is_public_and_nothing_before_its_time() -> None:
    log = opened()
    log.add("incident.noted", "INC-1", "Ada Quill", text=WRITTEN, field="cause")
    assert (status(log).reach, status(log).going) == ("none", ())
    assert status(log, PAGE.model_copy(update={"show": "at-once"})).reach == "all"
    shown = made(status(first(log)))
    for name, text in shown.items():
        assert not any(word in text for word in ("Miller", "ward 7", "alert(1)", "Quill")), name
    assert "Our computers do not work right now." in shown["index.html"]
    assert "En este momento nuestras computadoras no funcionan." in shown["index.html"]
    assert "Our computers do not work right now." in shown["banner.js"]


def test_from_the_first_word_to_the_history() -> None:
    log = first(opened("SEV-2"))
    assert [each.word for each in status(log).going] == ["first"]
    log.later(minutes=10).add(SAID, "INC-1", "x", word="update", audience="patients", channel="x")
    (going,) = status(log).going
    assert (going.word, going.reach, going.changed_at) == ("update", "some", log.now)
    log.later(minutes=10).add("incident.status", "INC-1", "x", status="resolved")
    found = status(log)
    assert (found.reach, found.going, [each.until for each in found.over]) == ("none", (), [log.now])
    # The end is shown at once, not at the next full hour.
    assert found.as_of == log.now
    log.later(days=1).add("incident.reopened", "INC-1", "x", reason="y", roles={}, signals=[])
    first(log)
    found = status(log)
    assert [each.key for each in (*found.going, *found.over)] == ["inc-1-2", "inc-1-1"]
    log.add("incident.status", "INC-1", "x", status="resolved")
    log.later(days=90)
    assert status(log).over == ()


def test_the_same_log_gives_the_same_bytes_until_the_page_is_renewed() -> None:
    log = first(opened())
    before = made(status(log))
    log.now = log.now.replace(minute=5)
    assert (one := made(status(log))) != before
    assert made(status(log.later(minutes=4, seconds=59))) == one
    assert made(status(log.later(seconds=1))) != one
    calm = Log()
    assert made(status(calm)) == made(status(calm.later(minutes=59)))


class Reader(HTMLParser):
    """What a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_in_each_language_and_needs_no_script() -> None:
    log = first(opened())
    log.add("incident.opened", "INC-2", "x", title="t", severity="SEV-3", roles={})
    log.add(SAID, "INC-2", "x", word="first", audience="patients", channel="x")
    found = Reader(made(status(log))["index.html"])
    assert found.open == []
    names = [tag for tag, _ in found.tags]
    assert (names.count("h1"), names.count("main"), names.count("script"), names.count("img")) == (1, 1, 0, 0)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"en", "es", "inc-1-1", "inc-2-1"} == set(ids)
    assert [each["lang"] for tag, each in found.tags if tag == "section"] == ["en", "es"]
    links = [str(each["href"]) for tag, each in found.tags if tag == "a"]
    assert all(link == "feed.atom" or link[1:] in ids for link in links)


def _light(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(2 * sign for sign in colour[1:])
    parts = [int(full[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_light(one), _light(other)))
    return (light + 0.05) / (dark + 0.05)


def test_every_text_has_the_contrast_of_wcag_aa_in_light_dark_and_print() -> None:
    palettes = [
        dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", _STYLE)
    ]
    assert len(palettes) == 3
    for palette in palettes:
        for ink in ("ink", "soft", "well", "ill"):
            assert _contrast(palette[ink], palette["paper"]) >= 4.5, (ink, palette)
    assert _contrast("#ffffff", "#7a1407") >= 4.5
    assert all(_contrast(*pair) >= 1 for pair in combinations(["#fff", "#000"], 2))


def test_feed_json_and_banner_say_the_same() -> None:
    log = first(opened())
    shown = made(status(log))
    feed = ET.fromstring(shown["feed.atom"])
    atom = "{http://www.w3.org/2005/Atom}"
    (entry,) = feed.findall(f"{atom}entry")
    assert entry.findtext(f"{atom}id") == "https://status.hospital.example/#inc-1-1"
    assert "do not work" in str(entry.findtext(f"{atom}content"))
    assert feed.findtext(f"{atom}updated") == "2026-06-03T15:03:00Z"
    said = json.loads(shown["status.json"])
    assert (said["status"], [each["id"] for each in said["now"]], said["history"]) == ("all", ["inc-1-1"], [])
    calm = made(status(Log()))
    assert "words = null" in calm["banner.js"]
    assert json.loads(calm["status.json"])["status"] == "none"
    assert ET.fromstring(calm["feed.atom"]).findall(f"{atom}entry") == []


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )


@pytest.fixture
async def desk(tmp_path: Path, s3: str) -> AsyncIterator[tuple[Playbook, Desk]]:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)
    keys = {"access_key_id": SecretStr("k"), "secret_access_key": SecretStr("s")}
    playbook = BOOK.model_copy(update={"aws": Aws(endpoint_url=s3, **keys), "status_page": PAGE})
    yield playbook, Desk(playbook, store)
    await store.close()


@pytest.mark.req("CM-3")
async def test_it_is_in_the_bucket_that_lives_and_in_the_other_when_that_is_back(
    desk: tuple[Playbook, Desk], s3: str
) -> None:
    playbook, incidents = desk
    client(s3).create_bucket(Bucket="status-west")
    publisher = Publisher(playbook, PAGE, incidents)
    found = await publisher.publish()
    assert found["us-west-2"] == ""
    assert "NoSuchBucket" in found["us-east-1"]
    got = client(s3).get_object(Bucket="status-west", Key="s/index.html")
    assert (got["ContentType"], got["CacheControl"]) == (
        "text/html; charset=utf-8",
        "public, max-age=30, must-revalidate",
    )
    assert b"Our computers work as they should." in got["Body"].read()
    # What is there is not written again; what changed is.
    client(s3).delete_object(Bucket="status-west", Key="s/index.html")
    await publisher.publish()
    assert "Contents" not in client(s3).list_objects_v2(Bucket="status-west", Prefix="s/index")
    await incidents.declare(Declaration("x", "Ada Quill"), None)
    await said_by_hand(incidents, playbook, "INC-1", Word.FIRST, "patients", "loudspeaker", "Ada Quill")
    await publisher.publish()
    assert b"slow right now" in client(s3).get_object(Bucket="status-west", Key="s/banner.js")["Body"].read()
    # The other bucket is there now; a publisher that begins anew knows nothing of what was written, and writes it.
    client(s3).create_bucket(Bucket="status-east")
    again = Publisher(playbook, PAGE, incidents)
    assert await again.publish() == {"us-east-1": "", "us-west-2": ""}
    names = [each["Key"] for each in client(s3).list_objects_v2(Bucket="status-east")["Contents"]]
    assert sorted(names) == ["s/banner.js", "s/feed.atom", "s/index.html", "s/status.json"]
    for each in (publisher, again):
        await each.close()


async def banner(url: str, words: bytes, seconds: float) -> float:
    """Seconds until the banner in the west has `words` in it."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with suppress(botocore.exceptions.ClientError):
            got = await asyncio.to_thread(client(url).get_object, Bucket="status-west", Key="s/banner.js")
            if words in got["Body"].read():
                return time.monotonic() - began
        await asyncio.sleep(0.1)
    pytest.fail(f"no banner with {words!r} within {seconds} s")


@pytest.mark.req("CM-3")
async def test_a_bucket_that_hangs_keeps_no_other_waiting(desk: tuple[Playbook, Desk], s3: str) -> None:
    playbook, incidents = desk
    with suppress(botocore.exceptions.ClientError):
        client(s3).create_bucket(Bucket="status-west")
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # until who asked has had enough
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    publisher = Publisher(playbook, PAGE, incidents)
    east = next(each for each in publisher._buckets if each.region == "us-east-1")
    await east.objects.close()
    east.objects = ObjectStore(playbook.aws.model_copy(update={"endpoint_url": f"http://{host}:{port}"}))
    stop, said = asyncio.Event(), list[str]()
    running = asyncio.create_task(publisher.run(stop, 0.1, said.append))
    try:
        await asyncio.wait_for(asked.wait(), 10)
        began = time.monotonic()
        await incidents.declare(Declaration("x", "Ada Quill"), None)
        await said_by_hand(incidents, playbook, "INC-1", Word.FIRST, "patients", "loudspeaker", "Ada Quill")
        # The east's eight seconds have just begun.
        assert await banner(s3, b"slow right now", WRITE_SECONDS) < WRITE_SECONDS - 2
        while not any("us-east-1" in each for each in said):
            assert time.monotonic() - began < 2 * WRITE_SECONDS
            await asyncio.sleep(0.1)
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)
        await publisher.close()
        server.close()
    assert not any("us-west-2" in each for each in said)


def test_the_command_writes_a_directory_and_refuses_without_a_page(tmp_path: Path) -> None:
    secrets = {
        "HMSDR_POSTGRES_PASSWORD": "x",
        "HMSDR_AGENT_KEY_US_EAST_1": "x",
        "HMSDR_AGENT_KEY_US_WEST_2": "x",
    }
    book = tmp_path / "playbook.yaml"
    text = f"extends: hms\nstore: {{path: {tmp_path / 'log.db'}}}\n"
    book.write_text(text)

    def run(*words: str) -> Any:
        return CliRunner(env=secrets).invoke(command, ["publish", "--playbook", str(book), *words])

    import asyncio

    asyncio.run(_create(tmp_path / "log.db"))
    assert "no status_page" in str(run().exception)
    book.write_text(
        text + "status_page: {url: https://s.example.org, buckets: {us-east-1: aaa, us-west-2: bbb}}\n"
    )
    assert run("--out", str(tmp_path / "site")).exit_code == 0
    assert {each.name for each in (tmp_path / "site").iterdir()} == {
        "banner.js", "feed.atom", "index.html", "status.json",
    }  # fmt: skip


async def _create(path: Path) -> None:
    await (await SqliteStore.open(path, create=True)).close()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"audience": "patience"}, "unknown audience"),
        ({"buckets": {"us-east-9": "a1b", "us-west-2": "b1b"}}, "no site"),
        ({"buckets": {"us-east-1": "a1b"}}, "one bucket"),
    ],
)
def test_a_page_that_cannot_be_is_found_beforehand(change: dict[str, Any], found: str) -> None:
    playbook = BOOK.model_copy(update={"status_page": PAGE.model_copy(update=change)})
    assert any(found in each.found for each in check(playbook))


def test_the_time_on_the_page_is_utc_for_machines() -> None:
    log = first(opened())
    log.now = datetime(2026, 6, 3, 15, 33, 20, tzinfo=UTC) + timedelta()
    assert 'datetime="2026-06-03T15:30:00Z">2026-06-03 11:30 EDT' in made(status(log))["index.html"]
