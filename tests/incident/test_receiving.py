"""A gateway's callbacks on a real socket: only what the account signed counts, once, and a lost text goes its next way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from casebook import BOOK
from hmsdr.decide.outbox import QUEUED, RECEIPT, SENDING, SENT
from hmsdr.drivers.gateway_callback import HEADER, is_signed, signature
from hmsdr.incident.desk import Desk
from hmsdr.incident.listening import application
from hmsdr.incident.post import CALLBACK_PATH, Post, callback_url
from hmsdr.incident.receiving import accounts
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import AnswerLinks

ACCOUNT, TOKEN = "AC7", "a-token"
URL = f"https://incidents.hospital.example{CALLBACK_PATH}"
LOST = {"AccountSid": ACCOUNT, "MessageSid": "SM1", "MessageStatus": "undelivered", "To": "+12025550123"}


def book() -> Playbook:
    links = AnswerLinks(url="https://incidents.hospital.example/", key=SecretStr("k" * 40))
    endpoints = {"sms": SecretStr(f"twilio+https://{ACCOUNT}:{TOKEN}@gateway.example/+12025550190")}
    channels = BOOK.channels.model_copy(update={"links": links, "endpoints": endpoints})
    return BOOK.model_copy(update={"channels": channels})


class Served:
    def __init__(self, store: SqliteStore, url: str, session: aiohttp.ClientSession) -> None:
        self.store, self.url, self.session = store, url, session

    async def post(self, form: dict[str, str], given: str | None = None) -> int:
        headers = {HEADER: signature(TOKEN, URL, form) if given is None else given}
        async with self.session.post(self.url, data=form, headers=headers) as answer:
            return answer.status

    async def receipts(self) -> list[tuple[str, object]]:
        return [
            (each.subject, each.data["status"]) for each in await self.store.read() if each.kind == RECEIPT
        ]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)

    async def sent() -> list[NewEvent]:
        on = {"channel": "sms:Ada Quill"}
        return [
            NewEvent(
                QUEUED, "m", "keeper", {"channels": ["sms:Ada Quill", "phone:Ada Quill"], "word": "call"}
            ),
            NewEvent(SENDING, "m", "keeper", on),
            NewEvent(SENT, "m", "keeper", {**on, "reference": "SM1"}),
        ]

    await append_after(store, sent, doing="testing")
    runner = web.AppRunner(application(Desk(book(), store), store, book()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Served(store, f"http://127.0.0.1:{runner.addresses[0][1]}{CALLBACK_PATH}", session)
    await runner.cleanup()
    await store.close()


def test_a_signature_is_the_one_that_the_providers_own_library_makes() -> None:
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
        "Caller": "+14158675309",
    }
    url, expected = "https://mycompany.com/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert signature("12345", url, form) == expected
    assert is_signed("12345", url, form, expected)
    for other in ("", "x", "ä", expected[:-1]):
        assert not is_signed("12345", url, form, other)


@pytest.mark.req("CO-3")
async def test_a_text_that_is_lost_is_known_at_once_once_and_goes_the_next_way(served: Served) -> None:
    assert callback_url(book()) == URL
    assert await served.post({**LOST, "MessageStatus": "sent"}) == 204
    assert await served.receipts() == []
    assert [await served.post(LOST) for _ in range(3)] == [204, 204, 204]
    assert await served.receipts() == [("m", "undelivered")]
    parcel = (await Post(book(), served.store, "x").outbox()).waiting["m"]
    assert (parcel.found, parcel.refused) == ("sms:Ada Quill: undelivered", {"sms:Ada Quill"})


def test_an_endpoint_that_cannot_be_read_keeps_nobody_from_listening() -> None:
    known = book()
    broken = {**known.channels.endpoints, "phone": SecretStr("twilio+https://gateway.example")}
    channels = known.channels.model_copy(update={"endpoints": broken})
    assert accounts(known.model_copy(update={"channels": channels})) == {ACCOUNT: TOKEN}


async def test_what_the_account_did_not_sign_and_what_is_no_callback_leaves_nothing(served: Served) -> None:
    good = signature(TOKEN, URL, LOST)
    assert await served.post(LOST, "") == 403
    assert await served.post(LOST, signature("another", URL, LOST)) == 403
    assert await served.post({**LOST, "MessageSid": "SM2"}, good) == 403
    assert await served.post({**LOST, "AccountSid": "AC8"}) == 403
    assert await served.post({"AccountSid": ACCOUNT}) == 400
    assert await served.post({f"f{each}": "x" for each in range(101)}) == 400
    assert await served.post({**LOST, "MessageSid": "SM-of-somebody-else"}) == 204
    for kind, body in (("application/x-www-form-urlencoded; charset=none", b"a=b"), ("text/plain", b"\xff")):
        headers = {"Content-Type": kind, HEADER: good}
        async with served.session.post(served.url, data=body, headers=headers) as answer:
            assert answer.status in (400, 403)
    async with served.session.post(served.url, data=[("a", "1"), ("a", "2")]) as answer:
        assert answer.status == 400
    assert await served.receipts() == []
