"""Each lint rule, shown by one change to the shipped playbook that breaks it and nothing else."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from hmsdr.check.playbook import lint, load_checked
from hmsdr.playbook.findings import PlaybookError
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

HMS = load("hms", environ={}, secrets=False).model_dump(mode="json", by_alias=True)
EAST, WEST = "regions.us-east-1", "regions.us-west-2"
PEOPLE = [f"people.{index}" for index in range(6)]
AS_SHIPPED = "people"
"""Path of the one warning that the shipped playbook has."""


def changed(changes: dict[str, Any]) -> Playbook:
    values = deepcopy(HMS)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = values
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is None and last not in ("backup", "kubeconfig"):
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return Playbook.model_validate(values)


ERRORS: dict[str, dict[str, Any]] = {
    "home_region": {"home_region": "eu-central-1"},
    "witness.name": {"witness.name": "us-west-2"},
    f"{EAST}.backups.copy_bucket": {f"{EAST}.backups.copy_bucket": "hms-backups-us-east-1"},
    f"{WEST}.backups.copy_bucket": {f"{WEST}.backups.copy_bucket": "elsewhere"},
    f"{WEST}.kubernetes.context": {f"{WEST}.kubernetes.context": "us-east-1"},
    f"{WEST}.postgres.instance": {f"{WEST}.postgres.instance": "postgres-primary-0@us-east-1"},
    f"{WEST}.postgres.host": {f"{WEST}.postgres.host": "postgres-primary.hms.system.svc.cluster.local"},
    f"{WEST}.postgres.slot": {f"{WEST}.postgres.slot": "us_east_1_slot"},
    f"{WEST}.redis.host": {f"{WEST}.redis.host": "redis-primary.hms.system.svc.cluster.local"},
    f"{WEST}.agent.url": {f"{WEST}.agent.url": "https://agent-us-east-1.hms.enterprise.com:7443"},
    f"{WEST}.ingress.address": {f"{WEST}.ingress.address": "192.0.2.10"},
    f"{EAST}.ingress.address": {f"{EAST}.ingress.address": "api-primary.hms.enterprise.com"},
    f"{EAST}.ingress.url": {f"{EAST}.ingress.url": "https://api.hms.enterprise.com"},
    "procedures.testing.weekly[0]": {"procedures.testing.weekly.0": "\u200b"},
    "aws": {"aws.access_key_id": "x"},
    f"{WEST}.controller.url": {f"{WEST}.controller.url": "https://user:word@hmsdr.example.org"},
    "services.auth.deployment": {"services.auth.deployment": "billing-service"},
    "services.auth.health_path": {"services.auth.health_path": "/billing-service/health"},
    "services": {f"services.{s}.critical": False for s in ("patient", "appointment", "clinical", "auth")},
    "prometheus.url": {"prometheus.url": "https://user:word@prometheus.hms.enterprise.com"},
    "traffic.public_url": {"traffic.public_url": "https://www.hms.enterprise.com"},
    "traffic.record": {"traffic.record": "api.other.com", "traffic.public_url": "https://api.other.com"},
    "traffic.epoch_record": {"traffic.epoch_record": "_epoch.api.xhms.enterprise.com"},
    "traffic.ttl": {"traffic.ttl": 900},
    "thresholds.probing.timeout": {"thresholds.probing.timeout": "11s"},
    "thresholds.probing.interval": {"thresholds.probing.interval": "5m"},
    "thresholds.triggers.region_unreachable": {"thresholds.triggers.critical_services_unavailable": "4m"},
    "thresholds.triggers.critical_services": {"thresholds.triggers.critical_services": 5},
    "thresholds.verification.sites": {"thresholds.verification.sites": 4},
    "database.mode": {"database.mode": "synchronous"},
    "thresholds.gates.last_known_lag_age": {"thresholds.gates.last_known_lag_age": "5m"},
    "thresholds.gates.backup_age": {"thresholds.gates.backup_age": "0s"},
    "watch.laboratory.url": {"watch.laboratory": {"url": "https://user:word@lab.partner.example/health"}},
    "watch.laboratory.region": {
        "watch.laboratory": {"url": "https://lab.partner.example", "region": "eu-central-1"}
    },
    "watch.laboratory.timeout": {"watch.laboratory": {"url": "https://lab.partner.example", "timeout": "5s"}},
    "watch.laboratory.interval": {
        "watch.laboratory": {"url": "https://lab.partner.example", "interval": "0s", "timeout": "1s"}
    },
    "database.lease": {"database.lease": "20m"},
    "severities.SEV-1.response": {"severities.SEV-1.response": "5m"},
    "cadence.first_word": {"cadence.first_word": "16m"},
    "procedures.response.initial": {"procedures.response.initial": "15m"},
    "procedures.switchback.latency_p95": {"procedures.switchback.latency_p95": "3s"},
    "procedures.switchback.home_shares": {"procedures.switchback.home_shares": [20, 60, 40, 100]},
    "procedures.reviews.immediate.opens": {"procedures.reviews.immediate.opens": "3d"},
    "procedures.actions.immediate": {"procedures.actions.immediate": "90d"},
    "people[1].name": {"people.1.name": "Ada Quill", "roles.technical-lead.primary": "Faris Oakley"},
    "roles.security-lead": {"roles.security-lead": None},
    "roles.technical-lead.primary": {"roles.technical-lead.primary": "Bram Fenick"},
    "roles.technical-lead.backup": {"roles.technical-lead.backup": None},
    "roles.incident-commander.backup": {"roles.incident-commander.backup": "Ada Quill"},
    "contacts.vendors.cloud-provider": {"contacts.vendors.cloud-provider": []},
    "contacts.emergency.management": {"contacts.emergency.management": None},
    "audiences.patients.channels": {"audiences.patients.channels": []},
}

WARNINGS: dict[str, dict[str, Any]] = {
    f"{EAST}.agent.url": {f"{EAST}.agent.url": "http://agent.hms.enterprise.com"},
    "services.auth.replicas.standby": {"services.auth.replicas.standby": 0},
    "thresholds.targets.rto": {"thresholds.targets.rto": "12m"},
    "thresholds.triggers.region_unreachable": {"thresholds.triggers.region_unreachable": "20s"},
    "thresholds.triggers.critical_services_recovery": {
        "thresholds.triggers.critical_services_recovery": "10m"
    },
    "thresholds.verification.kinds": {"thresholds.verification.kinds": 3},
    "thresholds.gates.replication_lag": {"thresholds.gates.replication_lag": "31s"},
    "database.failover_without_fencing_proof": {"database.failover_without_fencing_proof": True},
    "roles": {"roles.security-lead.primary": "Ada Quill"},
    "people[0].phone": {"people.0.phone": "+12025550102"},
    "audiences.partners": {"audiences.partners": None},
}


@pytest.mark.parametrize("path", ERRORS)
def test_errors(path: str) -> None:
    findings = lint(changed(ERRORS[path]))
    errors = {finding.path for finding in findings if finding.level == "error"}
    assert path in errors
    assert [finding.level for finding in findings] == sorted(finding.level for finding in findings)


@pytest.mark.parametrize("path", WARNINGS)
def test_warnings(path: str) -> None:
    findings = lint(changed(WARNINGS[path]))
    assert not [finding for finding in findings if finding.level == "error"]
    assert path in {finding.path for finding in findings}


def test_people_who_can_be_reached_are_no_warning() -> None:
    real = {f"{person}.phone": f"+4930901820{index}1" for index, person in enumerate(PEOPLE)}
    real |= {f"{person}.email": f"p{index}@st-elsewhere.org" for index, person in enumerate(PEOPLE)}
    assert lint(changed(real)) == []


def test_figures_of_a_rehearsal_in_seconds_are_fine() -> None:
    figures = {
        "thresholds.probing.interval": "500ms",
        "thresholds.probing.timeout": "400ms",
        "thresholds.triggers.region_unreachable": "3s",
        "thresholds.triggers.critical_services_unavailable": "6s",
        "thresholds.triggers.critical_services_recovery": "2s",
        "thresholds.verification.deadline": "5s",
        "thresholds.targets.rto": "1m",
        "database.lease": "3s",
        "traffic.ttl": 1,
    }
    assert [finding.path for finding in lint(changed(figures))] == [AS_SHIPPED]


def test_errors_refuse_and_name_the_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: hms\ncadence:\n  first_word: 20m\n")
    with pytest.raises(PlaybookError) as caught:
        load_checked(file, secrets=False)
    errors = [finding for finding in caught.value.findings if finding.level == "error"]
    assert [(str(finding.mark), finding.path) for finding in errors] == [
        (f"{file}:3:3", "cadence.first_word")
    ]


def test_warnings_do_not_refuse() -> None:
    checked = load_checked("hms", environ={}, secrets=False)
    assert [finding.path for finding in checked.warnings] == [AS_SHIPPED]
    assert checked.warnings[0].mark
