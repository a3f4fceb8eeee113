"""The strict layer refuses what Route 53 refuses, and the driver and DNS above it behave: all real processes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import struct
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import aiohttp
import botocore.exceptions
import dns.asyncquery
import dns.asyncresolver
import dns.message
import dns.opcode
import dns.rcode
import dns.resolver
import pytest

from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.drivers.route53 import Route53
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.lab.aws.seed import client, seed
from hmsdr.lab.dns.__main__ import Server
from hmsdr.lab.dns.answers import Answers, Record
from hmsdr.lab.layout import PUBLIC_NAME, STATUS_BUCKETS, ZONE, Layout
from hmsdr.playbook.topology import Aws, Traffic
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.traffic import ShiftArgs, ShiftTraffic
from hmsdr.runbook.systems import Systems

TRAFFIC = Traffic(
    public_url=f"https://{PUBLIC_NAME}", hosted_zone=ZONE, record=PUBLIC_NAME, ttl=1, epoch_record=f"_epoch.{PUBLIC_NAME}"
)  # fmt: skip


def aws(layout: Layout) -> Aws:
    return Aws.model_validate(
        {"endpoint_url": f"http://{layout.aws}", "access_key_id": "lab", "secret_access_key": "lab"}
    )


@pytest.fixture
async def driver(layout: Layout):
    await seed(layout)
    made = Route53(aws(layout), TRAFFIC)
    yield made
    epoch = await made.epoch(deadline=10)
    change = await made.shift({"us-east-1": 100, "us-west-2": 0}, epoch or 1, deadline=10)
    if change:
        await made.wait_insync(change, deadline=10)
    await made.close()


def zone_id(layout: Layout) -> str:
    zones = client(layout, "route53").list_hosted_zones_by_name(DNSName=ZONE)["HostedZones"]
    return zones[0]["Id"].rpartition("/")[2]


def record(layout: Layout, weight: int, value: str | None = None) -> dict[str, object]:
    address = value or layout.regions["us-east-1"].ingress_http.host
    return {
        "Name": f"{PUBLIC_NAME}.", "Type": "A", "SetIdentifier": "us-east-1", "Weight": weight, "TTL": 1,
        "ResourceRecords": [{"Value": address}],
    }  # fmt: skip


def send(layout: Layout, *changes: tuple[str, dict[str, object]]) -> None:
    client(layout, "route53").change_resource_record_sets(
        HostedZoneId=zone_id(layout),
        ChangeBatch={"Changes": [{"Action": a, "ResourceRecordSet": r} for a, r in changes]},
    )


async def addresses(layout: Layout, count: int) -> Counter[str]:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [layout.dns.host], layout.dns.port
    return Counter([(await resolver.resolve(PUBLIC_NAME, "A"))[0].to_text() for _ in range(count)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("DELETE", {"weight": 99})], "do not match the current values"),
        ([("DELETE", {"weight": 100, "value": "127.0.0.9"})], "do not match the current values"),
        ([("CREATE", {"weight": 100})], "already exists"),
        ([("DELETE", {"weight": 100}), ("CREATE", {"weight": 256})], "Invalid weight 256"),
        ([("UPSERT", {"weight": 90, "value": "1.2.3.400"})], "ARRDATAIllegalIPv4Address"),
        (
            [("UPSERT", {"weight": 90}), ("UPSERT", {"weight": 80})],
            "invalid set of changes for a resource record",
        ),
        (
            [("DELETE", {"weight": 100}), ("CREATE", {"weight": 9}), ("UPSERT", {"weight": 8})],
            "invalid set of changes",
        ),
    ],
)
async def test_what_route53_refuses_is_refused_whole(
    layout: Layout, driver: Route53, changes: list[tuple[str, dict[str, object]]], words: str
) -> None:
    before = await driver.weights(deadline=10)
    with pytest.raises(botocore.exceptions.ClientError, match=words):
        await asyncio.to_thread(send, layout, *((a, record(layout, **r)) for a, r in changes))  # type: ignore[arg-type]
    assert await driver.weights(deadline=10) == before


async def test_a_shift_is_pending_then_in_sync_then_answered_by_dns(layout: Layout, driver: Route53) -> None:
    east, west = (layout.regions[name].ingress_http.host for name in ("us-east-1", "us-west-2"))
    assert set(await addresses(layout, 20)) == {east}
    epoch = (await driver.epoch(deadline=10) or 0) + 1
    change = await driver.shift({"us-east-1": 0, "us-west-2": 100}, epoch, deadline=10)
    assert change is not None
    assert not await driver.insync(change, deadline=10)
    assert set(await addresses(layout, 5)) == {east}, "what is pending is not served"
    await driver.wait_insync(change, deadline=10)
    while set(await addresses(layout, 1)) != {west}:
        await asyncio.sleep(0.01)
    assert await driver.epoch(deadline=10) == epoch
    assert await driver.shift({"us-east-1": 0, "us-west-2": 100}, epoch, deadline=10) is None


async def test_an_older_epoch_moves_nothing(driver: Route53) -> None:
    epoch = (await driver.epoch(deadline=10) or 0) + 5
    await driver.shift({"us-east-1": 50, "us-west-2": 50}, epoch, deadline=10)
    with pytest.raises(PermanentError, match=f"carry epoch {epoch}"):
        await driver.shift({"us-east-1": 100, "us-west-2": 0}, epoch - 1, deadline=10)


async def test_right_weights_under_an_old_epoch_are_not_the_goal(driver: Route53) -> None:
    """Somebody moved the weights by hand: the epoch is exchanged all the same (SAFETY rule 12)."""
    weights = {"us-east-1": 100, "us-west-2": 0}
    epoch = (await driver.epoch(deadline=10) or 0) + 1
    await driver.shift(weights, epoch, deadline=10)
    systems = SimpleNamespace(dns=lambda: driver, playbook=SimpleNamespace(regions=weights))
    context = StepContext(
        cast("Systems", systems), "run-1", asyncio.get_running_loop().time() + 20, lambda _: None
    )
    action = ShiftTraffic()
    assert (await action.check(context, ShiftArgs(to="us-east-1", epoch=epoch))).holds
    later = ShiftArgs(to="us-east-1", epoch=epoch + 1)
    assert not (await action.check(context, later)).holds
    await action.act(context, later)
    assert (await action.check(context, later)).holds
    assert await driver.epoch(deadline=10) == epoch + 1


async def test_of_two_shifts_at_once_one_wins_and_the_other_is_told(layout: Layout, driver: Route53) -> None:
    other = Route53(aws(layout), TRAFFIC)
    epoch = (await driver.epoch(deadline=10) or 0) + 1
    await asyncio.gather(driver.prepare(deadline=10), other.prepare(deadline=10))
    answers = await asyncio.gather(
        driver.shift({"us-east-1": 10, "us-west-2": 90}, epoch, deadline=10),
        other.shift({"us-east-1": 20, "us-west-2": 80}, epoch + 1, deadline=10),
        return_exceptions=True,
    )
    await other.close()
    refused = [item for item in answers if isinstance(item, DriverError)]
    weights = {name: item.weight for name, item in (await driver.weights(deadline=10)).items()}
    assert weights in ({"us-east-1": 10, "us-west-2": 90}, {"us-east-1": 20, "us-west-2": 80})
    assert len(refused) <= 1
    for error in refused:
        assert isinstance(error, TemporaryError | PermanentError)


@pytest.mark.req("SW-2")
async def test_within_one_epoch_a_delayed_share_cannot_match_again(layout: Layout, driver: Route53) -> None:
    epoch = await driver.epoch(deadline=10) or 1

    async def share(made: Route53, home: int, mark: str) -> None:
        change = await made.shift({"us-east-1": 100 - home, "us-west-2": home}, epoch, deadline=10, mark=mark)
        assert change is not None
        await made.wait_insync(change, deadline=10)

    await share(driver, 20, "run-1/20")
    late = Route53(aws(layout), TRAFFIC)
    try:
        assert (await late.carried(deadline=10))[1] == epoch
        await share(driver, 40, "run-1/40")
        await share(driver, 0, "run-1/back-from-40")
        await share(driver, 20, "run-2/20")  # the same weights, and the same epoch, as the late one knows
        with pytest.raises(TemporaryError, match="Somebody else changed them"):
            await share(late, 40, "run-1/40")
    finally:
        await late.close()
    weights = await driver.weights(deadline=10)
    assert weights["us-west-2"].weight == 20


async def test_throttling_is_waited_out(layout: Layout, driver: Route53) -> None:
    request = urllib.request.Request(
        f"http://{layout.aws}/__lab/faults", data=json.dumps({"throttle": 3}).encode(), method="POST"
    )
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).read())
    assert await driver.weights(deadline=10)
    raw = client(layout, "route53", attempts=1)
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).read())
    for ask in (raw.list_hosted_zones, raw.list_hosted_zones_by_name):
        with pytest.raises(botocore.exceptions.ClientError, match=r"Throttling.*Rate exceeded"):
            await asyncio.to_thread(ask)
    await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).read())
    with pytest.raises(TemporaryError, match="Throttling"):
        await driver.weights(deadline=0.15)
    assert await driver.weights(deadline=10)


async def test_an_api_that_is_not_there_is_temporary() -> None:
    nowhere = Aws.model_validate(
        {"endpoint_url": "http://127.0.0.1:9", "access_key_id": "lab", "secret_access_key": "hidden"}
    )
    driver = Route53(nowhere, TRAFFIC)
    with pytest.raises(TemporaryError, match="not reachable") as caught:
        await driver.weights(deadline=5)
    assert "hidden" not in str(caught.value)
    await driver.close()


async def test_dns_tells_unknown_names_from_missing_types(layout: Layout, driver: Route53) -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [layout.dns.host], layout.dns.port
    with pytest.raises(dns.resolver.NXDOMAIN):
        await resolver.resolve(f"nobody.{ZONE}", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        await resolver.resolve(PUBLIC_NAME.upper(), "AAAA")
    answer = await resolver.resolve("postgres-secondary.hms.system.svc.cluster.local", "A", tcp=True)
    assert answer[0].to_text() == layout.regions["us-west-2"].postgres.host


def simple(name: str, kind: str, *values: str) -> dict[str, object]:
    return {"Name": name, "Type": kind, "TTL": 1, "ResourceRecords": [{"Value": each} for each in values]}


@pytest.mark.parametrize(
    ("name", "kind", "values", "words"),
    [
        ("bad", "TXT", ("bare words",), "enclosed in quotation marks"),
        ("bad", "TXT", (f'"{"x" * 256}"',), "CharacterStringTooLong"),
        ("bad", "AAAA", ("192.0.2.1",), "IllegalIPv6Address"),
        ("bad", "CNAME", ("a.example.", "b.example."), "one value, not 2"),
        ("bad", "MX", ("mail.example.",), "FATAL problem"),
        ("bad", "A", ("192.0.2.1", "192.0.2.1"), "Duplicate Resource Record"),
        ("x" * 64, "A", ("192.0.2.1",), "LabelTooLong"),
        ("a*b", "A", ("192.0.2.1",), "wildcard"),
    ],
)
async def test_a_record_that_dns_could_not_answer_is_refused(
    layout: Layout, driver: Route53, name: str, kind: str, values: tuple[str, ...], words: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=words):
        await asyncio.to_thread(send, layout, ("UPSERT", simple(f"{name}.{ZONE}", kind, *values)))


async def test_a_zone_has_its_own_records_which_are_counted_and_stay(layout: Layout, driver: Route53) -> None:
    route53, zone = client(layout, "route53"), zone_id(layout)
    found = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    own = [item for item in found if item["Name"] == f"{ZONE}."]
    assert sorted(item["Type"] for item in own) == ["NS", "SOA"]
    for told in (
        route53.list_hosted_zones()["HostedZones"],
        route53.list_hosted_zones_by_name()["HostedZones"],
        [route53.get_hosted_zone(Id=zone)["HostedZone"]],
    ):
        assert [item["ResourceRecordSetCount"] for item in told] == [len(found)]
    for item in own:
        with pytest.raises(botocore.exceptions.ClientError, match="A HostedZone must contain"):
            send(layout, ("DELETE", item))
    with pytest.raises(botocore.exceptions.ClientError, match="HostedZoneNotEmpty"):
        route53.delete_hosted_zone(Id=zone)


async def test_a_change_while_another_is_worked_on_is_refused_as_the_service_does(
    layout: Layout, driver: Route53
) -> None:
    url = f"http://{layout.aws}/2013-04-01/hostedzone/{zone_id(layout)}/rrset"

    async def empty(session: aiohttp.ClientSession) -> str:
        async with session.post(url, data=b"<ChangeResourceRecordSetsRequest/>") as answer:
            return await answer.text()

    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(empty(session) for _ in range(5)))
    assert sum("InvalidChangeBatch" in each for each in answers) == 1, answers
    assert sum("<Code>PriorRequestNotComplete</Code>" in each for each in answers) == 4, answers


async def test_dns_answers_everything_that_is_asked(layout: Layout, driver: Route53) -> None:
    """Apex, wildcard, names that have only names below them, and what makes no sense."""
    send(
        layout,
        ("UPSERT", simple(f"*.wards.{ZONE}", "A", "192.0.2.7")),
        ("UPSERT", simple(f"a.b.{ZONE}", "A", "192.0.2.8")),
    )
    listed = client(layout, "route53").list_resource_record_sets(HostedZoneId=zone_id(layout))
    assert f"\\052.wards.{ZONE}." in {item["Name"] for item in listed["ResourceRecordSets"]}
    where = {"where": layout.dns.host, "port": layout.dns.port, "timeout": 2}

    async def ask(name: str, kind: str = "A") -> tuple[str, list[str], list[str]]:
        found = await dns.asyncquery.udp(dns.message.make_query(name, kind), **where)
        told = [rrset.to_text().split()[4] for rrset in found.answer]
        return (
            dns.rcode.to_text(found.rcode()),
            told,
            [rrset.to_text().split()[3] for rrset in found.authority],
        )

    ends = asyncio.get_running_loop().time() + 10
    while (await ask(f"x.wards.{ZONE}"))[1] != ["192.0.2.7"]:
        assert asyncio.get_running_loop().time() < ends
        await asyncio.sleep(0.05)
    assert (await ask(f"x.y.WARDS.{ZONE}"))[1] == ["192.0.2.7"]
    assert await ask(f"x.wards.{ZONE}", "AAAA") == ("NOERROR", [], ["SOA"])
    assert await ask(f"b.{ZONE}") == ("NOERROR", [], ["SOA"])
    assert await ask(f"c.{ZONE}") == ("NXDOMAIN", [], ["SOA"])
    assert (await ask(ZONE, "SOA"))[:1] == ("NOERROR",)
    assert len((await ask(ZONE, "SOA"))[1]) == len((await ask(ZONE, "NS"))[1]) == 1
    assert (await ask("example.org"))[0] == "REFUSED"
    query = dns.message.make_query(ZONE, "A").to_wire()
    reader, writer = await asyncio.open_connection(layout.dns.host, layout.dns.port)
    writer.write(struct.pack("!H", 14) + query[:14])
    (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 2))
    assert dns.message.from_wire(await reader.readexactly(length)).rcode() == dns.rcode.FORMERR
    writer.close()


def test_a_record_that_cannot_be_answered_is_told_as_a_failure(layout: Layout) -> None:
    """One that was stored before it was refused: whoever asks must not wait until its patience ends."""
    server = Server(layout)
    server._answers = Answers([Record(f"bad.{ZONE}.", "A", 1, ("1.2.3.400",))], (ZONE,))
    query = dns.message.make_query(f"bad.{ZONE}", "A")
    answer = dns.message.from_wire(server._respond(query.to_wire()) or b"")
    assert (answer.rcode(), answer.id) == (dns.rcode.SERVFAIL, query.id)
    assert server._respond(answer.to_wire()) is None, "no answer to an answer"
    status = dns.message.make_query(ZONE, "A")
    status.set_opcode(dns.opcode.STATUS)
    assert dns.message.from_wire(server._respond(status.to_wire()) or b"").rcode() == dns.rcode.NOTIMP


async def test_the_object_store_gives_back_what_was_put(
    layout: Layout, driver: Route53, tmp_path: Path
) -> None:
    store = ObjectStore(aws(layout))
    one, other, content = "hms-backups-us-west-2", "hms-backups-us-east-1", gzip.compress(b"x" * 100_000)
    assert await store.names(one, "databases/", deadline=10) == []
    written = await store.put(one, "databases/one.gz", content, deadline=10)
    await store.put(one, "databases/hms/two", b"", deadline=10)
    assert written.size == len(content)
    assert [item.key for item in await store.names(one, "databases/", deadline=10)] == ["databases/one.gz"]
    assert {item.size for item in await store.listing(one, "databases/", deadline=10)} == {0, len(content)}
    found = await store.inspect(one, "databases/one.gz", deadline=10)
    assert (found.size, found.unpacked) == (len(content), 100_000)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    await store.copy(one, "databases/one.gz", other, deadline=10)
    assert await store.read(other, "databases/one.gz", limit=1000, deadline=10) == content
    await store.get_file(other, "databases/one.gz", tmp_path / "back", deadline=10)
    assert (tmp_path / "back").read_bytes() == content
    await store.delete(other, "databases/one.gz", deadline=10)
    await store.put(one, "databases/cut.gz", content[:-9], deadline=10)
    for key, words in (("cut.gz", "truncated"), ("none", "NoSuchKey")):
        with pytest.raises(PermanentError, match=words):
            await store.inspect(one, f"databases/{key}", deadline=10)
    with pytest.raises(PermanentError, match="more than 10 bytes"):
        await store.read(one, "databases/one.gz", limit=10, deadline=10)
    with pytest.raises(PermanentError, match="NoSuchBucket"):
        await store.listing("no-such-bucket", "", deadline=10)
    await store.close()


async def test_what_lies_in_a_bucket_of_the_status_page_everybody_reads(
    layout: Layout, driver: Route53
) -> None:
    for region, bucket in STATUS_BUCKETS.items():
        store = ObjectStore(aws(layout).model_copy(update={"region": region}))
        await store.put(bucket, "index.html", b"<p>well", deadline=10, kind="text/html", cache="max-age=30")
        url = f"http://{layout.aws}/{bucket}/index.html"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"<p>well")
            assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
                "text/html",
                "max-age=30",
            )
        await store.close()
