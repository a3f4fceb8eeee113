"""The lab's gateway as a process of its own, and the production driver against it: texts and calls, refusals, limits, receipts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from hmsdr.decide.incident import Word
from hmsdr.decide.outbox import FAILED, QUEUED, RECEIPT, SENT
from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.drivers.gateway import FINAL, Gateway
from hmsdr.incident.desk import Declaration
from hmsdr.incident.keeper import Keeper, queue
from hmsdr.incident.view import messages
from hmsdr.lab.channels.gateway import INVALID, UNREACHABLE
from hmsdr.lab.channels.kept import received
from hmsdr.lab.layout import Layout
from hmsdr.lab.overlay import GATEWAY_NUMBER, NUMBERS, gateway_account, write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load

WARD = "+12025550191"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    networks = claim_networks(tmp_path, None)
    made = lay_out(tmp_path, "lab-x", None, networks, choose_ports(networks, {}))
    networks.close()
    made.save()
    write_playbook(made)
    process = subprocess.Popen([sys.executable, "-m", "hmsdr.lab.channels", "--lab", str(made.directory)])
    ends = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{made.channels}/healthz", timeout=1):
                break
        except OSError:
            assert time.monotonic() < ends, "the receivers did not come up"
            time.sleep(0.02)
    yield made
    process.kill()
    process.wait(10)


def base(layout: Layout) -> str:
    return (layout.directory / "secrets" / "gateway").read_text().strip()


def basic(account: str, token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{account}:{token}".encode()).decode()}


async def settled(gateway: Gateway, kind: Any, reference: str) -> str:
    ends = time.monotonic() + 20
    while (found := await gateway.status(kind, reference, deadline=5)) not in FINAL:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.05)
    return found


@pytest.mark.req("CM-3")
async def test_texts_and_calls_arrive_and_the_gateway_tells_what_became_of_them(layout: Layout) -> None:
    gateway = Gateway(base(layout), "sms")
    text = await gateway.send("sms", "Log in again ✓ & look", WARD, deadline=10)
    call = await gateway.send("phone", "You are on call <now> & soon", WARD, deadline=10)
    lost = await gateway.send("sms", "to nobody", UNREACHABLE, deadline=10)
    unanswered = await gateway.send("phone", "to nobody", UNREACHABLE, deadline=10)
    assert [(each["kind"], each["channel"], each["text"]) for each in received(layout)] == [
        ("sms", WARD, "Log in again ✓ & look"),
        ("phone", WARD, "You are on call <now> & soon"),
        ("sms", UNREACHABLE, "to nobody"),
        ("phone", UNREACHABLE, "to nobody"),
    ]
    states = [
        await settled(gateway, kind, reference)
        for kind, reference in (("sms", text), ("phone", call), ("sms", lost), ("phone", unanswered))
    ]
    assert states == ["delivered", "completed", "undelivered", "no-answer"]
    # A fixed number in the URL goes before any other.
    await Gateway(f"{base(layout)}/{WARD}", "sms").send("sms", "x", UNREACHABLE, deadline=10)
    assert received(layout)[-1]["channel"] == WARD


@pytest.mark.parametrize(
    ("change", "to", "text", "kind", "found"),
    [
        (("AC", "AX"), WARD, "x", PermanentError, "HTTP 401, code 20003"),
        ((GATEWAY_NUMBER, "+12025550100"), WARD, "x", PermanentError, "code 21606"),
        (("", ""), INVALID, "x", PermanentError, "code 21211"),
        (("", ""), "12", "x", PermanentError, "code 21211"),
        (("", ""), WARD, " ", PermanentError, "code 21602"),
        (("", ""), WARD, "x" * 1601, PermanentError, "code 21617"),
        (("", ""), None, "x", PermanentError, "no number"),
        (("@", ""), WARD, "x", PermanentError, "cannot be read"),
        (("/+", "/+1/+2/+"), WARD, "x", PermanentError, "lacks account"),
    ],
)
async def test_what_is_wrong_is_refused_and_named_without_secrets(
    layout: Layout, change: tuple[str, str], to: str | None, text: str, kind: type[DriverError], found: str
) -> None:
    account, token, _ = gateway_account(layout)
    url = base(layout).replace(*change, 1) if change[0] else base(layout)
    with pytest.raises(kind) as caught:
        await Gateway(url, "sms").send("sms", text, to, deadline=10)
    assert found in str(caught.value)
    assert not any(each in str(caught.value) for each in (account, token, WARD))
    assert received(layout) == []


async def test_a_gateway_that_is_not_there_is_asked_again(layout: Layout) -> None:
    url = base(layout).replace(str(layout.channels), "127.0.0.1:1")
    with pytest.raises(TemporaryError, match="not reachable"):
        await Gateway(url, "sms").send("sms", "x", WARD, deadline=5)


async def test_too_many_are_refused_with_the_time_to_wait(layout: Layout) -> None:
    gateway = Gateway(base(layout), "sms")
    with pytest.raises(TemporaryError) as caught:
        for number in range(200):
            await gateway.send("sms", str(number), WARD, deadline=10)
    assert "code 20429" in caught.value.found
    assert caught.value.after is not None
    assert 1 <= caught.value.after <= 60


async def test_only_the_account_is_served_and_only_forms(layout: Layout) -> None:
    account, token, number = gateway_account(layout)
    url = f"http://{layout.channels}/2010-04-01/Accounts/{account}/Messages"
    form = urlencode({"To": WARD, "From": number, "Body": "x"})
    async with aiohttp.ClientSession() as session:
        for who in ({}, basic(account, "wrong"), basic("AC0", token)):
            async with session.post(f"{url}.json", data=form, headers=who) as answer:
                assert (answer.status, (await answer.json())["code"]) == (401, 20003)
        good = basic(account, token)
        async with session.post(f"{url}.json", json={"To": WARD}, headers=good) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 21604)
        async with session.get(f"{url}/SM00.json", headers=good) as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, 20404)
    assert received(layout) == []


@pytest.mark.req("CO-3", "CL-2")
async def test_who_is_on_call_has_a_text_and_when_nobody_answers_their_phones_ring(layout: Layout) -> None:
    playbook = load(layout.playbook)
    fast = playbook.on_call.model_copy(
        update={
            "calling": playbook.on_call.calling.model_copy(update={"step": playbook.on_call.calling.step * 0})
        }
    )
    severities = {
        name: each.model_copy(update={"response": each.response * 0})
        for name, each in playbook.severities.items()
    }
    # The fixture makes no certificates.
    traffic = playbook.traffic.model_copy(update={"ca_file": None})
    playbook = playbook.model_copy(update={"on_call": fast, "severities": severities, "traffic": traffic})
    phones = {person.name: person.phone for person in playbook.people}
    store = await SqliteStore.open(layout.directory / "log.db", create=True)
    keeper = Keeper(playbook, store, None, "keeper@test")
    try:
        await keeper.desk.declare(Declaration("The wards cannot log in", "Celia Marsh"), None)
        ends = time.monotonic() + 40
        while {each["kind"] for each in received(layout)} < {"slack", "sms", "phone"}:
            await keeper.round()
            assert time.monotonic() < ends, received(layout)
        texts = {each["channel"] for each in received(layout) if each["kind"] == "sms"}
        rung = [each for each in received(layout) if each["kind"] == "phone"]
        assert texts >= {phones[name] for name in ("Celia Marsh", "Dov Larkspur")}
        assert {each["channel"] for each in rung} <= set(phones.values())
        assert "nobody has acknowledged" in rung[0]["text"]
        # What became of each is on the record, once.
        while True:
            await keeper.post.receipts()
            events = await store.read()
            sent = {each.subject for each in events if each.kind == SENT and each.data.get("reference")}
            told = [each.subject for each in events if each.kind == RECEIPT]
            if sent and sent == set(told):
                break
            assert time.monotonic() < ends, (len(sent), len(told))
            await asyncio.sleep(0.2)
        assert len(told) == len(set(told))
        assert {each.data["status"] for each in events if each.kind == RECEIPT} == {"delivered", "completed"}
    finally:
        await store.close()


@pytest.mark.req("CM-3")
async def test_patients_hear_the_whole_message_in_each_language(layout: Layout) -> None:
    playbook = load(layout.playbook)
    store = await SqliteStore.open(layout.directory / "log.db", create=True)
    keeper = Keeper(playbook, store, None, "keeper@test")
    try:
        await keeper.desk.declare(Declaration("x", "Celia Marsh"), None)
        await queue(keeper.desk, playbook, "INC-1", Word.FIRST, "Celia Marsh", ["patients"])
        await keeper.post.deliver()
        said = [each["text"] for each in received(layout) if each["kind"] == "phone"]
        assert len(said) == 2
        assert all(
            any(words in each for each in said)
            for words in ("We still care for you", "Le seguimos atendiendo")
        )
    finally:
        await store.close()


@pytest.mark.req("CM-1")
async def test_a_channel_that_asks_for_peace_has_it(layout: Layout) -> None:
    playbook = load(layout.playbook)
    name, (kind, number) = "clinical-staff", NUMBERS["clinical-staff"]
    store = await SqliteStore.open(layout.directory / "log.db", create=True)
    keeper = Keeper(playbook, store, None, "keeper@test")
    message = {"channels": [f"{kind}@{name}"], "subject": "s", "body": "b", "audience": name, "word": "call"}

    async def made() -> list[NewEvent]:
        return [NewEvent(QUEUED, f"m{each}", "x", message) for each in range(40)]

    try:
        await append_after(store, made, doing="testing")
        await keeper.post.deliver()
        failed = [each for each in await store.read() if each.kind == FAILED]
        assert failed
        assert all(each.data["after"] >= 1 for each in failed)
        assert max((await keeper.post.outbox()).held.values()) > datetime.now(UTC)
        assert await keeper.post.deliver() == 0
        texts = [each for each in received(layout) if each["channel"] == number]
        assert len(texts) + len(failed) == 40
    finally:
        await store.close()


@pytest.mark.req("CO-3", "CM-1")
async def test_a_text_that_does_not_arrive_is_followed_by_a_call_and_listed(layout: Layout) -> None:
    playbook = load(layout.playbook)
    people = tuple(person.model_copy(update={"phone": UNREACHABLE}) for person in playbook.people)
    traffic = playbook.traffic.model_copy(update={"ca_file": None})
    playbook = playbook.model_copy(update={"people": people, "traffic": traffic})
    store = await SqliteStore.open(layout.directory / "log.db", create=True)
    keeper = Keeper(playbook, store, None, "keeper@test")
    try:
        await keeper.desk.declare(Declaration("The wards cannot log in", "Celia Marsh"), None)
        ends = time.monotonic() + 40
        while True:
            await keeper.round()
            await keeper.post.receipts()
            found = [
                each
                for each in messages(await keeper.post.outbox(), "INC-1")
                if each["key"].startswith("INC-1/page/1/1/sms/")
            ]
            if found and all(each["channel"].startswith("phone:") and each["receipt"] for each in found):
                break
            assert time.monotonic() < ends, found
            await asyncio.sleep(0.2)
        for each in found:
            name = each["key"].rpartition("/")[2]
            assert each["found"] == f"sms:{name}: undelivered"
            assert each["state"] == "not arrived"
    finally:
        await store.close()
