"""The taker's side: never from a read, never too early, never to a side that lacks what was handed over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide import authority as a
from hmsdr.decide.authority import AuthorityRefused, Holder, LeaseWaited, Phase, Receipt
from hmsdr.decide.takeover import (
    Await,
    Free,
    Freed,
    Revoke,
    Side,
    Takeover,
    answered,
    enough,
    left,
    move,
    recipient,
)

EAST = Holder("east", "e1")
HELD = a.grant(a.initial(4), EAST)
REVOKED = a.revoke(HELD, 1)
CLEAN = Receipt("east", "e1", 1, 100, clean=True, survivors=0)


@pytest.mark.req("FA-4")
def test_it_begins_with_a_revocation_of_its_own_even_when_another_revoked_before() -> None:
    mine = Takeover(1, "west", 0.05)
    assert isinstance(move(mine, HELD, 1000), Revoke)
    again = move(mine, REVOKED, 1000)
    assert again == Revoke(REVOKED), "what was revoked stays so; but the wait is this taker's own"
    mine = answered(mine, REVOKED, 1000)
    assert move(mine, REVOKED, 1000) == Await(pytest.approx(4.2))
    assert isinstance(move(mine, REVOKED, 1004.1), Await)
    freed = move(mine, REVOKED, 1004.21)
    assert isinstance(freed, Free)
    assert (freed.new.phase, type(freed.proof)) == (Phase.VACANT, LeaseWaited)
    assert move(mine, freed.new, 1005) == Freed()


def test_answered_twice_counts_from_the_first() -> None:
    mine = answered(answered(Takeover(1, "west", 0.05), REVOKED, 10), REVOKED, 13)
    assert left(mine, 13) == pytest.approx(1.2)


@given(since=st.floats(0, 1e7), lease=st.floats(0.1, 600), later=st.floats(0, 1200))
def test_what_is_enough_is_accepted_as_proof(since: float, lease: float, later: float) -> None:
    """Rounding must not call the wait over and the proof of it too short."""
    revoked = a.revoke(a.grant(a.initial(lease), EAST), 1)
    mine = answered(Takeover(1, "west", 0.05), revoked, since)
    found = move(mine, revoked, since + later)
    assert isinstance(found, Await | Free)
    exactly = since + left(mine, since)
    assert isinstance(move(mine, revoked, exactly), Await | Free)


def test_a_receipt_is_enough_at_once_and_a_clean_one_hands_over() -> None:
    mine = replace(answered(Takeover(1, "west", 0.05, clean=True), REVOKED, 10), receipt=CLEAN)
    freed = move(mine, REVOKED, 10.1)
    assert isinstance(freed, Free)
    assert (freed.new.phase, freed.new.handover_to, freed.new.handover_lsn) == (
        Phase.HANDING_OVER,
        "west",
        100,
    )


def test_a_clean_takeover_keeps_to_the_receipt_unless_told_otherwise() -> None:
    mine = answered(Takeover(1, "west", 0.05, clean=True), REVOKED, 10)
    assert enough(mine, 100) is None
    assert isinstance(enough(mine, 100, patient=False), LeaseWaited)


@pytest.mark.req("FA-4")
def test_a_takeover_of_an_older_epoch_is_void() -> None:
    with pytest.raises(AuthorityRefused, match="made for epoch 1, the current one is 2"):
        move(Takeover(1, "west", 0.05), replace(HELD, epoch=2), 1)


@pytest.mark.req("DB-1")
def test_a_hand_over_goes_forward_only_to_a_side_that_has_it_all_else_back() -> None:
    handed = a.prove_fenced(REVOKED, CLEAN, handover_to="west")
    east, west = Side("east", "e1", 1, 100), Side("west", "w1", 1, 100)
    assert recipient(handed, [east, west], None) == west
    assert recipient(handed, [east, replace(west, lsn=99)], None) == east
    assert recipient(handed, [replace(west, lsn=99)], None) is None
    assert recipient(handed, [Side("north", "n1", 1, 200)], None) is None


@pytest.mark.req("DB-1", "FA-4")
def test_an_epoch_that_was_never_used_changes_nothing_of_what_the_next_one_must_have() -> None:
    """The simulator's seed 128982: handed over, granted in vain, taken away again; then nobody was good enough."""
    handed = a.prove_fenced(REVOKED, CLEAN, handover_to="west")
    granted = a.grant(handed, Holder("west", "w1"))
    unused = Receipt("west", "w1", 2, 90, clean=False, survivors=0, unused=True)
    vacant = a.prove_fenced(a.revoke(granted, 2), unused, handover_to=None)
    assert (vacant.epoch, vacant.data_epoch, vacant.handover_lsn) == (2, 1, 100)
    east, west = Side("east", "e1", 1, 100), Side("west", "w1", 1, 99)
    assert recipient(vacant, [west, east], "west") == east
    again = a.grant(vacant, Holder("west", "w1"))
    with pytest.raises(AuthorityRefused, match="the hand-over asks for"):
        a.may_promote(again, Holder("west", "w1"), 3, 99)
    used = replace(unused, unused=False)
    assert a.prove_fenced(a.revoke(granted, 2), used).data_epoch == 2


def test_a_vacant_right_goes_to_the_wanted_side_when_its_data_is_of_the_last_epoch() -> None:
    vacant = a.prove_fenced(REVOKED, LeaseWaited(1, 5, 0.05))
    assert vacant.data_epoch == 1
    east, west = Side("east", "e2", 1, 100), Side("west", "w1", 1, 90)
    assert recipient(vacant, [east, west], "west") == west
    assert recipient(vacant, [east, replace(west, data_epoch=0)], "west") == east
    assert recipient(vacant, [], "west") is None
