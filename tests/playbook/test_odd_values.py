"""Every field of a playbook gets every odd value: what is taken is exactly what has a reason to be.

The table below is that reason. A field that is not in it takes none of the odd values.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from books import SECRETS, SHIPPED_TEXT, write
from click.testing import CliRunner
from pydantic import ValidationError

from hmsdr.check.playbook import lint, load_checked
from hmsdr.cli.validate import command
from hmsdr.playbook.findings import Finding, PlaybookError
from hmsdr.playbook.model import Playbook

ODD: dict[str, Any] = {
    "empty": "",
    "space": " ",
    "unseen": "\u200b",
    "minus one": -1,
    "zero": 0,
    "huge": 10**17,
    "half": 1.5,
    "true": True,
    "other script": "日本語",
    "two words": "a b",
    "like an option": "-5s",
    "long time": "99999999d",
    "long": "x" * 300,
    "list": [],
    "map": {},
    "null": None,
}
WORDS = {"other script", "two words", "like an option", "long time"}
"""Texts that mean something to people, whatever they are."""
TEXT = {*WORDS, "long"}
REASONS: dict[str, set[str]] = {
    r"overlay": {*TEXT, "null"},
    r"name|.*\.(title|meaning)|contacts\..*\.name|procedures\.testing\..*": TEXT,
    r".*\.note": {*TEXT, "empty", "space", "unseen"},
    r".*\.backups\.prefix|backups\.kubernetes\.prefix": {"empty", "space"},
    r"backups\.server": {"long time"},
    r"backups\.archive_wal": {"true"},
    r".*\.kubernetes\.context": TEXT,  # a kubeconfig names them as it likes
    r".*\.kubeconfig|traffic\.ca_file": {*TEXT, "null"},
    r"store\.path": TEXT,
    r".*\.postgres\.(database|user)|.*\.tables\.\d+": WORDS,
    r".*\.password|.*\.endpoint_url": {"null"},
    r"store\.etcd\.user": {*TEXT, "null"},
    r"regions\..*\.slot|.*\.(statefulset|deployment|namespace|host|service_host)": {"long time"},
    r"regions\..*\.instance|witness\.name|aws\.region": {"long time"},
    r"traffic\.(hosted_zone|record|epoch_record)": set(),
    r"prometheus\.region_label": {"long"},
    r"services\..*\.critical|database\.failover_without_fencing_proof": {"true"},
    r"services\..*\.downtime": {*TEXT, "null"},
    r"services\..*\.replicas\.standby": {"zero"},  # a warning
    r"thresholds\.gates\.replication_lag_bytes": {"huge"},
    r"procedures\.switchback\.(latency_factor|saturation)": {"half"},
}


@cache
def book() -> dict[str, Any]:
    """The shipped playbook with every optional field set."""
    values: dict[str, Any] = yaml.safe_load(SHIPPED_TEXT)
    values["overlay"] = "all"
    values["aws"]["endpoint_url"] = "http://127.0.0.1:5"
    values["traffic"] |= {"resolvers": ["127.0.0.1:53"], "ca_file": "/ca.pem"}
    sites = ("us-east-1", "us-west-2", "us-east-2")
    values["store"] |= {
        "kind": "etcd",
        "etcd": {
            "endpoints": {name: f"https://etcd-{name}:2379" for name in sites},
            "prefix": "/hmsdr",
            "user": "root",
            "deadline": "1s",
        },
    }
    values["regions"]["us-east-1"]["kubernetes"]["kubeconfig"] = "/kubeconfig"
    values["prometheus"]["region_label"] = "region"
    return values


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*keys, key))
    else:
        yield keys


PLACES = [keys for keys in leaves(book()) if keys[:2] != ("regions", "us-west-2")]


def is_taken(keys: tuple[Any, ...], odd: Any) -> bool:
    values = copy.deepcopy(book())
    place: Any = values
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = odd
    try:
        playbook = Playbook.model_validate(values)
    except ValidationError:
        return False
    return not [finding for finding in lint(playbook) if finding.level == "error"]


def test_the_book_itself_is_taken() -> None:
    assert is_taken(("name",), "HMS")
    assert len(PLACES) > 150


@pytest.mark.parametrize("top", sorted({str(keys[0]) for keys in PLACES}))
def test_only_values_that_have_a_reason_are_taken(top: str) -> None:
    wrong = {}
    for keys in (keys for keys in PLACES if keys[0] == top):
        path = ".".join(map(str, keys))
        wanted = next((taken for form, taken in REASONS.items() if re.fullmatch(form, path)), set())
        if path.endswith(("us-east-1.agent.key", ".password")):
            wanted = wanted | {*WORDS, "long", "empty", "space", "unseen"}  # the loader judges secrets
        taken = {name for name in ODD if is_taken(keys, ODD[name])}
        if taken != wanted:
            wrong[path] = (sorted(taken - wanted), sorted(wanted - taken))
    assert wrong == {}


@pytest.mark.parametrize(
    ("line", "path", "found", "allowed", "remedy"),
    [
        ("regions: {us-east-1: {controller: {url: foo}}}", "regions.us-east-1.controller.url", "'foo'", "a URL", ""),
        ("prometheus: {url: prom.example.org}", "prometheus.url", "'prom.example.org'", "a URL",
         "Did you mean 'https://prom.example.org'?"),
        ("prometheus: {url: 'https://user:pa:ss@a b'}", "prometheus.url", "'https://…@a b'", "a URL", ""),
        ("prometheus: {url: 'https://a:70000'}", "prometheus.url", "'https://a:70000'", "a URL", ""),
        ("regions: {us-west-2: {postgres: {host: a b}}}", "regions.us-west-2.postgres.host", "'a b'", "a host name",
         "Did you mean 'a-b'?"),
        ("regions: {us-west-2: {redis: {host: 'https://r.x:1'}}}", "regions.us-west-2.redis.host", "'https://r.x:1'",
         "a host name", "Did you mean 'r.x'?"),
        ("regions: {us-west-2: {redis: {host: 1.2.3.4.5}}}", "regions.us-west-2.redis.host", "'1.2.3.4.5'",
         "a host name", ""),
        ("regions: {us-west-2: {postgres: {data_directory: -5s}}}", "regions.us-west-2.postgres.data_directory",
         "'-5s'", "an absolute path", ""),
        ("regions: {us-west-2: {kubernetes: {namespace: HMS_System}}}", "regions.us-west-2.kubernetes.namespace",
         "'HMS_System'", "a Kubernetes namespace", "Did you mean 'hms-system'?"),
        ("regions: {us-west-2: {backups: {bucket: 10.0.0.1}}}", "regions.us-west-2.backups.bucket", "'10.0.0.1'",
         "a bucket name", ""),
        ("thresholds: {gates: {replication_lag_bytes: 0}}", "thresholds.gates.replication_lag_bytes", "0",
         "more than 0", "would refuse every failover"),
        ("store: {path: ' '}", "store.path", "' '", "a text that says something", ""),
        ("traffic: {hosted_zone: 'hms..com'}", "traffic.hosted_zone", "'hms..com'", "a DNS name", ""),
        ("traffic: {resolvers: ['dns.example.org']}", "traffic.resolvers[0]", "'dns.example.org'", "an IP address", ""),
        ("services: {auth: {health_path: auth/health}}", "services.auth.health_path", "'auth/health'", "a path that",
         "Did you mean '/auth/health'?"),
        ("services: {auth: {health_path: //auth/health}}", "services.auth.health_path", "'//auth/health'",
         "a path that", "Did you mean '/auth/health'?"),
        ("procedures: {switchback: {home_shares: [80/30, 0/100]}}", "procedures.switchback.home_shares[0]",
         "'80/30'", "two shares that make 100 together", "They make 110"),
        ("database: {lease: 4000d}", "database.lease", "'4000d'", "at most ten years", ""),
        ("channels: {primary: incidents}", "channels.primary", "'incidents'", "KIND:NAME", ""),
        ("regions: {us-west-2: {postgres: {slot: West-2}}}", "regions.us-west-2.postgres.slot", "'West-2'", "pattern",
         "slot: The replication slot"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_place_and_the_remedy(
    tmp_path: Path, line: str, path: str, found: str, allowed: str, remedy: str
) -> None:
    file = write(tmp_path, f"extends: hms\n{line}\n")
    with pytest.raises(PlaybookError) as caught:
        load_checked(file, environ=SECRETS)
    finding: Finding = next(each for each in caught.value.findings if each.path == path)
    assert str(finding.mark).startswith(f"{file}:2:")
    assert (finding.found, finding.level) == (found, "error")
    assert allowed in finding.allowed
    assert remedy in finding.remedy
    assert bool(finding.remedy) == bool(remedy)
    result = CliRunner(env=dict(SECRETS)).invoke(command, [str(file)])
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert f"{path}: found {found}" in result.output
    assert "pa:ss" not in result.output


def test_a_hint_does_not_tell_what_a_reference_resolved_to(tmp_path: Path) -> None:
    file = write(tmp_path, "extends: hms\nregions: {us-west-2: {postgres: {host: '${env:HOST_OF_DB}'}}}\n")
    with pytest.raises(PlaybookError) as caught:
        load_checked(file, environ={**SECRETS, "HOST_OF_DB": "geheim nis"})
    assert "geheim" not in str(caught.value)
    (finding,) = caught.value.findings
    assert finding.found == "'${env:HOST_OF_DB}'"


@pytest.mark.parametrize(
    "line",
    [
        "regions: {us-west-2: {postgres: {host: '::1'}}}",
        "regions: {us-west-2: {redis: {host: 10.1.2.3}}}",
        "regions: {us-west-2: {controller: {url: 'http://[::1]:7444'}}}",
        "traffic: {hosted_zone: hms.enterprise.com.}",
        "traffic: {resolvers: ['10.0.0.2', '10.0.0.3:5353', '::1', '[::1]:53']}",
        "services: {auth: {health_path: '/auth/health?deep=1', tables: [public.users]}}",
        "contacts: {vendors: {cloud-provider: [{name: A, reach: +1 (202) 555-0110 ext. 7}]}}",
    ],
)
def test_what_other_systems_take_is_taken(tmp_path: Path, line: str) -> None:
    load_checked(write(tmp_path, f"extends: hms\n{line}\n"), environ=SECRETS)
