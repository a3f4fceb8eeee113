"""The hospital's zone, records and buckets in the lab's AWS, made through the same API as everybody uses.

Idempotent: what is there already is left as it is.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import boto3
from botocore.config import Config

from hmsdr.lab.layout import PROMETHEUS_NAME, PUBLIC_NAME, STATUS_BUCKETS, ZONE, Layout

TTL = 1
"""Seconds: the lab's users find the new region as fast as its thresholds are short."""


def client(layout: Layout, service: str, *, attempts: int = 5) -> Any:
    """A boto3 client of the lab's AWS API that tries each request at most `attempts` times."""
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        region_name="us-east-1",
        endpoint_url=f"http://{layout.aws}",
        config=Config(retries={"total_max_attempts": attempts}),
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106 - moto asks for some, and checks none
    )


async def seed(layout: Layout) -> bool:
    """Make what is missing; whether the zone was, as at the beginning, or because the server lost everything."""
    return await asyncio.to_thread(_seed, layout)


def _seed(layout: Layout) -> bool:
    route53, s3 = client(layout, "route53"), client(layout, "s3")
    zones = route53.list_hosted_zones_by_name(DNSName=ZONE)["HostedZones"]
    if began := not zones:
        zones = [route53.create_hosted_zone(Name=ZONE, CallerReference=layout.lab_id)["HostedZone"]]
    zone = zones[0]["Id"].rpartition("/")[2]
    have = {
        (item["Name"], item["Type"], item.get("SetIdentifier"))
        for item in route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    }
    missing = [
        item
        for item in _records(layout)
        if (item["Name"], item["Type"], item.get("SetIdentifier")) not in have
    ]
    if missing:
        changes = [{"Action": "CREATE", "ResourceRecordSet": item} for item in missing]
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
    for region in layout.regions:
        bucket = f"hms-backups-{region}"
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        if bucket not in {item["Name"] for item in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=bucket, **where)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        if (public := STATUS_BUCKETS[region]) not in {item["Name"] for item in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=public, **where)
            s3.put_bucket_policy(Bucket=public, Policy=_everybody_reads(public))
    return began


def _everybody_reads(bucket: str) -> str:
    rule = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [rule]})


def _records(layout: Layout) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [
        {
            "Name": f"_epoch.{PUBLIC_NAME}.",
            "Type": "TXT",
            "TTL": TTL,
            "ResourceRecords": [{"Value": '"epoch=1"'}],
        },
        {
            "Name": f"{PROMETHEUS_NAME}.",
            "Type": "A",
            "TTL": TTL,
            "ResourceRecords": [{"Value": layout.prometheus.host}],
        },
    ]
    for region in layout.regions.values():
        address = [{"Value": region.ingress_http.host}]
        home = region.ordinal_name == "primary"
        records += [
            {
                "Name": f"{PUBLIC_NAME}.",
                "Type": "A",
                "SetIdentifier": region.name,
                "Weight": 100 if home else 0,
                "TTL": TTL,
                "ResourceRecords": address,
            },
            {
                "Name": f"api-{region.ordinal_name}.{ZONE}.",
                "Type": "A",
                "TTL": TTL,
                "ResourceRecords": address,
            },
        ]
    return records
