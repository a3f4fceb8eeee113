"""What a peer may promise a holder that cannot reach the store (SAFETY rule 7). Pure.

A promise is not to accept a grant before a deadline; it is on disk before it is given, so that losing the store alone
does not stop the hospital. It is given only where nobody else could say no: without a quorum of the peer's own, and
without having seen that the right is being taken away. Times are the peer's boot-time seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmsdr.decide.authority import Authority, Phase


@dataclass(frozen=True, slots=True)
class Promise:
    """Not to accept a grant before ``until``, so that the holder of ``epoch`` may go on.

    ``boot`` names the peer's clock, on which ``until`` counts; ``seconds`` is what the holder may make of it, on its own.
    """

    epoch: int
    until: float
    boot: str
    seconds: float


class PromiseRefused(Exception):  # noqa: N818 - a refusal is an answer of the protocol, not a fault
    """No promise; the text says why."""


def give(
    epoch: int,
    holder: str,
    known: Authority | None,
    *,
    quorum: bool,
    accepted_epoch: int,
    now: float,
    boot: str,
    seconds: float,
    drift_margin: float,
) -> Promise:
    """Promise `seconds` to `holder`, which writes under `epoch`.

    Args:
        epoch: the epoch that the holder writes under.
        holder: its instance.
        known: the authority record as this peer saw it last.
        quorum: whether the store answered this peer just now: then it relays instead.
        accepted_epoch: the newest epoch that was accepted here.
        now: boot-time seconds of this peer.
        boot: name of this boot of the peer's machine.
        seconds: what the holder asks for, one lease.
        drift_margin: largest difference of clock rates, as a fraction.

    Raises:
        PromiseRefused: the holder must stop at its deadline.
    """
    if quorum:
        raise PromiseRefused("the store answers here: ask it, through this peer")
    if accepted_epoch > epoch:
        raise PromiseRefused(f"epoch {accepted_epoch} was accepted here, after {epoch}")
    if known is not None:
        if known.epoch > epoch:
            raise PromiseRefused(f"epoch {known.epoch} was granted since {epoch}")
        if known.epoch == epoch and known.phase is not Phase.HELD:
            raise PromiseRefused(f"the right to write is {known.phase}: it is being taken away")
        if known.epoch == epoch and known.holder is not None and known.holder.instance != holder:
            raise PromiseRefused(f"{known.holder.instance} holds epoch {epoch}, not {holder}")
    return Promise(epoch, now + seconds * (1 + drift_margin), boot, seconds)


def bound_until(promise: Promise | None, *, boot: str, started: float, drift_margin: float) -> float:
    """Before when no grant may be accepted here, in seconds of this boot's clock.

    A promise of an earlier boot was counted on a clock that is gone: the whole length is waited again, from `started`, when
    this life began.
    """
    if promise is None:
        return 0.0
    if promise.boot == boot:
        return promise.until
    return started + promise.seconds * (1 + drift_margin)
