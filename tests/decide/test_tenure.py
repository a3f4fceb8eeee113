"""The holder's side: a deadline only ever follows from a clear answer, and what ends the right ends the database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hmsdr.decide import authority as a
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder
from hmsdr.decide.tenure import (
    Delivery,
    Standing,
    Tenure,
    asks,
    delivery,
    may_start_writable,
    promised,
    renewed,
    standing,
)

EAST, WEST = Holder("east", "e1"), Holder("west", "w1")
HELD = a.grant(a.initial(10), EAST)


def tenure(now: float = 100) -> Tenure:
    return renewed(Tenure(EAST, 0.05), HELD, now)


def seen(state: Tenure, record: Authority) -> Tenure:
    return replace(state, record=record)


@pytest.mark.req("FA-4")
def test_the_deadline_counts_from_before_the_request_less_the_margin() -> None:
    assert tenure(100).deadline == pytest.approx(109.5)
    assert tenure(100).live(1, 109.4)
    assert not tenure(100).live(1, 109.5)
    assert not tenure(100).live(2, 101)


def test_an_answer_that_arrives_out_of_order_takes_nothing_away() -> None:
    later = renewed(tenure(105), HELD, 100)
    assert later.deadline == pytest.approx(114.5)


def test_an_epoch_that_was_fenced_here_is_not_asked_for_again() -> None:
    with pytest.raises(AuthorityRefused, match="fenced here under epoch 1"):
        asks(tenure(), HELD, fenced_epoch=1)
    assert asks(tenure(), HELD, fenced_epoch=0).renewal == HELD.renewal + 1


def test_a_new_life_adopts_what_its_instance_held_and_nothing_else() -> None:
    again = Tenure(Holder("east", "e2"), 0.05)
    assert asks(again, HELD, fenced_epoch=None).holder == Holder("east", "e2")
    with pytest.raises(AuthorityRefused):
        asks(Tenure(WEST, 0.05), HELD, fenced_epoch=None)


@pytest.mark.req("FA-4")
def test_standing_says_what_the_database_must_do() -> None:
    state = tenure(100)
    revoking = seen(state, a.revoke(HELD, 1))
    assert standing(state, 105, refused=False, published=109.5) is Standing.GO_ON
    assert standing(state, 110, refused=False, published=109.5) is Standing.EXPIRED
    assert standing(state, 105, refused=False, published=104) is Standing.EXPIRED, "the guard has killed it"
    assert standing(revoking, 105, refused=True, published=109.5) is Standing.STOP_CLEANLY
    assert standing(revoking, 110, refused=True, published=109.5) is Standing.STOP_NOW
    other = seen(state, replace(HELD, holder=WEST, epoch=2))
    assert standing(other, 105, refused=True, published=109.5) is Standing.STOP_NOW


def test_a_database_starts_writable_under_a_live_lease_of_its_own_epoch_only() -> None:
    state = tenure(100)
    assert may_start_writable(state, 105, promoted_epoch=1, fenced_epoch=None)
    assert not may_start_writable(state, 110, promoted_epoch=1, fenced_epoch=None)
    assert not may_start_writable(state, 105, promoted_epoch=0, fenced_epoch=None)
    assert not may_start_writable(state, 105, promoted_epoch=1, fenced_epoch=1)
    assert not may_start_writable(Tenure(EAST, 0.05), 105, promoted_epoch=1, fenced_epoch=None)


@pytest.mark.parametrize(
    ("epoch", "accepted", "promoted", "fenced", "kind"),
    [
        (2, 1, 1, None, Delivery.NEW),
        (2, 2, 1, None, Delivery.NEW),
        (2, 2, 2, None, Delivery.DONE_BEFORE),
        (1, 2, 2, None, Delivery.OLD),
        (2, 2, 2, 2, Delivery.FENCED),
        (2, 1, 1, 3, Delivery.FENCED),
        (3, 2, 2, 2, Delivery.NEW),
    ],
)
def test_an_order_to_promote_is_judged_by_what_is_on_disk(
    epoch: int, accepted: int, promoted: int, fenced: int | None, kind: Delivery
) -> None:
    found = delivery(epoch, accepted_epoch=accepted, promoted_epoch=promoted, fenced_epoch=fenced)
    assert found is kind


def test_a_promise_moves_the_deadline_of_its_epoch_only() -> None:
    state = tenure(100)
    assert promised(state, 1, 108, 10).deadline == pytest.approx(117.5)
    assert promised(state, 2, 108, 10) == state
    assert promised(Tenure(EAST, 0.05), 1, 108, 10).deadline is None
