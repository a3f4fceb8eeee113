"""What fits an incident: a failover where users are, a recovery where they are not, and nothing that is not seen."""

from __future__ import annotations

import pytest

from casebook import BOOK, Log
from hmsdr.decide.suggestions import suggest


def seen(*signals: dict[str, object]) -> Log:
    log = Log()
    log.add("alerts.received", "alertmanager", "monitoring", alerts=list(signals))
    log.route("us-east-1")
    return log


def signal(effect: str, **of: object) -> dict[str, object]:
    return {"key": f"{effect}/{of}", "text": "x", "effect": effect, **of}


def commands(log: Log, active: str | None = "us-east-1") -> list[str]:
    return [each.command for each in suggest(log.incident(), BOOK, active)]


@pytest.mark.req("IR-2", "IR-3")
@pytest.mark.parametrize(
    ("active", "command"),
    [
        ("us-east-1", "hmsdr failover us-east-1 us-west-2"),
        (None, "hmsdr failover us-east-1 us-west-2"),
        ("us-west-2", "hmsdr plan recover us-east-1"),
    ],
)
def test_a_lost_region_is_left_where_users_are_and_recovered_where_they_are_not(active, command) -> None:
    log = seen(
        signal("lost", regions=["us-east-1"]), signal("down", regions=["us-east-1"], services=["auth"])
    )
    assert commands(log, active) == [command]


def test_nobody_is_sent_to_a_region_that_is_lost_too() -> None:
    assert commands(seen(signal("lost", regions=["us-east-1", "us-west-2"]))) == ["hmsdr health-check"]


@pytest.mark.req("IR-2")
def test_the_gravest_comes_first_and_each_once() -> None:
    log = seen(
        signal("degraded", services=["auth"]),
        signal("down", services=["patient"]),
        signal("down", services=["patient"], regions=["us-east-1"]),
        signal("unwritable"),
        signal("damaged", regions=["us-east-1"]),
        signal("lost", regions=["atlantis"]),
    )
    services = [name for name in BOOK.services if name in ("auth", "patient")]
    assert len(services) == 2
    start = "hmsdr run start service-failover region=us-east-1 service"
    assert commands(log) == [
        "hmsdr plan corruption us-east-1",
        "hmsdr authority show",
        f"{start}=patient",
        f"{start}=auth",
    ]


def test_what_has_ended_and_what_is_over_suggests_nothing() -> None:
    log = seen(signal("lost", regions=["us-east-1"]))
    key = next(iter(log.incident().signals))
    log.add("alerts.received", "alertmanager", "monitoring", alerts=[{"key": key, "ended": True}])
    assert commands(log) == []
    log = seen(signal("lost", regions=["us-east-1"]))
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    assert commands(log) == []
