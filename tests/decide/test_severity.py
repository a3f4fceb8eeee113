"""The severity that what is seen gives reason for, and that more trouble never makes it milder."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.severity import Situation, propose

CALM = Situation(regions=2, active="east", services=5)
FIVE = ("appointment", "auth", "billing", "clinical", "patient")


@pytest.mark.req("CL-1", "CL-3")
@pytest.mark.parametrize(
    ("change", "severity", "reason"),
    [
        ({"lost": ("east", "west")}, "SEV-0", "every region is lost: east, west"),
        ({"down": FIVE}, "SEV-0", "no service answers on any path"),
        ({"lost": ("east",), "reached": 0.0}, "SEV-0", "no patient is reached"),
        ({"lost": ("east",)}, "SEV-1", "the active region east is lost"),
        ({"down": ("auth", "patient")}, "SEV-1", "2 services are down: auth, patient"),
        ({"damaged": ("east",)}, "SEV-1", "the database of east, which all services use, is damaged"),
        ({"unwritable": True}, "SEV-1", "no region may write: nothing can be saved"),
        ({"down": ("billing",)}, "SEV-2", "billing is down"),
        ({"reached": 0.7}, "SEV-2", "70% of the patients are reached"),
        ({"lost": ("west",)}, "SEV-3", "west is lost, and serves nobody now"),
        ({"damaged": ("west",)}, "SEV-3", "the database of west is damaged, and serves nobody now"),
        ({"degraded": ("redis of east is slow",)}, "SEV-3", "redis of east is slow"),
    ],
)
def test_what_is_seen_gives_a_severity_and_its_reason(
    change: dict[str, object], severity: str, reason: str
) -> None:
    found = propose(replace(CALM, **change))  # type: ignore[arg-type]
    assert found is not None
    assert found.severity == severity
    assert reason in found.reasons


def test_in_calm_nothing_is_proposed() -> None:
    assert propose(CALM) is None
    assert propose(replace(CALM, reached=1.0)) is None


SITUATIONS = st.builds(
    Situation,
    regions=st.just(2),
    lost=st.sets(st.sampled_from(["east", "west"])).map(lambda names: tuple(sorted(names))),
    active=st.sampled_from(["east", "west", None]),
    services=st.just(5),
    down=st.sets(st.sampled_from(FIVE)).map(lambda names: tuple(sorted(names))),
    damaged=st.sets(st.sampled_from(["east", "west"])).map(lambda names: tuple(sorted(names))),
    reached=st.none() | st.floats(0, 1),
)


def rank(seen: Situation) -> int:
    found = propose(seen)
    return 4 if found is None else int(found.severity[-1])


@pytest.mark.req("CL-1")
@given(SITUATIONS, st.sampled_from(FIVE), st.sampled_from(["east", "west"]))
def test_more_trouble_is_never_milder(seen: Situation, service: str, region: str) -> None:
    for worse in (
        replace(seen, down=tuple(sorted({*seen.down, service}))),
        replace(seen, lost=tuple(sorted({*seen.lost, region}))),
        replace(seen, damaged=tuple(sorted({*seen.damaged, region}))),
        replace(seen, degraded=("slow",)),
        replace(seen, reached=0.0),
    ):
        assert rank(worse) <= rank(seen)
    found = propose(seen)
    assert found is None or found.reasons
