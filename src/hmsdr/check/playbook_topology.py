"""Whether the two regions stand on their own and traffic can find them. Reads names only, connects to nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from hmsdr.check.playbook_figures import value_at
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.findings import Finding, Keys
from hmsdr.playbook.model import Playbook

_APART: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("kubernetes", "context"), ("kubernetes", "kubeconfig")),
    (("postgres", "instance"),),
    (("postgres", "host"), ("postgres", "port")),
    (("postgres", "service_host"),),
    (("postgres", "slot"),),
    (("redis", "host"), ("redis", "port")),
    (("redis", "service_host"),),
    (("agent", "url"),),
    (("ingress", "url"),),
    (("ingress", "address"),),
    (("backups", "bucket"),),
)
"""Values, alone or together, in which two regions must differ: what they share fails with either."""


def check(playbook: Playbook) -> Iterator[Finding]:
    """Findings about regions, services and traffic."""
    yield from _regions(playbook)
    yield from _apart(playbook)
    yield from _services(playbook)
    yield from _urls(playbook)
    yield from _watched(playbook)
    yield from _traffic(playbook)
    yield from _addresses(playbook)


def _regions(playbook: Playbook) -> Iterator[Finding]:
    if playbook.home_region not in playbook.regions:
        yield Finding(("home_region",), f"{playbook.home_region!r}", "one of the regions")
    if playbook.witness.name in playbook.regions:
        remedy = "With two sites, nobody can tell a dead region from being cut off."
        yield Finding(("witness", "name"), f"the region {playbook.witness.name!r}", "a third site", remedy)
    for name, region in playbook.regions.items():
        other = playbook.regions[playbook.other_region(name)].backups.bucket
        if region.backups.copy_bucket != other:
            keys = ("regions", name, "backups", "copy_bucket")
            remedy = "A backup that lies only in the region it protects is lost with it."
            allowed = f"the other region's bucket, which is {other!r}"
            yield Finding(keys, repr(region.backups.copy_bucket), allowed, remedy)
    aws = playbook.aws
    if (aws.access_key_id is None) != (aws.secret_access_key is None):
        allowed = "both access_key_id and secret_access_key, or neither"
        yield Finding(("aws",), "one half of a credential", allowed)


def _apart(playbook: Playbook) -> Iterator[Finding]:
    first, second = playbook.regions
    for group in _APART:
        shared = [value_at(playbook, ("regions", first, *keys)) for keys in group]
        if shared == [value_at(playbook, ("regions", second, *keys)) for keys in group]:
            shown = ":".join(str(value) for value in shared if value is not None)
            found = f"{shown!r}, the same as in {first}"
            yield Finding(("regions", second, *group[0]), found, "a value of the region's own")


def _services(playbook: Playbook) -> Iterator[Finding]:
    for key in ("deployment", "health_path"):
        seen: dict[str, str] = {}
        for name, service in playbook.services.items():
            value: str = getattr(service, key)
            if value in seen:
                found = f"{value!r}, the same as {seen[value]}'s"
                yield Finding(("services", name, key), found, "a value of the service's own")
            seen.setdefault(value, name)
    for name, service in playbook.services.items():
        keys: Keys = ("services", name, "replicas", "standby")
        if service.replicas.standby == 0:
            remedy = "Nothing shows that the service can start there until it must."
            yield Finding(keys, "0", "at least 1, as a pilot light", remedy, "warning")
        elif service.replicas.standby > service.replicas.active:
            found, allowed = (
                str(service.replicas.standby),
                f"at most active, which is {service.replicas.active}",
            )
            yield Finding(keys, found, allowed, level="warning")
    if not any(service.critical for service in playbook.services.values()):
        remedy = "The trigger critical_services_unavailable would never fire."
        yield Finding(("services",), "no critical service", "at least one", remedy)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _urls(playbook: Playbook) -> Iterator[Finding]:
    """What the form of a URL (`hmsdr.playbook.names.HttpUrl`) does not say."""
    places: list[Keys] = [("traffic", "public_url"), ("prometheus", "url")]
    places += [("regions", name, part, "url") for name in playbook.regions for part in ("agent", "ingress")]
    places += [
        ("regions", name, "controller", "url") for name in playbook.regions if playbook.controller(name)
    ]
    if playbook.witness.controller is not None:
        places.append(("witness", "controller", "url"))
    places += [("watch", name, "url") for name in playbook.watch]
    if playbook.aws.endpoint_url is not None:
        places.append(("aws", "endpoint_url"))
    if playbook.store.etcd is not None:
        places += [("store", "etcd", "endpoints", name) for name in playbook.store.etcd.endpoints]
    for keys in places:
        parts = urlsplit(value_at(playbook, keys))
        if parts.username or parts.password:
            remedy = "Secrets never stand in the playbook."
            yield Finding(keys, "a URL with a user or password in it", "a URL without", remedy)
        elif parts.scheme == "http" and "agent" in keys and not _is_loopback(parts.hostname):
            remedy = "The agent's key would cross the network readable by all."
            yield Finding(keys, "http", "https", remedy, "warning")


def _watched(playbook: Playbook) -> Iterator[Finding]:
    for name, endpoint in playbook.watch.items():
        keys: Keys = ("watch", name)
        if endpoint.region is not None and endpoint.region not in playbook.regions:
            yield Finding((*keys, "region"), repr(endpoint.region), "one of the regions")
        if endpoint.timeout >= endpoint.interval:
            found, interval = format_duration(endpoint.timeout), format_duration(endpoint.interval)
            remedy = "A question must end before the next one is asked."
            yield Finding((*keys, "timeout"), found, f"less than interval, which is {interval}", remedy)


def _name(text: str) -> str:
    return text.rstrip(".").lower()


def _within(name: str, zone: str) -> bool:
    return _name(name) == _name(zone) or _name(name).endswith(f".{_name(zone)}")


def _traffic(playbook: Playbook) -> Iterator[Finding]:
    traffic = playbook.traffic
    zone = traffic.hosted_zone
    public = urlsplit(traffic.public_url)
    if public.hostname != _name(traffic.record):
        remedy = "Changing the record would move nobody."
        found = f"the host {public.hostname!r}"
        yield Finding(
            ("traffic", "public_url"), found, f"traffic.record, which is {traffic.record!r}", remedy
        )
    for key in ("record", "epoch_record"):
        name: str = getattr(traffic, key)
        if not _within(name, zone):
            yield Finding(("traffic", key), repr(name), f"a name within the hosted zone {zone!r}")
    if _name(traffic.epoch_record) == _name(traffic.record):
        found = f"{traffic.epoch_record!r}, the public record itself"
        yield Finding(("traffic", "epoch_record"), found, "a name of its own")
    if traffic.record_type == "CNAME" and _name(traffic.record) == _name(zone):
        yield Finding(("traffic", "record_type"), "CNAME at the top of the zone", "A")
    for name, region in playbook.regions.items():
        own = urlsplit(region.ingress.url)
        if own.hostname == _name(traffic.record):
            keys: Keys = ("regions", name, "ingress", "url")
            remedy = "Through the public name, nobody can tell which region answered."
            yield Finding(keys, "the public name", "the region's own way in", remedy)


def _addresses(playbook: Playbook) -> Iterator[Finding]:
    for name, region in playbook.regions.items():
        keys: Keys = ("regions", name, "ingress", "address")
        address = region.ingress.address
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            version = None
        if playbook.traffic.record_type == "A" and version != 4:  # noqa: PLR2004 (IPv4)
            yield Finding(keys, repr(address[:60]), "an IPv4 address, as traffic.record_type is A")
        if playbook.traffic.record_type == "CNAME" and (version is not None or not address):
            yield Finding(keys, repr(address[:60]), "a name, as traffic.record_type is CNAME")
