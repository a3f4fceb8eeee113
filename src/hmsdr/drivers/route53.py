"""Route 53: read the weighted records of the public name, and exchange them in one exact batch (SAFETY rule 12).

Deletes the exact old records and creates the new ones, with the TXT record of the epoch in the same batch: a
change that was delayed cannot match again. Route 53's control plane lives in us-east-1 alone. No policy here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.playbook.topology import Aws, Traffic

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

READ_SECONDS = 10
"""A request without an answer is given up after this, however much time there is: it is looked up and made again."""
_T = TypeVar("_T")
_THREADS = 4
_FIRST_PAUSE = 0.08
_STEADY_POLLS = 6
_LONGEST_PAUSE = 1.0
_KNOWN_SECONDS = 60.0
"""A change is made of records read this long ago at most: if they are not so any more, Route 53 refuses the whole batch."""
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "PriorRequestNotComplete", "ServiceUnavailable"})


@dataclass(frozen=True, slots=True)
class Weight:
    """One weighted record of the public name. `ttl` in seconds."""

    weight: int
    value: str
    ttl: int


class Route53:
    """The public name's records."""

    def __init__(self, aws: Aws, traffic: Traffic) -> None:
        self._aws = aws
        self._traffic = traffic
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="hmsdr-route53")
        self._client: Route53Client | None = None
        self._zone: str | None = None
        self._making = asyncio.Lock()
        self._known: tuple[float, list[dict[str, Any]]] | None = None

    async def close(self) -> None:
        """Let go of the threads; a request that hangs ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def prepare(self, *, deadline: float) -> None:
        """Make the client and find the zone beforehand, so that the first change is quick."""
        await self._zone_id(deadline)

    async def weights(self, *, deadline: float) -> dict[str, Weight]:
        """Set identifier to record.

        Raises:
            TemporaryError: not reached, throttled, or no such zone.
        """
        return _weights(await self._records(deadline), self._traffic)

    async def epoch(self, *, deadline: float) -> int | None:
        """The epoch that the records carry; None when there is no TXT record yet."""
        return _epoch(await self._records(deadline), self._traffic)

    async def carried(self, *, deadline: float) -> tuple[dict[str, Weight], int | None]:
        """`weights` and `epoch` of one look."""
        records = await self._records(deadline)
        return _weights(records, self._traffic), _epoch(records, self._traffic)

    async def shift(
        self, weights: Mapping[str, int], epoch: int, *, deadline: float, mark: str = ""
    ) -> str | None:
        """Give every set identifier of `weights` its weight, under `epoch`, in one batch.

        A `mark` (a run and its step) is written beside the epoch: within one epoch, too, a delayed change cannot match again.

        Returns:
            The change's id, or None when all of it holds already.

        Raises:
            PermanentError: the records carry a newer epoch, or a set identifier has no record.
            TemporaryError: somebody else changed the records in between; the message shows what differs.
            OutcomeUnknownError: the answer was lost.
        """
        doing = f"changing the weights of {self._traffic.record}"
        ends = asyncio.get_running_loop().time() + deadline
        known, self._known = self._known, None
        fresh = known is not None and asyncio.get_running_loop().time() - known[0] < _KNOWN_SECONDS
        records = known[1] if known is not None and fresh else await self._records(deadline)
        self._known = None
        changes = _changes(records, self._traffic, weights, (epoch, mark), doing)
        if not changes:
            return None
        zone = await self._zone_id(max(0.1, ends - asyncio.get_running_loop().time()))

        def call(client: Route53Client) -> str:
            answer = client.change_resource_record_sets(
                HostedZoneId=zone,
                ChangeBatch={"Comment": f"hmsdr epoch {epoch}", "Changes": changes},  # type: ignore[typeddict-item]
            )
            return str(answer["ChangeInfo"]["Id"]).rpartition("/")[2]

        return await self._call(doing, call, ends - asyncio.get_running_loop().time(), writes=True)

    async def insync(self, change: str, *, deadline: float) -> bool:
        """Whether all of Route 53's servers answer with `change`."""
        return await self._call(
            f"asking for change {change}",
            lambda client: client.get_change(Id=change)["ChangeInfo"]["Status"] == "INSYNC",
            deadline,
        )

    async def wait_insync(self, change: str, *, deadline: float) -> None:
        """Wait until `change` is in sync.

        Raises:
            TemporaryError: it is not, after `deadline` seconds.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        pause, polls = _FIRST_PAUSE, 0
        while not await self.insync(change, deadline=max(0.1, ends - loop.time())):
            if loop.time() + pause > ends:
                raise TemporaryError(
                    f"waiting for change {change}", f"still PENDING after {deadline:g} s", "Ask again"
                )
            await asyncio.sleep(pause)
            # The API is limited per account: a few quick looks, then patience.
            polls += 1
            pause = pause if polls < _STEADY_POLLS else min(pause * 1.5, _LONGEST_PAUSE)

    async def _records(self, deadline: float) -> list[dict[str, Any]]:
        zone = await self._zone_id(deadline)

        def call(client: Route53Client) -> list[dict[str, Any]]:
            pages = client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
            return [dict(item) for page in pages for item in page["ResourceRecordSets"]]

        records = await self._call(f"reading the records of {self._traffic.hosted_zone}", call, deadline)
        self._known = (asyncio.get_running_loop().time(), records)
        return records

    async def _zone_id(self, deadline: float) -> str:
        if self._zone is None:
            wanted = _dotted(self._traffic.hosted_zone)

            def call(client: Route53Client) -> str | None:
                for zone in client.list_hosted_zones_by_name(DNSName=wanted)["HostedZones"]:
                    if zone["Name"] == wanted:
                        return str(zone["Id"]).rpartition("/")[2]
                return None

            found = await self._call(f"looking for hosted zone {wanted}", call, deadline)
            if found is None:
                raise PermanentError(
                    f"looking for hosted zone {wanted}", "the account has none", "Check traffic.hosted_zone"
                )
            self._zone = found
        return self._zone

    async def _call(
        self, doing: str, call: Callable[[Route53Client], _T], deadline: float, *, writes: bool = False
    ) -> _T:
        """Run a blocking call in a thread; throttling is waited out within the deadline."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        pause = _FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    async with self._making:
                        if self._client is None:
                            self._client = await loop.run_in_executor(self._threads, self._make)
                    return await loop.run_in_executor(self._threads, call, self._client)
            except TimeoutError as error:
                kind = OutcomeUnknownError if writes else TemporaryError
                raise kind(
                    doing, f"no answer within {deadline:g} s", "Look at the records, then try again"
                ) from error
            except Exception as error:
                known = _translate(doing, error, writes=writes)
                if known is None:
                    raise
                if not _is_throttled(error) or loop.time() + pause > ends:
                    raise known from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _make(self) -> Route53Client:
        import boto3  # noqa: PLC0415 - a quarter of a second, paid only where Route 53 is used
        from botocore.config import Config  # noqa: PLC0415

        aws = self._aws
        client: Route53Client = boto3.session.Session().client(
            "route53",
            region_name=aws.region,
            endpoint_url=aws.endpoint_url,
            aws_access_key_id=aws.access_key_id.get_secret_value() if aws.access_key_id else None,
            aws_secret_access_key=aws.secret_access_key.get_secret_value() if aws.secret_access_key else None,
            config=Config(connect_timeout=3, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1}),
        )
        return client


def _changes(
    records: list[dict[str, Any]],
    traffic: Traffic,
    weights: Mapping[str, int],
    stamp: tuple[int, str],
    doing: str,
) -> list[dict[str, Any]]:
    """The batch that leads from `records` to `weights` under `stamp` (epoch and mark); empty when nothing differs."""
    epoch = stamp[0]
    recorded = _epoch(records, traffic)
    if recorded is not None and recorded > epoch:
        raise PermanentError(
            doing,
            f"they carry epoch {recorded}, this change is of epoch {epoch}",
            "A newer plan has moved traffic",
        )
    changes: list[dict[str, Any]] = []
    found = {
        item["SetIdentifier"]: item
        for item in records
        if item["Name"] == _dotted(traffic.record)
        and item["Type"] == traffic.record_type
        and "SetIdentifier" in item
    }
    for name, weight in weights.items():
        if name not in found:
            raise PermanentError(
                doing, f"there is no record with set identifier {name!r}", "Create it beforehand"
            )
        old = found[name]
        if old["Weight"] != weight:
            changes += [
                {"Action": "DELETE", "ResourceRecordSet": old},
                {"Action": "CREATE", "ResourceRecordSet": {**old, "Weight": weight}},
            ]
    if recorded != epoch or (changes and stamp[1]):
        changes += _epoch_changes(records, traffic, stamp)
    return changes


def _epoch_changes(
    records: list[dict[str, Any]], traffic: Traffic, stamp: tuple[int, str]
) -> list[dict[str, Any]]:
    epoch, mark = stamp
    name = _dotted(traffic.epoch_record)
    new = {
        "Name": name,
        "Type": "TXT",
        "TTL": traffic.ttl,
        "ResourceRecords": [{"Value": f'"epoch={epoch} change={mark}"' if mark else f'"epoch={epoch}"'}],
    }
    old = [item for item in records if item["Name"] == name and item["Type"] == "TXT"]
    return [
        *({"Action": "DELETE", "ResourceRecordSet": item} for item in old),
        {"Action": "CREATE", "ResourceRecordSet": new},
    ]


def _weights(records: list[dict[str, Any]], traffic: Traffic) -> dict[str, Weight]:
    return {
        str(item["SetIdentifier"]): Weight(
            int(item["Weight"]), str(item["ResourceRecords"][0]["Value"]), int(item["TTL"])
        )
        for item in records
        if item["Type"] == traffic.record_type
        and item["Name"] == _dotted(traffic.record)
        and "SetIdentifier" in item
    }


def _epoch(records: list[dict[str, Any]], traffic: Traffic) -> int | None:
    for item in records:
        if item["Name"] == _dotted(traffic.epoch_record) and item["Type"] == "TXT":
            text = str(item["ResourceRecords"][0]["Value"]).strip('"').partition(" ")[0]
            key, _, number = text.partition("=")
            if key == "epoch" and number.isdigit():
                return int(number)
    return None


def _is_throttled(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") in _THROTTLED


def _translate(doing: str, error: BaseException, *, writes: bool) -> DriverError | None:
    """Our error for botocore's; None when it is not one of its. Messages never carry credentials."""
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
    )

    if isinstance(error, ClientError):
        code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "InvalidChangeBatch":
            return TemporaryError(
                doing,
                f"the records are not as they were read: {text}",
                "Somebody else changed them: look, then plan anew",
            )
        kind = TemporaryError if code in _THROTTLED else PermanentError
        return kind(doing, f"Route 53 answered {code}: {text}", "See the AWS documentation of this code")
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return TemporaryError(
            doing, "Route 53's API is not reachable", "Check the network and aws.endpoint_url"
        )
    if isinstance(error, BotoCoreError):
        broken = OutcomeUnknownError if writes else TemporaryError
        return broken(
            doing, f"the request broke off ({type(error).__name__})", "Look at the records, then try again"
        )
    return None


def _dotted(name: str) -> str:
    return name if name.endswith(".") else f"{name}."
