"""Route 53's XML, as botocore sends and reads it. Translates; decides nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from hmsdr.lab.aws.records import Change, RecordSet, normalise

NAMESPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
_IN = f"{{{NAMESPACE}}}"
_STAR = "\\052"
"""As the service writes a wildcard."""
ACTIONS = ("CREATE", "DELETE", "UPSERT")


class MalformedError(ValueError):
    """The body is not a change batch."""


def parse_batch(body: bytes) -> list[Change]:
    """The changes of a ChangeResourceRecordSets request.

    Raises:
        MalformedError: not XML, or without what a change needs.
    """
    try:
        root = ET.fromstring(body)  # noqa: S314 - the lab listens on loopback only, and expat bounds entities
        return [_change(element) for element in root.iter(f"{_IN}Change")]
    except (ET.ParseError, ValueError) as error:
        raise MalformedError(str(error)) from error


def _change(element: ET.Element) -> Change:
    action = _text(element, "Action")
    if action not in ACTIONS:
        msg = f"unknown action {action!r}"
        raise ValueError(msg)
    record = element.find(f"{_IN}ResourceRecordSet")
    if record is None:
        msg = "a change without a ResourceRecordSet"
        raise ValueError(msg)
    if record.find(f"{_IN}AliasTarget") is not None:
        msg = "alias records are not supported by the lab"
        raise ValueError(msg)
    weight = record.findtext(f"{_IN}Weight")
    return Change(
        action=action,  # type: ignore[arg-type]
        record=RecordSet(
            name=normalise(_text(record, "Name")),
            type=_text(record, "Type"),
            ttl=int(_text(record, "TTL")),
            values=tuple(item.text or "" for item in record.iter(f"{_IN}Value")),
            set_identifier=record.findtext(f"{_IN}SetIdentifier"),
            weight=None if weight is None else int(weight),
        ),
    )


def _text(element: ET.Element, name: str) -> str:
    text = element.findtext(f"{_IN}{name}")
    if text is None:
        msg = f"{name} is missing"
        raise ValueError(msg)
    return text


def change_info(change: str, status: str, submitted: float, *, answer: str) -> str:
    """ChangeResourceRecordSetsResponse or GetChangeResponse; `submitted` in Unix seconds."""
    at = datetime.fromtimestamp(submitted, UTC).isoformat(timespec="milliseconds")
    return (
        f'<?xml version="1.0"?><{answer} xmlns="{NAMESPACE}"><ChangeInfo><Id>/change/{change}</Id>'
        f"<Status>{status}</Status><SubmittedAt>{at}</SubmittedAt></ChangeInfo></{answer}>"
    )


def record_list(records: Iterable[RecordSet]) -> str:
    """ListResourceRecordSetsResponse, never truncated."""
    return (
        f'<?xml version="1.0"?><ListResourceRecordSetsResponse xmlns="{NAMESPACE}"><ResourceRecordSets>'
        + "".join(_record(item) for item in records)
        + "</ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>300</MaxItems>"
        "</ListResourceRecordSetsResponse>"
    )


def _record(record: RecordSet) -> str:
    weighted = ""
    if record.set_identifier is not None:
        weighted = (
            f"<SetIdentifier>{escape(record.set_identifier)}</SetIdentifier><Weight>{record.weight}</Weight>"
        )
    values = "".join(f"<ResourceRecord><Value>{escape(v)}</Value></ResourceRecord>" for v in record.values)
    return (
        f"<ResourceRecordSet><Name>{escape(record.name.replace('*', _STAR))}</Name><Type>{record.type}</Type>{weighted}"
        f"<TTL>{record.ttl}</TTL><ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
    )


def counted(body: bytes, counts: Mapping[str, int]) -> bytes:
    """An answer about hosted zones, with each one's number of record sets from `counts` by its id."""

    def one(found: re.Match[str]) -> str:
        zone = re.search(r"<Id>/?(?:hostedzone/)?([A-Z0-9]+)</Id>", found[0])
        if zone is None or zone[1] not in counts:
            return found[0]
        told = f"<ResourceRecordSetCount>{counts[zone[1]]}</ResourceRecordSetCount>"
        return re.sub(r"<ResourceRecordSetCount>\d+</ResourceRecordSetCount>", told, found[0])

    return re.sub(r"<HostedZone>.*?</HostedZone>", one, body.decode(), flags=re.DOTALL).encode()


def error(code: str, message: str) -> str:
    """An error as every Route 53 client reads it."""
    return (
        f'<?xml version="1.0"?><ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>lab</RequestId></ErrorResponse>"
    )
