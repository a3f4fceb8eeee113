"""Users' way to the hospital: the public record, and every service answering through it (SV-3, FM-4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, ServiceName, StepContext


def upserts(playbook: Playbook, weights: Mapping[str, int]) -> list[dict[str, Any]]:
    """Changes that give the public record's regions these weights, as Route 53 takes them in a batch."""
    traffic = playbook.traffic
    return [
        {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": traffic.record,
                "Type": traffic.record_type,
                "SetIdentifier": name,
                "Weight": weight,
                "TTL": traffic.ttl,
                "ResourceRecords": [{"Value": playbook.regions[name].ingress.address}],
            },
        }
        for name, weight in weights.items()
    ]


class ShiftArgs(Model):
    """All traffic goes to `to`; the records carry `epoch`."""

    to: RegionName
    epoch: int


class ShiftTraffic(Action[ShiftArgs]):
    """Exact old records out, new ones in, and the epoch's TXT record exchanged, in one batch (SAFETY rule 12)."""

    name: ClassVar[str] = "dns.shift"
    summary: ClassVar[str] = "move the public record to the region"
    Args = ShiftArgs

    async def check(self, context: StepContext, args: ShiftArgs) -> Check:
        """Do the records say so, and under this epoch? Right weights with an old epoch would let an old change match."""
        found, epoch = await context.systems.dns().carried(deadline=context.remaining(at_most=5))
        weights = {name: item.weight for name, item in found.items()}
        return Check(
            weights == _weights(context.systems.playbook, args.to) and epoch == args.epoch,
            {"weights": weights, "epoch": epoch},
            "the new weights and epoch",
        )

    async def act(self, context: StepContext, args: ShiftArgs) -> Mapping[str, Any]:
        """One batch, then wait until it is in sync."""
        dns = context.systems.dns()
        change = await dns.shift(
            _weights(context.systems.playbook, args.to), args.epoch, deadline=context.remaining()
        )
        if change is not None:
            context.progress("Route 53 to have the change in sync")
            await dns.wait_insync(change, deadline=context.remaining())
        return {"change": change}

    async def verify(self, context: StepContext, args: ShiftArgs) -> Check:
        """Route 53 said INSYNC to the very batch; nothing is read again."""
        return Check(True, {"weights": _weights(context.systems.playbook, args.to)})

    def manual(self, playbook: Playbook, args: ShiftArgs) -> Manual:
        """By hand: the weights and the epoch as one batch of upserts."""
        traffic = playbook.traffic
        endpoint = f" --endpoint-url {playbook.aws.endpoint_url}" if playbook.aws.endpoint_url else ""
        changes = upserts(playbook, _weights(playbook, args.to))
        changes.append(
            {
                "Action": "UPSERT",
                "ResourceRecordSet": {
                    "Name": traffic.epoch_record,
                    "Type": "TXT",
                    "TTL": traffic.ttl,
                    "ResourceRecords": [{"Value": f'"epoch={args.epoch}"'}],
                },
            }
        )
        batch = json.dumps({"Changes": changes})
        return Manual(
            (
                f"ZONE=$(aws route53{endpoint} list-hosted-zones-by-name --dns-name {traffic.hosted_zone} "
                "--query 'HostedZones[0].Id' --output text)",
                f'aws route53{endpoint} change-resource-record-sets --hosted-zone-id "$ZONE" '
                f"--change-batch '{batch}'",
                f"getent ahostsv4 {traffic.record}",
            ),
            f"after the TTL ({traffic.ttl} s) it answers {playbook.regions[args.to].ingress.address}",
            (
                "Throttled: wait a second and repeat; the batch may be sent again.",
                "Route 53's control plane does not answer: it lives in us-east-1. Health-checked records made "
                "beforehand move by themselves.",
            ),
        )


class RecordsArgs(Model):
    """The records of both regions, `to` among them, can be changed."""

    to: RegionName


class RecordsReady(Action[RecordsArgs]):
    """Route 53 answers and has both records: known before anything depends on it, and the way there is open."""

    name: ClassVar[str] = "dns.ready"
    summary: ClassVar[str] = "confirm that the public record can be moved"
    Args = RecordsArgs

    async def check(self, context: StepContext, args: RecordsArgs) -> Check:
        """Reads the records."""
        found = await context.systems.dns().weights(deadline=context.remaining(at_most=5))
        missing = sorted(set(context.systems.playbook.regions) - found.keys())
        weights = {name: item.weight for name, item in found.items()}
        return Check(
            not missing and args.to in found, {"weights": weights}, f"a record for {', '.join(missing)}"
        )

    async def act(self, context: StepContext, args: RecordsArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: RecordsArgs) -> Manual:  # noqa: ARG002 - both are looked at
        """By hand."""
        traffic = playbook.traffic
        endpoint = f" --endpoint-url {playbook.aws.endpoint_url}" if playbook.aws.endpoint_url else ""
        return Manual(
            (
                f"ZONE=$(aws route53{endpoint} list-hosted-zones-by-name --dns-name {traffic.hosted_zone} "
                "--query 'HostedZones[0].Id' --output text)",
                f'aws route53{endpoint} list-resource-record-sets --hosted-zone-id "$ZONE" '
                f"--query \"ResourceRecordSets[?Name=='{traffic.record}.']\"",
            ),
            "one record for each region, with its SetIdentifier and Weight",
            (
                "It does not answer: Route 53's control plane lives in us-east-1. The data-plane records move by health.",
            ),
        )


class AnswersArgs(Model):
    """`service` answers through the public name, from `region` if one is named, else from wherever users are sent.

    With the role ``standby`` users are not sent to `region`: it is asked by its own name.
    """

    service: ServiceName
    region: RegionName | None = None
    role: Literal["active", "standby"] = "active"

    def url(self, playbook: Playbook) -> str:
        """Its health check, as who needs it reaches it."""
        alone = self.role == "standby" and self.region is not None
        root = playbook.regions[str(self.region)].ingress.url if alone else playbook.traffic.public_url
        return root + playbook.services[self.service].health_path


class ServiceAnswers(Action[AnswersArgs]):
    """A user's request to the service's health check succeeds, and comes from the region asked for (SV-3)."""

    name: ClassVar[str] = "service.answers"
    summary: ClassVar[str] = (
        "a service answers through the public name, in a standby region through the region's own"
    )
    Args = AnswersArgs

    async def check(self, context: StepContext, args: AnswersArgs) -> Check:
        """GET its health path as a user would, or as the region's own name answers."""
        url = args.url(context.systems.playbook)
        answer = await context.systems.http().get(url, deadline=context.remaining(at_most=2))
        region = answer.headers.get("X-HMS-Region")
        observed = {
            "url": url,
            "outcome": str(answer.outcome),
            "status": answer.status,
            "seconds": round(answer.seconds, 4),
            "region": region,
        }
        there = args.region is None or region in (None, args.region)
        where = f" from {args.region}" if args.region is not None else ""
        healthy = answer.status == 200 and there  # noqa: PLR2004 - HTTP's OK
        return Check(healthy, observed, f"{args.service} to answer{where}")

    async def act(self, context: StepContext, args: AnswersArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: AnswersArgs) -> Manual:
        """The source's line."""
        ca = f" --cacert {playbook.traffic.ca_file}" if playbook.traffic.ca_file else ""
        return Manual(
            (f"curl -f{ca} {args.url(playbook)}",),
            'HTTP 200 and JSON with "status": "ok"',
            ("503: its body says which of database or cache is missing.",),
        )


def _weights(playbook: Playbook, to: str) -> dict[str, int]:
    return {name: 100 if name == to else 0 for name in playbook.regions}
