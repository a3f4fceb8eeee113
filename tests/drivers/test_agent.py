"""The agent's client against a real agent, and against servers that are not one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hospital import Hospital, free_network, make_template, open_hospital
from pydantic import SecretStr

from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.playbook.topology import AgentEndpoint


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Hospital]:
    here = await open_hospital(tmp_path, make_template(tmp_path))
    here.east.start()
    await here.east.wait_state("standby")
    yield here
    here.east.agent.send_signal(signal.SIGCONT)
    await here.close()


async def test_answers_come_back_typed_and_refusals_with_the_agents_own_remedy(here: Hospital) -> None:
    status = await here.east.client.status(deadline=5)
    assert (status.region, status.instance) == ("us-east-1", "postgres-primary-0@us-east-1")
    assert (status.database.state, status.lease.held, status.fence) == ("standby", False, None)
    assert not status.replication.streaming
    with pytest.raises(PermanentError) as refused:
        await here.east.client.promote(epoch=1, min_lsn=None, deadline=5)
    assert "vacant by nobody" in refused.value.found
    assert refused.value.remedy == "Grant it to this instance under that epoch first"
    stranger = AgentClient(here.east.client.endpoint.model_copy(update={"key": SecretStr("wrong")}))
    with pytest.raises(PermanentError, match="key is missing or wrong"):
        await stranger.status(deadline=5)
    await stranger.close()
    with pytest.raises(PermanentError, match="expected epoch to be a number from 1"):
        await here.east.client.promote(epoch=0, min_lsn=None, deadline=5)


async def test_a_frozen_agent_leaves_orders_unknown_and_questions_temporary(here: Hospital) -> None:
    here.east.agent.send_signal(signal.SIGSTOP)
    with pytest.raises(TemporaryError, match=r"within 0\.5 s"):
        await here.east.client.status(deadline=0.5)
    with pytest.raises(OutcomeUnknownError, match="not carried out twice"):
        await here.east.client.fence(epoch=1, reason="r", run="t", clean=False, deadline=0.5)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"POST"):
        await reader.readuntil(b"}")
    writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{"hello": true}')
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("handler", "question", "order"),
    [
        (hang_up, TemporaryError, OutcomeUnknownError),
        (talk_nonsense, PermanentError, PermanentError),
        (None, TemporaryError, TemporaryError),
    ],
)
async def test_what_is_no_agent_is_told_apart(
    handler: Handler | None, question: type[DriverError], order: type[DriverError]
) -> None:
    host = f"{free_network()}.1"
    server = await asyncio.start_server(handler, host, 8300) if handler else None
    client = AgentClient(AgentEndpoint(url=f"http://{host}:8300", key=SecretStr("k")))
    with pytest.raises(question):
        await client.status(deadline=3)
    with pytest.raises(order):
        await client.promote(epoch=1, min_lsn=None, deadline=3)
    await client.close()
    if server is not None:
        server.close()
