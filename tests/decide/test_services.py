"""Critical services weighed together: one by one first, and as many at once as the playbook says."""

from __future__ import annotations

import pytest

from hmsdr.decide.services import together
from hmsdr.decide.testimony import Finding, Verdict

WELL, WAITING = Finding(Verdict.WELL), Finding(Verdict.WAITING, lost=("west",))
LOST = Finding(Verdict.CONFIRMED, lost=("west", "witness"))
SPLIT = Finding(Verdict.DISAGREEMENT, lost=("west",), reach=("witness",))


@pytest.mark.req("FA-1", "FA-3")
@pytest.mark.parametrize(
    ("findings", "threshold", "verdict", "lost"),
    [
        ({}, 1, Verdict.WELL, ()),
        ({"patient": WELL, "auth": WELL}, 1, Verdict.WELL, ()),
        ({"patient": LOST, "auth": WELL}, 1, Verdict.CONFIRMED, ("patient",)),
        ({"patient": LOST, "auth": WELL}, 2, Verdict.WAITING, ("patient",)),
        ({"patient": LOST, "auth": LOST}, 2, Verdict.CONFIRMED, ("auth", "patient")),
        ({"patient": WAITING, "auth": WELL}, 1, Verdict.WAITING, ()),
        ({"patient": SPLIT, "auth": WELL}, 1, Verdict.DISAGREEMENT, ()),
        ({"patient": SPLIT, "auth": LOST}, 1, Verdict.CONFIRMED, ("auth",)),
        ({"patient": SPLIT, "auth": LOST}, 2, Verdict.DISAGREEMENT, ("auth",)),
        # One site misses this one, another site that one: nobody sees an outage.
        ({"patient": WAITING, "auth": Finding(Verdict.WAITING, lost=("witness",))}, 1, Verdict.WAITING, ()),
    ],
)
def test_services_together(
    findings: dict[str, Finding], threshold: int, verdict: Verdict, lost: tuple[str, ...]
) -> None:
    found = together(findings, threshold)
    assert (found.finding.verdict, found.lost) == (verdict, lost)


def test_a_finding_names_the_sites_of_what_is_lost() -> None:
    found = together({"patient": LOST, "auth": SPLIT}, 1).finding
    assert (found.lost, found.reach) == (("west", "witness"), ())
