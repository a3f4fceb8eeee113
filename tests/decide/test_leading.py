"""Sites weighed, and the decision: every reason for staying has its case, and each comes before the failover."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hmsdr.decide import authority as a
from hmsdr.decide.authority import Holder
from hmsdr.decide.leading import Case, Cause, FailOver, Stay, Target, Why, decide
from hmsdr.decide.outage import Sight
from hmsdr.decide.testimony import Finding, Rules, Verdict, weigh
from hmsdr.decide.testimony import Testimony as Said

RULES = Rules(hold_down=300, sites=2, kinds=2, fresh=20)
KINDS = frozenset({"public", "database"})
HELD = a.grant(a.initial(30), Holder("db-east", "e1"))
TARGET = Target("db-west", "w1", age=1, following=True)


def word(site: str, sight: Sight = Sight.UNREACHABLE, **other: object) -> Said:
    values: dict[str, object] = {"lost_for": 301.0, "kinds": KINDS, "heard": 1000.0}
    return Said(site, "east", sight, **{**values, **other})  # type: ignore[arg-type]


@pytest.mark.req("FA-3")
@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ([], Verdict.WELL),
        ([word("west", Sight.REACHABLE)], Verdict.WELL),
        ([word("west"), word("witness")], Verdict.CONFIRMED),
        ([word("west")], Verdict.WAITING),
        ([word("west"), word("west")], Verdict.WAITING),
        ([word("west"), word("witness", lost_for=299)], Verdict.WAITING),
        ([word("west"), word("witness", kinds=frozenset({"public"}))], Verdict.WAITING),
        ([word("west"), word("witness", Sight.BLIND)], Verdict.WAITING),
        ([word("west"), word("witness", heard=970)], Verdict.WAITING),
        ([word("west"), word("witness"), word("east", Sight.REACHABLE)], Verdict.DISAGREEMENT),
        ([word("west"), word("witness"), word("east", Sight.REACHABLE, heard=970)], Verdict.CONFIRMED),
        ([word("west", Sight.BLIND), word("witness", Sight.BLIND)], Verdict.WELL),
    ],
)
def test_several_sites_are_weighed(words: list[Said], verdict: Verdict) -> None:
    assert weigh(words, "east", RULES, 1000).verdict is verdict


def test_a_finding_says_who_stands_where() -> None:
    found = weigh(
        [word("west"), word("witness", Sight.BLIND), word("east", Sight.REACHABLE)], "east", RULES, 1000
    )
    assert (found.lost, found.silent, found.reach) == (("west",), ("witness",), ("east",))


CONFIRMED = Finding(Verdict.CONFIRMED, lost=("west", "witness"))
WELL, WAITING, DISAGREEMENT = (
    Finding(each) for each in (Verdict.WELL, Verdict.WAITING, Verdict.DISAGREEMENT)
)


def cases(region: Finding, services: Finding = WELL) -> list[Case]:
    return [Case(Cause.REGION, region), Case(Cause.SERVICES, services)]


def decided(**change: object) -> object:
    values: dict[str, object] = {
        "record": HELD,
        "cases": cases(CONFIRMED),
        "target": TARGET,
        "since_last": None,
    }
    merged = {**values, **change}
    return decide(
        merged["record"],  # type: ignore[arg-type]
        merged["cases"],  # type: ignore[arg-type]
        merged["target"],  # type: ignore[arg-type]
        since_last=merged["since_last"],  # type: ignore[arg-type]
        cool_down=3600,
        fresh=20,
    )


@pytest.mark.req("FA-1", "FA-3")
def test_a_confirmed_loss_is_failed_over_under_exactly_this_epoch() -> None:
    assert decided() == FailOver(1, "db-east", "db-west", Cause.REGION)
    assert decided(since_last=3600.0) == FailOver(1, "db-east", "db-west", Cause.REGION)


@pytest.mark.req("FA-1")
def test_each_cause_suffices_and_the_gravest_is_named() -> None:
    assert decided(cases=cases(WELL, CONFIRMED)) == FailOver(1, "db-east", "db-west", Cause.SERVICES)
    assert decided(cases=cases(CONFIRMED, CONFIRMED)) == FailOver(1, "db-east", "db-west", Cause.REGION)
    # Sites that disagree on the region do not keep what they agree on from being mended.
    assert decided(cases=cases(DISAGREEMENT, CONFIRMED)) == FailOver(1, "db-east", "db-west", Cause.SERVICES)


@pytest.mark.req("FA-1")
def test_services_are_failed_over_only_to_where_they_could_run() -> None:
    deaf = replace(TARGET, serving=False)
    assert decided(cases=cases(WELL, CONFIRMED), target=deaf) == Stay(Why.TARGET_UNSERVING, Cause.SERVICES)
    # A lost region is left all the same.
    assert decided(cases=cases(CONFIRMED, CONFIRMED), target=deaf) == FailOver(1, "db-east", "db-west")


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("cause", list(Cause))
def test_the_cool_down_applies_to_every_cause(cause: Cause) -> None:
    assert decided(cases=[Case(cause, CONFIRMED)], since_last=3599.0) == Stay(Why.COOLING_DOWN, cause)
    assert decided(cases=[Case(cause, CONFIRMED)]) == FailOver(1, "db-east", "db-west", cause)


@pytest.mark.req("FA-3")
@pytest.mark.parametrize(
    ("change", "why", "cause"),
    [
        ({"record": a.revoke(HELD, 1)}, Why.NOBODY_HOLDS, None),
        ({"cases": cases(WELL)}, Why.WELL, None),
        ({"cases": cases(WAITING)}, Why.WAITING, Cause.REGION),
        ({"cases": cases(DISAGREEMENT)}, Why.DISAGREEMENT, Cause.REGION),
        ({"cases": cases(WAITING, DISAGREEMENT)}, Why.DISAGREEMENT, Cause.SERVICES),
        ({"since_last": 3599.0}, Why.COOLING_DOWN, Cause.REGION),
        ({"target": None}, Why.TARGET_NOT_READY, Cause.REGION),
        ({"target": replace(TARGET, following=False)}, Why.TARGET_NOT_READY, Cause.REGION),
        ({"target": replace(TARGET, sound=False)}, Why.TARGET_DAMAGED, Cause.REGION),
        ({"target": replace(TARGET, age=21)}, Why.TARGET_NOT_READY, Cause.REGION),
        ({"target": replace(TARGET, instance="db-east")}, Why.TARGET_NOT_READY, Cause.REGION),
    ],
)
def test_inaction_has_a_reason(change: dict[str, object], why: Why, cause: Cause | None) -> None:
    assert decided(**change) == Stay(why, cause)
