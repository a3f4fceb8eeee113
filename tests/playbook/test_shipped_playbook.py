"""The shipped playbook carries every figure and name of the source document."""

from __future__ import annotations

from datetime import timedelta

import pytest
from books import SECRETS

from hmsdr.check.playbook import lint
from hmsdr.playbook.load import load
from hmsdr.playbook.procedures import Switchback

HMS = load("hms", environ=SECRETS)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.mark.req("CL-1")
def test_four_severities_mean_what_the_source_says() -> None:
    assert {name: (s.title, s.meaning) for name, s in HMS.severities.items()} == {
        "SEV-0": ("Critical", "Complete system outage affecting all patients"),
        "SEV-1": ("Major", "Regional outage affecting multiple services"),
        "SEV-2": ("Minor", "Single service outage affecting some patients"),
        "SEV-3": ("Low", "Performance degradation or limited impact"),
    }


def test_response_targets() -> None:
    assert [s.response for s in HMS.severities.values()] == [5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR]


@pytest.mark.req("CO-1")
def test_roles_have_people_with_name_phone_and_email() -> None:
    assert list(HMS.roles) == ["incident-commander", "technical-lead", "operations-manager", "security-lead"]
    people = {person.name: person for person in HMS.people}
    for role in HMS.roles.values():
        person = people[role.primary]
        assert person.phone.startswith("+")
        assert "@" in person.email
    for name in ("incident-commander", "technical-lead"):
        role = HMS.roles[name]
        assert role.backup in people
        assert role.backup != role.primary


@pytest.mark.req("CO-2")
def test_emergency_and_vendor_lists() -> None:
    assert list(HMS.contacts.emergency) == [
        "incident-response-team", "technical-support", "management", "external-partners",
    ]  # fmt: skip
    assert list(HMS.contacts.vendors) == [
        "cloud-provider", "database-support", "security-services", "network-services",
    ]  # fmt: skip
    for entries in (*HMS.contacts.emergency.values(), *HMS.contacts.vendors.values()):
        assert entries
        assert all(entry.reach for entry in entries)


def test_nobody_real_is_called() -> None:
    for person in HMS.people:
        assert person.phone.startswith("+120255501")
        assert person.email.endswith("@hms.example")


def test_triggers_gates_and_targets() -> None:
    figures = HMS.thresholds
    assert figures.triggers.region_unreachable == 5 * MINUTE
    assert figures.triggers.critical_services_unavailable == 10 * MINUTE
    assert figures.gates.replication_lag == timedelta(seconds=30)
    assert figures.gates.backup_age == DAY
    assert HMS.database.lease == timedelta(seconds=30)


def test_communication() -> None:
    assert (HMS.cadence.first_word, HMS.cadence.update, HMS.cadence.resolution) == (
        5 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    )  # fmt: skip
    assert "#incident-response" in HMS.channels.primary
    assert "teams" in HMS.channels.backup
    assert HMS.channels.escalation == "phone:incident-commander"
    assert {name: set(audience.channels) for name, audience in HMS.audiences.items()} == {
        "clinical-staff": {"email", "sms"},
        "administrative-staff": {"email"},
        "patients": {"banner", "automated-message"},
        "partners": {"direct"},
        # Ours: executives read no alerts.
        "management": {"email"},
    }


def test_names_of_the_source() -> None:
    assert list(HMS.regions) == ["us-east-1", "us-west-2"]
    assert HMS.home_region == "us-east-1"
    for name, ordinal, other in (
        ("us-east-1", "primary", "us-west-2"),
        ("us-west-2", "secondary", "us-east-1"),
    ):
        region = HMS.regions[name]
        assert HMS.other_region(name) == other
        assert region.kubernetes.context == name
        assert region.kubernetes.namespace == "hms-system"
        assert region.postgres.host == f"postgres-{ordinal}.hms.system.svc.cluster.local"
        assert region.postgres.statefulset == f"postgres-{ordinal}"
        assert region.postgres.slot == f"{name.replace('-', '_')}_slot"
        assert region.redis.host == f"redis-{ordinal}.hms.system.svc.cluster.local"
        assert region.ingress.url == f"https://api-{ordinal}.hms.enterprise.com"
        assert region.backups.bucket == f"hms-backups-{name}"
        assert region.backups.prefix == "databases/"
        assert region.backups.copy_bucket == f"hms-backups-{other}"
    assert HMS.traffic.public_url == "https://api.hms.enterprise.com"
    assert HMS.prometheus.url == "https://prometheus.hms.enterprise.com"
    assert {name: (s.deployment, s.health_path) for name, s in HMS.services.items()} == {
        name: (f"{name}-service", f"/{name}-service/health")
        for name in ("patient", "appointment", "clinical", "billing", "auth")
    }


def test_procedures() -> None:
    procedures = HMS.procedures
    response = procedures.response
    assert (response.initial, response.assessment, response.mitigation) == (5 * MINUTE, 15 * MINUTE, HOUR)
    assert procedures.switchback.home_shares == (20, 40, 60, 80, 100)
    as_the_source_writes_it = {"home_shares": ["80/20", "60/40", "40/60", "20/80", "0/100"], "hold": "5m"}
    assert Switchback.model_validate(as_the_source_writes_it).home_shares == (20, 40, 60, 80, 100)
    testing = procedures.testing
    assert [len(tests) for tests in (testing.weekly, testing.monthly, testing.quarterly)] == [4, 4, 4]
    reviews = procedures.reviews
    assert (reviews.immediate.opens, reviews.immediate.due) == (DAY, 2 * DAY)
    assert (reviews.formal.opens, reviews.formal.due) == (7 * DAY, 14 * DAY)
    assert (procedures.actions.immediate, procedures.actions.medium_term) == (30 * DAY, 90 * DAY)


def test_the_only_thing_to_say_about_it_is_that_its_people_are_made_up() -> None:
    (finding,) = lint(HMS)
    assert (finding.level, finding.path) == ("warning", "people")
