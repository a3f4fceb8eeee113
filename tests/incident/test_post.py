"""Messages leave a real log for real receivers: alerts page people, channels fail over, and who is killed while sending loses nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hmsdr.decide.incident import Word
from hmsdr.decide.outbox import FAILED, QUEUED, Outbox, fold
from hmsdr.decide.response import checklist
from hmsdr.errors import RefusedError
from hmsdr.incident.desk import Declaration
from hmsdr.incident.keeper import Keeper, escalation, queue, reachable, said_by_hand
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import WarRoom
from mailbox_server import Mailboxes

CHILD = Path(__file__).parent / "post_child.py"
SECRETS = {
    "HMSDR_POSTGRES_PASSWORD": "x",
    "HMSDR_AGENT_KEY_US_EAST_1": "x",
    "HMSDR_AGENT_KEY_US_WEST_2": "x",
}


class Hospital:
    """A log, and receivers for its messages; ``answers`` is what a kind of channel says."""

    def __init__(self, directory: Path, url: str) -> None:
        self.environment = {
            **SECRETS,
            **{f"{kind}_HOOK": f"{url}/{kind}" for kind in ("SLACK", "TEAMS", "EMAIL")},
        }
        self.file = directory / "playbook.yaml"
        endpoints = ", ".join(
            f"{kind.lower()}: '${{env:{kind}_HOOK}}'" for kind in ("SLACK", "TEAMS", "EMAIL")
        )
        self.file.write_text(
            f"extends: hms\nstore: {{path: {directory / 'log.db'}}}\nchannels: {{endpoints: {{{endpoints}}}}}\n"
        )
        self.playbook: Playbook = load(self.file, environ=self.environment)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, int] = {}
        self.delay = 0.0

    async def receive(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"].lower()
        message = await request.json()
        await asyncio.sleep(self.delay)
        status = self.answers.get(kind, 200)
        if status == 200:
            self.got.append((kind, message))
        return web.Response(status=status)

    def arrived(self) -> Counter[str]:
        return Counter(message["key"] for _, message in self.got)


@pytest.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[Hospital]:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    made: list[Hospital] = []

    async def receive(request: web.Request) -> web.Response:
        return await made[0].receive(request)

    app.router.add_post("/{kind}", receive)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.append(Hospital(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield made[0]
    await runner.cleanup()


@pytest.fixture
async def store(hospital: Hospital) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(Path(hospital.playbook.store.path), create=True)
    yield opened
    await opened.close()


def keeper(hospital: Hospital, store: SqliteStore, name: str = "keeper@test") -> Keeper:
    return Keeper(hospital.playbook, store, None, name)


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


async def add(store: SqliteStore, *events: NewEvent) -> None:
    async def made() -> list[NewEvent]:
        return list(events)

    await append_after(store, made, doing="testing")


def alert() -> NewEvent:
    return NewEvent(
        "alert.began",
        "right-to-write",
        "controller",
        {"text": "No region may write <!channel>", "remedy": "x"},
    )


@pytest.mark.req("IR-1", "CM-1", "CO-3")
async def test_an_alert_becomes_an_incident_and_pages_who_is_on_call_once(hospital, store) -> None:
    await add(store, alert())
    keepers = [keeper(hospital, store, f"keeper-{number}") for number in range(3)]
    await asyncio.gather(*(each.round() for each in keepers))
    for each in keepers:
        await each.round()
    assert [kind for kind, _ in hospital.got] == ["slack"]
    text = hospital.got[0][1]["text"]
    assert "INC-1 (SEV-1): you are on call: No region may write (!channel>" in text
    assert "+12025550104" in text
    assert hospital.got[0][1]["channel"] == "#incident-response"
    incident = await keepers[0].desk.incident("INC-1", "testing")
    assert incident.called == {"page/1": 1}
    assert incident.round.paged_at is not None
    head = await store.head()
    await keepers[0].round()
    assert await store.head() == head


@pytest.mark.req("CM-1")
async def test_teams_when_slack_fails_and_whom_to_call_when_both_do(hospital, store) -> None:
    keep = keeper(hospital, store)
    await keep.desk.declare(Declaration("x", "Ada Quill"), None)
    hospital.answers = {"slack": 503}
    (key,) = await queue(keep.desk, hospital.playbook, "INC-1", Word.FIRST, "Ada Quill")
    for _ in range(2):
        await keep.post.deliver()
    assert [kind for kind, _ in hospital.got] == ["teams"]
    assert "INCIDENT DETAILS:" in hospital.got[0][1]["text"]
    done = (await keep.post.outbox()).done[key]
    assert (done.channel, done.maybe_twice) == ("teams:Incident Response", False)
    incident = await keep.desk.incident("INC-1", "testing")
    assert incident.round.first_word_at is not None
    hospital.answers = {"slack": 503, "teams": 404}
    (update,) = await queue(keep.desk, hospital.playbook, "INC-1", Word.UPDATE, "Ada Quill")
    for _ in range(3):
        await keep.post.deliver()
    stuck = (await keep.post.outbox()).waiting[update]
    assert stuck.found == "HTTP 404"
    assert stuck.refused == {"teams:Incident Response"}
    assert (await keep.desk.incident("INC-1", "testing")).round.updates == 0
    at = datetime(2026, 1, 13, tzinfo=UTC)
    assert escalation(hospital.playbook, at) == "Edda Thorne +12025550105, Ada Quill +12025550101"


async def test_a_channel_that_nobody_has_set_up_is_said_and_nothing_is_lost(hospital, store) -> None:
    keep = keeper(hospital, store)
    data = {"channels": ["pager:x", "slack:#x"], "subject": "s", "body": "b", "word": "call", "need": 0}
    await add(store, NewEvent(QUEUED, "k", "test", data))
    for _ in range(2):
        await keep.post.deliver()
    assert hospital.arrived() == Counter({"k": 1})
    (failed,) = [event for event in await store.read() if event.kind == FAILED]
    assert (failed.data["found"], failed.data["permanent"]) == ("no endpoint for pager", True)


def letters(channel: str, count: int) -> list[NewEvent]:
    data = {
        "channels": [channel],
        "need": 3,
        "subject": "s",
        "body": "b",
        "word": "call",
        "incident": "INC-1",
    }
    return [NewEvent(QUEUED, f"{channel}/{number}", "test", data) for number in range(count)]


@pytest.mark.req("CM-1")
async def test_a_long_list_goes_lot_after_lot_without_a_pause(hospital, store) -> None:
    keep = keeper(hospital, store)
    await add(store, *letters("email:wards", 2 * keep.post.at_once + 20))
    stop, said = asyncio.Event(), list[str]()
    running = asyncio.create_task(keep.run(stop, 600.0, said.append))
    try:
        async with asyncio.timeout(30):
            while len(hospital.got) < 2 * keep.post.at_once + 20:
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await running
    assert set(hospital.arrived().values()) == {1}
    assert said == []


@pytest.mark.req("CM-1")
async def test_no_more_leaves_in_a_minute_than_the_playbook_says(hospital, store) -> None:
    hospital.file.write_text(
        hospital.file.read_text().replace("channels: {", "channels: {rates: {slack: 3}, ", 1)
    )
    hospital.playbook = load(hospital.file, environ=hospital.environment)
    await add(store, *letters("slack:#incident-response", 10))
    keep = keeper(hospital, store)
    assert [await keep.post.deliver() for _ in range(3)] == [3, 0, 0]
    assert len(hospital.got) == 3
    assert len((await keep.post.outbox()).waiting) == 7


@pytest.mark.req("CM-2", "CM-4")
async def test_what_does_not_fit_is_refused_and_what_was_said_by_hand_counts(hospital, store) -> None:
    keep = keeper(hospital, store)
    desk, book = keep.desk, hospital.playbook
    await desk.declare(Declaration("x", "Ada Quill"), None)
    with pytest.raises(RefusedError, match="it is declared"):
        await queue(desk, book, "INC-1", Word.RESOLUTION, "Ada Quill")
    await desk.note("INC-1", "Ada Quill", "MRN 1234567", "impact")
    with pytest.raises(RefusedError, match="impact looks like a record number"):
        await queue(desk, book, "INC-1", Word.FIRST, "Ada Quill")
    with pytest.raises(RefusedError, match="no audience 'patient'"):
        await said_by_hand(desk, book, "INC-1", Word.FIRST, "patient", "by loudspeaker", "Ada Quill")
    await said_by_hand(desk, book, "INC-1", Word.FIRST, "patients", "by loudspeaker", "Ada Quill")
    assert (await desk.incident("INC-1", "testing")).round.first_word_at is not None
    await desk.status("INC-1", "Ada Quill", "resolved")
    with pytest.raises(RefusedError, match="it is resolved"):
        await queue(desk, book, "INC-1", Word.UPDATE, "Ada Quill")
    await desk.note("INC-1", "Ada Quill", "some wards", "impact")
    (one,) = await queue(desk, book, "INC-1", Word.RESOLUTION, "Ada Quill")
    assert await queue(desk, book, "INC-1", Word.RESOLUTION, "Celia Marsh") == [one]
    await keep.round()
    assert hospital.arrived()[one] == 1
    assert (await desk.incident("INC-1", "testing")).round.resolution_word_at is not None


@pytest.mark.req("CM-3", "CM-4")
async def test_each_audience_is_told_on_each_of_its_channels_in_its_own_words(hospital, store) -> None:
    async with Mailboxes() as server:
        environment = {
            **hospital.environment,
            "MAIL_URL": server.url,
            "SMS_URL": server.url.replace("ward@", "sms@"),
        }
        hospital.file.write_text(
            hospital.file.read_text()
            + "audiences:\n"
            + "  clinical-staff: {endpoints: {email: '${env:MAIL_URL}', sms: '${env:SMS_URL}'}}\n"
            + "  patients: {endpoints: {automated-message: '${env:MAIL_URL}'}}\n"
        )
        hospital.playbook = load(hospital.file, environ=environment)
        keep = keeper(hospital, store)
        await keep.desk.declare(Declaration("The wards cannot log in", "Ada Quill"), None)
        known = reachable(hospital.playbook)
        assert known == ("response-team", "clinical-staff", "patients")
        keys = await queue(keep.desk, hospital.playbook, "INC-1", Word.FIRST, "Ada Quill", known)
        assert len(set(keys)) == 5
        async with asyncio.timeout(60):
            while len((await keep.post.outbox()).done) < len(keys):
                await keep.post.deliver()
    mails = {(to[0].partition("@")[0], str(mail["Subject"])): mail for to, mail in server.mails}
    assert {subject for name, subject in mails if name == "ward"} == {
        "[SEV-3] HMS System Incident - Initial Alert",
        "A problem with our computers",
        "Un problema con nuestras computadoras",
    }
    by = {to: [mail for (name, _), mail in mails.items() if name == to] for to in ("ward", "sms")}
    texts = [text_of(mail) for mail in by["ward"]]
    assert any("AT THE BEDSIDE:" in text for text in texts)
    (short,) = by["sms"]
    assert len(text_of(short).strip()) <= 300
    audiences = {each.audience for each in (await keep.post.outbox()).done.values()}
    assert audiences == set(known)


@pytest.mark.req("CM-1")
async def test_twenty_senders_are_killed_and_no_message_is_lost(hospital, store) -> None:
    """Two at a time, killed with SIGKILL while they send: all arrive, and those that came twice are said to."""
    keys: list[str] = []
    hospital.delay = 0.1
    chance = random.Random(7)
    outbox = Outbox()

    async def begin(number: int) -> asyncio.subprocess.Process:
        words = [sys.executable, str(CHILD), str(hospital.file), f"sender-{number}"]
        return await asyncio.create_subprocess_exec(*words, env={**os.environ, **hospital.environment})

    async def more(number: int) -> None:
        fresh = [f"m{number}-{each}" for each in range(6)]
        data = {"channels": ["email:all"], "subject": "s", "body": "b", "word": "call", "need": 1}
        await add(store, *(NewEvent(QUEUED, key, "test", data) for key in fresh))
        keys.extend(fresh)

    senders = [await begin(0), await begin(1)]
    try:
        for number in range(20):
            await more(number)
            async with asyncio.timeout(60):
                # One is killed when they were seen at work, somewhere in it.
                while not any(key.startswith(f"m{number}-") for key in hospital.arrived()):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.1))
            victim = senders.pop(0)
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
            senders.append(await begin(number + 2))
        async with asyncio.timeout(90):
            while True:
                outbox = fold(outbox, await store.read(outbox.seq))
                if len(outbox.done) == len(keys):
                    break
                await asyncio.sleep(0.1)
    finally:
        for each in senders:
            each.kill()
            await each.wait()
    got = hospital.arrived()
    assert set(got) == set(keys)
    assert {key for key, times in got.items() if times > 1} <= {
        key for key, each in outbox.done.items() if each.maybe_twice
    }


@pytest.mark.req("IR-1")
async def test_the_keeper_opens_the_war_room_once_keeps_its_summary_and_falls_back(
    hospital: Hospital, store: SqliteStore
) -> None:
    room = WarRoom(
        channel="slack:#war-room", bridge="https://meet.hospital.example/7", every=timedelta(seconds=1)
    )
    channels = hospital.playbook.channels.model_copy(update={"war_room": room})
    hospital.playbook = hospital.playbook.model_copy(update={"channels": channels})
    hospital.answers["slack"] = 503
    await add(store, alert())
    one, other = keeper(hospital, store), keeper(hospital, store, "keeper@other")
    for _ in range(4):
        await asyncio.gather(one.round(), other.round())

    def posted() -> list[tuple[str, str]]:
        return [(kind, each["key"]) for kind, each in hospital.got if "/war-room/" in each["key"]]

    assert posted() == [("teams", "INC-1/war-room/1/1")], "the room's channel is down: the next one took it"
    text = next(each["text"] for _, each in hospital.got if "/war-room/" in each["key"])
    assert "- Bridge: https://meet.hospital.example/7" in text
    assert "<!channel>" not in text
    incident = (await one.desk.book()).incidents["INC-1"]
    line = next(
        each for each in checklist(incident, hospital.playbook, datetime.now(UTC)) if each.key == "war-room"
    )
    assert line.seen is not None
    assert line.seen.evidence.startswith("opened on teams:Incident Response")
    hospital.answers.clear()
    await one.desk.note("INC-1", "Celia Marsh", "a disk", "cause")
    until = datetime.now(UTC) + timedelta(seconds=20)
    while len(posted()) < 2 and datetime.now(UTC) < until:
        await asyncio.gather(one.round(), other.round())
        await asyncio.sleep(0.1)
    assert posted()[1:] == [("slack", "INC-1/war-room/1/2")]
