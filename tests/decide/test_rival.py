"""An agent takes over from an earlier life of itself, and from nobody who is alive elsewhere under its name."""

from __future__ import annotations

import pytest

from hmsdr.decide.authority import Authority, Holder, Phase
from hmsdr.decide.rival import Rival, watch

US, OTHER = Holder("east", "us"), Holder("east", "other")
LEASE = 4.0


def record(holder: Holder | None = OTHER, renewal: int = 1, phase: Phase = Phase.HELD) -> Authority:
    return Authority(epoch=3, holder=holder, phase=phase, lease_seconds=LEASE, renewal=renewal)


def test_what_is_still_for_half_a_lease_is_an_earlier_life() -> None:
    seen = Rival()
    for tenth in range(30):
        now = tenth / 10
        seen = watch(seen, record(), US, now, knows=lambda _: False)
        assert seen.gone(now, LEASE) == (now >= LEASE / 2)
        assert not seen.alive


def test_one_renewal_that_was_on_its_way_is_no_sign_of_life_and_two_are() -> None:
    seen = watch(Rival(), record(renewal=1), US, 0.0, knows=lambda _: False)
    seen = watch(seen, record(renewal=2), US, 0.1, knows=lambda _: False)
    assert not seen.alive
    assert not seen.gone(2.0, LEASE)
    assert seen.gone(2.1, LEASE)
    seen = watch(seen, record(renewal=3), US, 1.1, knows=lambda _: False)
    assert seen.alive
    assert not seen.gone(1.2, LEASE)


@pytest.mark.parametrize(
    "found",
    [record(US), record(Holder("west", "w")), record(None, phase=Phase.VACANT), record(phase=Phase.REVOKING)],
)
def test_nobody_is_a_rival_who_is_us_or_another_instance_or_holds_nothing(found: Authority) -> None:
    assert watch(Rival(), found, US, 0.0, knows=lambda _: False) == Rival()


def test_an_epoch_that_was_accepted_here_is_taken_over_at_once() -> None:
    assert watch(Rival(), record(), US, 0.0, knows=lambda epoch: epoch == 3) == Rival()
