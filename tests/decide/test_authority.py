"""The write authority: every transition, interrupted everywhere, never lets two databases hold the right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmsdr.decide import authority as a
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, LeaseWaited, Phase, Receipt
from hmsdr.decide.lsn import format_lsn, parse_lsn

EAST, WEST = Holder("east", "e1"), Holder("west", "w1")
DRIFT = 0.05


def held() -> Authority:
    return a.grant(a.initial(4), EAST)


def receipt(**change: object) -> Receipt:
    values: dict[str, object] = {
        "instance": "east",
        "incarnation": "e1",
        "epoch": 1,
        "last_lsn": 100,
        "clean": True,
        "survivors": 0,
    }
    return Receipt(**{**values, **change})  # type: ignore[arg-type]


def test_failover_by_waiting() -> None:
    revoked = a.revoke(held(), 1)
    with pytest.raises(AuthorityRefused, match="were waited"):
        a.prove_fenced(revoked, LeaseWaited(1, 4.19, DRIFT))
    vacant = a.prove_fenced(revoked, LeaseWaited(1, 4.2, DRIFT))
    assert a.grant(vacant, WEST).epoch == 2


def test_hand_over_binds_the_next_holder_to_the_last_lsn() -> None:
    handing = a.prove_fenced(a.revoke(held(), 1), receipt(), handover_to="west")
    with pytest.raises(AuthorityRefused, match="not to north"):
        a.grant(handing, Holder("north", "n1"))
    given_ = a.grant(handing, WEST)
    with pytest.raises(AuthorityRefused, match="0/63"):
        a.may_promote(given_, WEST, 2, 99)
    a.may_promote(given_, WEST, 2, 100)
    assert a.grant(handing, Holder("east", "e2")).epoch == 2  # or back to the giver, under a fresh epoch


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"survivors": 1}, "still alive"),
        ({"epoch": 0}, "epoch 0"),
        ({"instance": "west"}, "receipt is of west"),
    ],
)
def test_a_receipt_that_proves_nothing_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(AuthorityRefused, match=reason):
        a.prove_fenced(a.revoke(held(), 1), receipt(**change))


@pytest.mark.parametrize("change", [{"clean": False}, {"last_lsn": None}])
def test_a_hand_over_needs_a_clean_end(change: dict[str, object]) -> None:
    with pytest.raises(AuthorityRefused, match="clean shutdown"):
        a.prove_fenced(a.revoke(held(), 1), receipt(**change), handover_to="west")


def test_nothing_is_renewed_adopted_or_granted_while_it_is_being_revoked() -> None:
    revoked = a.revoke(held(), 1)
    for attempt in (
        lambda: a.renew(revoked, EAST),
        lambda: a.adopt(revoked, Holder("east", "e2")),
        lambda: a.grant(revoked, WEST),
    ):
        with pytest.raises(AuthorityRefused, match="revoking"):
            attempt()


def test_a_plan_for_an_older_epoch_revokes_nothing() -> None:
    with pytest.raises(AuthorityRefused, match="plan was made for epoch 0"):
        a.revoke(held(), 0)


def test_only_the_same_instance_is_adopted() -> None:
    assert a.adopt(held(), Holder("east", "e2")).epoch == 1
    with pytest.raises(AuthorityRefused, match="east/e1 holds"):
        a.adopt(held(), WEST)
    with pytest.raises(AuthorityRefused, match="holds epoch"):
        a.renew(a.adopt(held(), Holder("east", "e2")), EAST)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_lsn_text_and_back(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["renew", "adopt", "revoke", "receipt", "wait", "handover", "grant"]),
        st.sampled_from(["east", "west"]),
        st.integers(0, 3),
        st.floats(0, 10),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(_MOVES)
def test_epochs_only_grow_by_one_and_only_from_a_free_right(
    moves: list[tuple[str, str, int, float, bool]],
) -> None:
    record = a.initial(4)
    for move, name, epoch, seconds, flag in moves:
        before = record
        who = Holder(name, f"{name}-{epoch}")
        try:
            match move:
                case "renew":
                    record = a.renew(record, who)
                case "adopt":
                    record = a.adopt(record, who)
                case "revoke":
                    record = a.revoke(record, epoch)
                case "receipt":
                    record = a.prove_fenced(
                        record, Receipt(name, who.incarnation, epoch, 5, flag, int(seconds) % 2)
                    )
                case "wait":
                    record = a.prove_fenced(record, LeaseWaited(epoch, seconds, DRIFT))
                case "handover":
                    proof = Receipt(name, who.incarnation, epoch, 5, flag, 0)
                    record = a.prove_fenced(record, proof, handover_to="west")
                case _:
                    record = a.grant(record, who)
        except AuthorityRefused:
            assert record == before
            continue
        if record.epoch != before.epoch:
            assert record.epoch == before.epoch + 1
            assert before.phase in (Phase.VACANT, Phase.HANDING_OVER)
        elif before.holder and record.holder:
            assert before.holder.instance == record.holder.instance
        if before.phase is Phase.HELD and record.holder is None:
            pytest.fail("a held right became free without being revoked first")
