"""When a standby's data are not trusted, and what several sites heard of damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.soundness import DamageKind, Doubt, Health, Sign, doubt, heard_damage, needs_check
from hmsdr.decide.testimony import Verdict

WELL = Health()
KINDS = st.sampled_from(list(DamageKind))


def damaged(lsn: int | None, kind: DamageKind = DamageKind.INDEX) -> Health:
    return Health((Sign(kind, "public.patients", "2026-01-01", "broken", lsn),))


@pytest.mark.req("FA-1")
@pytest.mark.parametrize(
    ("standby", "replayed", "primary", "found"),
    [
        (WELL, 100, WELL, None),
        (WELL, 100, None, None),
        (None, 100, None, None),
        (None, 100, WELL, None),
        # Of its own there is no way round.
        (damaged(50), 100, WELL, Doubt.DAMAGED),
        (damaged(50), 100, None, Doubt.DAMAGED),
        (Health(damaged(50).signs, checked_lsn=90), 100, WELL, Doubt.DAMAGED),
        # The primary's: checked since it had replayed all that was written by then, or all that it has.
        (WELL, 100, damaged(80), Doubt.UNCHECKED),
        (None, 100, damaged(80), Doubt.UNCHECKED),
        (Health(checked_lsn=79), 100, damaged(80), Doubt.UNCHECKED),
        (Health(checked_lsn=80), 100, damaged(80), None),
        (Health(checked_lsn=70), 70, damaged(80), None),
        (Health(checked_lsn=69), 70, damaged(80), Doubt.UNCHECKED),
        # Nobody knows how far it was: everything that was replayed may be spoilt.
        (Health(checked_lsn=99), 100, damaged(None), Doubt.UNCHECKED),
        (Health(checked_lsn=100), 100, damaged(None), None),
        (Health(checked_lsn=100), None, damaged(None), Doubt.UNCHECKED),
    ],
)
def test_a_standby_that_may_have_replayed_the_damage_is_doubted(
    standby: Health | None, replayed: int | None, primary: Health | None, found: Doubt | None
) -> None:
    assert doubt(standby, replayed, primary) is found
    if standby is not None:
        assert needs_check(standby, replayed, primary) == (found is Doubt.UNCHECKED)


@pytest.mark.req("FA-1")
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.integers(0, 20),
    st.none() | st.integers(0, 20),
    KINDS,
)
def test_nothing_that_was_replayed_unchecked_and_may_be_spoilt_passes(
    lsns: list[int], replayed: int, checked: int | None, kind: DamageKind
) -> None:
    """The plain reading: every byte of WAL up to a discovery may carry damage; passed is only who checked after each it has."""
    primary = Health(tuple(damaged(lsn, kind).signs[0] for lsn in lsns))
    unchecked = {at for at in range(1, replayed + 1) if at <= max(lsns) and (checked is None or at > checked)}
    found = doubt(Health(checked_lsn=checked), replayed, primary)
    if unchecked:
        assert found is Doubt.UNCHECKED
    elif checked is not None:
        assert found is None


@pytest.mark.req("FA-3")
@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({}, Verdict.WELL),
        ({"west": False, "witness": None}, Verdict.WELL),
        ({"west": True}, Verdict.WAITING),
        ({"west": True, "witness": None}, Verdict.WAITING),
        ({"west": True, "witness": True}, Verdict.CONFIRMED),
        # Who asked a moment earlier contradicts nobody.
        ({"west": True, "witness": True, "east": False}, Verdict.CONFIRMED),
    ],
)
def test_sites_that_heard_of_damage(told: dict[str, bool | None], verdict: Verdict) -> None:
    assert heard_damage(told, 2).verdict is verdict
