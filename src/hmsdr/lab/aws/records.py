"""Record sets and change batches by Route 53's own rules, which moto does not keep. Pure: values in, values out.

A batch is atomic; DELETE must name the record exactly; CREATE of one that exists is a conflict; weights are 0 to
255; simple and weighted records of one name and type exclude each other. Wording follows the service's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hmsdr.lab.aws import values

MAX_WEIGHT = 255
MAX_TTL = 2_147_483_647
_NS_TTL, _SOA_TTL = 172_800, 900
TYPES = frozenset({"A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SPF", "SRV", "TXT"})

Key = tuple[str, str, str | None]
"""Name, type, set identifier."""


@dataclass(frozen=True, slots=True)
class RecordSet:
    """One record set; `weight` and `set_identifier` are None for simple ones. `ttl` in seconds."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]
    set_identifier: str | None = None
    weight: int | None = None

    @property
    def key(self) -> Key:
        """What makes it one and not another."""
        return (self.name, self.type, self.set_identifier)

    def __str__(self) -> str:
        identifier = f", set identifier='{self.set_identifier}'" if self.set_identifier else ""
        return f"[name='{self.name}', type='{self.type}'{identifier}]"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a batch."""

    action: Literal["CREATE", "DELETE", "UPSERT"]
    record: RecordSet


class InvalidChangeBatchError(Exception):
    """The batch is refused as a whole; all messages at once, as the service gives them."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


def normalise(name: str) -> str:
    """Lower case, with the final dot, a wildcard as a star."""
    lowered = name.lower().replace("\\052", "*")
    return lowered if lowered.endswith(".") else lowered + "."


def apply(records: Mapping[Key, RecordSet], batch: Sequence[Change], zone: str) -> dict[Key, RecordSet]:
    """The records after `batch`.

    Raises:
        InvalidChangeBatchError: any change is not allowed; nothing is applied.
    """
    after = dict(records)
    messages: list[str] = []
    if not batch:
        raise InvalidChangeBatchError(["The batch has no changes"])
    for key, actions in _by_key(batch).items():
        if len(actions) > 1 and actions != ["DELETE", "CREATE"]:
            named = f"'{key[0]}', type '{key[1]}'"
            messages.append(
                f"The request contains an invalid set of changes for a resource record set {named}"
            )
    for change in batch:
        record = change.record
        message = _malformed(record, zone)
        if message is None and change.action == "DELETE":
            message = _delete(after, record, zone)
        elif message is None:
            message = _put(after, record, create=change.action == "CREATE")
        if message is not None:
            messages.append(message)
    if messages:
        raise InvalidChangeBatchError(messages)
    return after


def _by_key(batch: Sequence[Change]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for change in batch:
        found.setdefault(change.record.key, []).append(change.action)
    return found


def defaults(zone: str, servers: Sequence[str]) -> dict[Key, RecordSet]:
    """The records that a hosted zone has from the start; `servers` answer for it."""
    dotted = [normalise(server) for server in servers] or [f"ns.{zone}"]
    authority = f"{dotted[0]} awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"
    made = (
        RecordSet(zone, "NS", _NS_TTL, tuple(dotted)),
        RecordSet(zone, "SOA", _SOA_TTL, (authority,)),
    )
    return {record.key: record for record in made}


def _malformed(record: RecordSet, zone: str) -> str | None:  # noqa: PLR0911 - one line for each rule
    if record.type not in TYPES:
        return f"Invalid Resource Record: type '{record.type}' is not supported"
    if record.name != zone and not record.name.endswith(f".{zone}"):
        return f"RRSet with DNS name {record.name} is not permitted in zone {zone}"
    if not record.values:
        return f"Invalid request: {record} has no resource records"
    if message := values.bad_name(record.name) or values.bad_values(record.type, record.values):
        return message
    if record.type == "SOA" and record.name != zone:
        return f"RRSet of type SOA with DNS name {record.name} is not permitted, only at apex of zone {zone}"
    if not 0 <= record.ttl <= MAX_TTL:
        return f"Invalid TTL {record.ttl} of {record}: expected 0 to {MAX_TTL}"
    if (record.weight is None) != (record.set_identifier is None):
        return f"Invalid request: {record} needs both a set identifier and a weight, or neither"
    if record.weight is not None and not 0 <= record.weight <= MAX_WEIGHT:
        return f"Invalid weight {record.weight} of {record}: expected 0 to {MAX_WEIGHT}"
    return None


def _delete(records: dict[Key, RecordSet], record: RecordSet, zone: str) -> str | None:
    if record.name == zone and record.type in ("NS", "SOA"):
        return f"A HostedZone must contain its {record.type} record for the zone itself."
    found = records.get(record.key)
    if found is None:
        return f"Tried to delete resource record set {record} but it was not found"
    if (found.ttl, found.weight, sorted(found.values)) != (record.ttl, record.weight, sorted(record.values)):
        return f"Tried to delete resource record set {record} but the values provided do not match the current values"
    del records[record.key]
    return None


def _put(records: dict[Key, RecordSet], record: RecordSet, *, create: bool) -> str | None:
    if create and record.key in records:
        return f"Tried to create resource record set {record} but it already exists"
    for other in records.values():
        if other.name != record.name or other.key == record.key:
            continue
        if other.type == record.type and (other.weight is None) != (record.weight is None):
            return f"RRSet {record} cannot be created as other RRSets with the same name and type are not of its kind"
        if "CNAME" in (other.type, record.type) and other.type != record.type:
            return f"RRSet of type CNAME with DNS name {record.name} is not permitted beside other types"
    records[record.key] = record
    return None
