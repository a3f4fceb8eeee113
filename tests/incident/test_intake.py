"""Alertmanager's webhook on a real socket: a flood is one incident and no alert is lost; what is wrong is refused and leaves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from casebook import BOOK
from hmsdr.errors import RefusedError
from hmsdr.incident.alertmanager import MOST_ALERTS, MOST_BYTES, read
from hmsdr.incident.desk import Desk
from hmsdr.incident.listening import application
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.model import Playbook

KEY = "a-key"


def alert(number: int = 0, status: str = "firing", **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "Slow", "instance": f"i{number}", **labels},
        "annotations": {"summary": f"patient-service {number} is slow"},
        "fingerprint": f"{number:016x}",
    }


def payload(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "status": "firing", "alerts": alerts}).encode()


def keyed() -> Playbook:
    monitoring = BOOK.prometheus.model_copy(update={"alerts_key": SecretStr(KEY)})
    return BOOK.model_copy(update={"prometheus": monitoring})


class Intake:
    def __init__(self, store: SqliteStore, url: str, session: aiohttp.ClientSession) -> None:
        self.store, self.url, self.session = store, url, session
        self.desk = Desk(BOOK, store)

    async def post(self, body: bytes, key: str = KEY) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key}"}
        async with self.session.post(self.url, data=body, headers=headers) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    store = await SqliteStore.open(tmp_path / "log.db", create=True)
    runner = web.AppRunner(application(Desk(BOOK, store), store, keyed()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Intake(store, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/alerts", session)
    await runner.cleanup()
    await store.close()


async def test_five_thousand_alerts_are_one_incident_and_none_is_lost(intake: Intake) -> None:
    bodies = [payload(*(alert(100 * page + each) for each in range(100))) for page in range(50)]
    answers = await asyncio.gather(*(intake.post(body) for body in bodies))
    assert {status for status, _ in answers} == {200}
    await intake.desk.route(None)
    book = await intake.desk.book()
    assert list(book.incidents) == ["INC-1"]
    assert len(book.incidents["INC-1"].signals) == 5000
    head = await intake.store.head()
    # Sent again, as Alertmanager does: nothing is new.
    assert (await intake.post(bodies[0]))[0] == 200
    assert await intake.store.head() == head
    ended = payload(*(alert(each, "resolved") for each in range(3)))
    for _ in range(2):
        await intake.post(ended)
    assert (await intake.store.head()).seq == head.seq + 1
    signals = (await intake.desk.incident("INC-1", "testing")).signals.values()
    assert sum(each.ended_at is not None for each in signals) == 3


async def test_what_the_labels_say_is_what_it_means(intake: Intake) -> None:
    down = alert(1, severity="critical", service="patient", region="us-east-1")
    exact = alert(2, hmsdr_effect="lost", hmsdr_severity="SEV-1", region="us-east-1")
    odd = alert(3, hmsdr_effect="exploded", hmsdr_severity="SEV-9")
    await intake.post(payload(down, exact, odd))
    found = [
        (each.effect, each.severity, each.regions) for each in (await intake.desk.book()).pending.values()
    ]
    assert found == [
        ("down", None, ("us-east-1",)),
        ("lost", "SEV-1", ("us-east-1",)),
        ("degraded", None, ()),
    ]


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"[]", 400, "no list `alerts`"),
        (b'{"alerts": [1]}', 400, "no labels"),
        (b'{"alerts": [{"labels": {"a": 1}, "status": "firing"}]}', 400, "no labels"),
        (b'{"alerts": [{"labels": {}, "status": "burning"}]}', 400, "neither firing"),
        (payload(*[alert()] * (MOST_ALERTS + 1)), 400, "at most 2000"),
        (b"x" * (MOST_BYTES + 1), 413, "exceeded"),
    ],
)
async def test_what_is_wrong_is_refused_and_leaves_nothing(
    intake: Intake, body: bytes, status: int, found: str
) -> None:
    answer = await intake.post(body)
    assert answer[0] == status, answer
    assert found in answer[1]
    assert (await intake.store.head()).seq == 0


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", "ключ"])
async def test_without_the_key_nothing_is_taken(intake: Intake, key: str) -> None:
    assert (await intake.post(payload(alert()), key))[0] == 401
    assert (await intake.store.head()).seq == 0


async def test_a_log_that_takes_nothing_is_said_so_that_it_is_sent_again(intake: Intake) -> None:
    intake.store._connection.execute("PRAGMA query_only = ON")
    assert (await intake.post(payload(alert())))[0] == 503
    intake.store._connection.execute("PRAGMA query_only = OFF")
    assert (await intake.post(payload(alert())))[0] == 200


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["alerts", "labels", "status", "annotations", "region"]), inner)
    ),
    max_leaves=10,
)


@given(body=st.one_of(st.binary(max_size=50), anything.map(lambda each: json.dumps(each).encode())))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        read(body)
    except RefusedError as error:
        assert error.found
