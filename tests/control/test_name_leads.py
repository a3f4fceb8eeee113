"""Where the public name leads: each name server asked by itself over UDP, the record in a real Route 53 API, the TTL waited out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import boto3
import dns.message
import pytest
import yaml
from hospital import EAST, WEST, free_network
from moto.server import ThreadedMotoServer

from hmsdr.drivers import nameservers
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.lab.dns.answers import Answers, Record
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.reaching import NameArgs, NameLeads
from hmsdr.runbook.actions.traffic import upserts
from hmsdr.runbook.systems import Systems

PORT = 53
"""Name servers of a zone have no other."""
TTL = 1


class Server(asyncio.DatagramProtocol):
    """One name server; what it answers can be changed."""

    def __init__(self) -> None:
        self.answers = Answers([], ["hms.enterprise.com."])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self.answers.answer(dns.message.from_wire(data), 0.0)
        cast("asyncio.DatagramTransport", self.transport).sendto(response.to_wire(), addr)


@contextlib.asynccontextmanager
async def serving(*addresses: str) -> AsyncIterator[list[Server]]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_datagram_endpoint(Server, local_addr=(address, PORT)) for address in addresses]
    yield [server for _, server in made]
    for transport, _ in made:
        transport.close()


@pytest.fixture
def route53() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@contextlib.asynccontextmanager
async def hospital(place: Path, url: str, resolvers: list[str], seconds: float) -> AsyncIterator[StepContext]:
    keys = dict.fromkeys(("access_key_id", "secret_access_key"), "${env:HMSDR_POSTGRES_PASSWORD}")
    values = {
        "extends": "hms",
        "aws": {"endpoint_url": url, **keys},
        "traffic": {"resolvers": resolvers, "ttl": TTL},
    }
    (place / "playbook.yaml").write_text(yaml.safe_dump(values))
    secrets = dict.fromkeys(
        ("HMSDR_POSTGRES_PASSWORD", "HMSDR_AGENT_KEY_US_EAST_1", "HMSDR_AGENT_KEY_US_WEST_2"), "x"
    )
    book = load(place / "playbook.yaml", environ=secrets)
    client = boto3.client(
        "route53", region_name="us-east-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x"
    )
    zone = client.create_hosted_zone(Name=book.traffic.hosted_zone, CallerReference=str(time.time()))
    client.change_resource_record_sets(
        HostedZoneId=zone["HostedZone"]["Id"],
        ChangeBatch={"Changes": upserts(book, {EAST: 0, WEST: 100})},  # type: ignore[typeddict-item]
    )
    store = await SqliteStore.open(place / "store.db", create=True, lease_seconds=4)
    systems = Systems(book, store)
    ends = asyncio.get_running_loop().time() + seconds
    try:
        yield StepContext(systems, "run-test", ends, progress=lambda _: None)
    finally:
        await systems.close()
        await store.close()


def leading(context: StepContext, region: str, *more: Record) -> Answers:
    """A server's records, the public name leading to `region`."""
    playbook = context.systems.playbook
    zone = playbook.traffic.hosted_zone.rstrip(".") + "."
    name = playbook.traffic.record.rstrip(".") + "."
    record = Record(name, "A", TTL, (playbook.regions[region].ingress.address,))
    return Answers([record, *more], [zone])


def named(context: StepContext, address: str) -> tuple[Record, Record]:
    zone = context.systems.playbook.traffic.hosted_zone.rstrip(".") + "."
    return Record(zone, "NS", TTL, (f"ns1.{zone}",)), Record(f"ns1.{zone}", "A", TTL, (address,))


@pytest.mark.req("AP-3")
async def test_a_name_server_that_leads_to_the_old_side_is_waited_for_and_then_the_ttl(
    tmp_path: Path, route53: str
) -> None:
    net = free_network()
    resolver, own = f"{net}.1", f"{net}.2"
    async with (
        serving(resolver, own) as (first, second),
        hospital(tmp_path, route53, [f"{resolver}:{PORT}"], 20) as context,
    ):
        args, action = NameArgs(users=WEST), NameLeads()
        first.answers = leading(context, WEST, *named(context, own))
        second.answers = leading(context, EAST)
        found = await action.check(context, args)
        assert (found.holds, found.observed["elsewhere"]) == (False, [own])
        assert f"{own} to let go of" in str(found.waiting_for)

        waiting = asyncio.create_task(action.act(context, args))
        await asyncio.sleep(0.7)
        assert not waiting.done()
        second.answers, began = leading(context, WEST), time.monotonic()
        assert (await waiting)["waited_seconds"] == TTL
        assert time.monotonic() - began >= TTL
        assert (await action.verify(context, args)).holds
        assert (await action.act(context, args))["waited_seconds"] == 0
        with pytest.raises(PermanentError, match=f"sends nobody to {EAST}"):
            await action.check(context, NameArgs(users=EAST))


@pytest.mark.req("AP-3")
async def test_silent_servers_are_no_answer_and_a_zone_without_servers_is_asked_at_its_resolvers(
    tmp_path: Path, route53: str
) -> None:
    net = free_network()
    resolver, dead = f"{net}.1", f"{net}.9"
    async with (
        serving(resolver) as (only,),
        hospital(tmp_path, route53, [f"{resolver}:{PORT}"], 20) as context,
    ):
        args = NameArgs(users=WEST)
        only.answers = leading(context, WEST)
        found = await NameLeads().check(context, args)
        assert found.holds
        assert found.observed["asked"].startswith("resolvers alone")
        only.answers = leading(context, WEST, *named(context, dead))
        found = await NameLeads().check(context, args)
        assert (found.holds, found.waiting_for) == (False, f"{dead} to answer")
    with pytest.raises(TemporaryError, match="name servers"):
        await nameservers.servers_of("hms.enterprise.com", [f"{resolver}:{PORT}"], deadline=0.5)
