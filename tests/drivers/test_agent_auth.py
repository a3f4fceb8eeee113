"""Orders to an agent and its answers: nobody without the key can say them, and nobody can say them again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from hospital import EAST, KEY, Hospital, free_network, make_template, open_hospital
from pydantic import SecretStr

from hmsdr.control.lease import Lease
from hmsdr.control.relaying import ask_peer
from hmsdr.decide.authority import Holder, grant
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_auth import (
    LIFE,
    NONCE,
    SCHEME,
    SIGNATURE,
    Seen,
    new_nonce,
    sign_answer,
    sign_request,
)
from hmsdr.drivers.errors import PermanentError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.topology import AgentEndpoint

PATH = "/v1/relay"
BODY = json.dumps({"epoch": 1, "instance": "postgres-secondary-0@us-west-2", "incarnation": "x"}).encode()


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Hospital]:
    here = await open_hospital(tmp_path, make_template(tmp_path))
    here.east.start()
    await here.east.wait_state("standby")
    yield here
    await here.close()


async def order(url: str, headers: dict[str, str], body: bytes = BODY) -> tuple[int, dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + PATH, data=body, headers=headers) as response,
    ):
        return response.status, dict(response.headers)


def signed(life: str, body: bytes = BODY, key: str = KEY) -> dict[str, str]:
    nonce = new_nonce()
    return {
        "Authorization": SCHEME + sign_request(key, "POST", PATH, nonce, life, body),
        NONCE: nonce,
        LIFE: life,
    }


@pytest.mark.req("FA-4")
async def test_a_recorded_order_is_worth_nothing(here: Hospital) -> None:
    url = here.book.regions[EAST].agent.url
    life = (await here.east.status()).incarnation
    recorded = signed(life)
    assert (await order(url, recorded))[0] == 200
    assert (await order(url, recorded))[0] == 401, "said again"
    for changed in (
        signed(life, key="guessed"),
        {**signed(life), LIFE: "another"},
        {**signed(life), NONCE: new_nonce()},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {},
    ):
        assert (await order(url, changed))[0] == 401
    fresh = signed(life)
    assert (await order(url, fresh, BODY.replace(b"1", b"2")))[0] == 401, "another body"
    status, headers = await order(url, signed("earlier"))
    assert (status, headers[LIFE]) == (412, life), "another life of the same agent"
    assert (await order(url, {"Authorization": f"Bearer {KEY}"}))[0] == 200, "a person with curl"


async def test_an_answer_that_is_not_signed_for_this_question_is_nobodys() -> None:
    host = f"{free_network()}.1"
    said = b'{"healthy": true}'
    recorded = sign_answer("k", "an older question", "life", 200, said)

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{LIFE}: life\r\n{SIGNATURE}: {recorded}\r\n"
        writer.write(head.encode() + f"Content-Length: {len(said)}\r\n\r\n".encode() + said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(impostor, host, 8300)
    client = AgentClient(AgentEndpoint(url=f"http://{host}:8300", key=SecretStr("k")))
    with pytest.raises(PermanentError, match="not signed with the key of that agent"):
        await client.status(deadline=3)
    await client.close()
    server.close()


@pytest.mark.req("FA-4")
async def test_a_promise_that_was_forged_or_recorded_moves_no_deadline(tmp_path: Path) -> None:
    """Cut off from the store, the holder would write on by it, beside the side that was promoted meanwhile."""
    host, said = f"{free_network()}.1", json.dumps({"record": None, "promised": 60.0, "why": ""}).encode()
    ways = {
        "recorded": lambda nonce: sign_answer("k", "an older question", "life", 200, said),
        "forged": lambda nonce: sign_answer("guessed", nonce, "life", 200, said),
        "not signed": lambda nonce: "",
        "the peer's own": lambda nonce: sign_answer("k", nonce, "life", 200, said),
    }
    chosen = ""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        nonce = next(line.split(": ")[1] for line in head.splitlines() if line.startswith(NONCE))
        signature = f"{SIGNATURE}: {ways[chosen](nonce)}\r\n"
        answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\n{LIFE}: life\r\n{signature}"
        writer.write(answer.encode() + f"Content-Length: {len(said)}\r\n\r\n".encode() + said)
        await writer.drain()
        writer.close()

    store = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=60.0)
    holder = Holder("postgres-primary-0@us-east-1", "x")
    vacant = await store.read_authority()
    assert await store.swap_authority(vacant, grant(vacant, holder))
    lease = Lease(store, holder, 0.05)
    await lease.renew(5)
    server = await asyncio.start_server(peer, host, 8300)
    client = AgentClient(AgentEndpoint(url=f"http://{host}:8300", key=SecretStr("k")))
    try:
        for chosen in ways:
            before = lease.deadline
            assert await ask_peer(client, lease, 60.0) is (chosen == "the peer's own"), chosen
            assert (lease.deadline == before) is (chosen != "the peer's own"), chosen
    finally:
        await client.close()
        server.close()
        await store.close()


def test_only_so_many_numbers_are_remembered() -> None:
    seen = Seen()
    assert seen.first_time("a")
    assert not seen.first_time("a")
    assert not seen.first_time("")
    for number in range(30_000):
        assert seen.first_time(str(number))
    assert not seen.first_time("29999")
