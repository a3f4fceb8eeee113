"""Rule 7: a promise is refused wherever somebody could have taken the right away, and outlives a reboot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hmsdr.decide import authority as a
from hmsdr.decide.authority import Authority, Holder
from hmsdr.decide.promise import Promise, PromiseRefused, bound_until, give

HELD = a.grant(a.initial(10), Holder("east", "e1"))


def asked(known: Authority | None = HELD, *, quorum: bool = False, accepted_epoch: int = 0) -> Promise:
    return give(
        1,
        "east",
        known,
        quorum=quorum,
        accepted_epoch=accepted_epoch,
        now=50,
        boot="b1",
        seconds=10,
        drift_margin=0.05,
    )


@pytest.mark.req("FA-4")
def test_a_promise_lasts_longer_than_what_the_holder_makes_of_it() -> None:
    assert asked() == Promise(1, 60.5, "b1", 10)
    assert asked(None) == Promise(1, 60.5, "b1", 10)


@pytest.mark.req("FA-4")
@pytest.mark.parametrize(
    ("known", "other", "why"),
    [
        (HELD, {"quorum": True}, "the store answers here"),
        (HELD, {"accepted_epoch": 2}, "epoch 2 was accepted"),
        (a.revoke(HELD, 1), {}, "being taken away"),
        (replace(HELD, epoch=2), {}, "epoch 2 was granted since"),
        (replace(HELD, holder=Holder("west", "w1")), {}, "west holds epoch 1"),
    ],
)
def test_a_promise_is_refused_where_somebody_could_say_no(
    known: Authority, other: dict[str, int], why: str
) -> None:
    with pytest.raises(PromiseRefused, match=why):
        asked(known, **other)  # type: ignore[arg-type]


def test_a_promise_binds_until_its_end_and_after_a_reboot_for_its_whole_length_again() -> None:
    given = asked()
    assert bound_until(given, boot="b1", started=0, drift_margin=0.05) == 60.5
    assert bound_until(given, boot="b2", started=3, drift_margin=0.05) == pytest.approx(13.5)
    assert bound_until(None, boot="b2", started=3, drift_margin=0.05) == 0
