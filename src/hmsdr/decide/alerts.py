"""Which alerts are due: one when a condition begins, one when it has ended, whoever leads and however often. Pure.

An alert is open from when its beginning was recorded until its end was. Who follows in the lead knows the same record, so that nothing
is said twice and nothing forgotten. What is not known neither begins nor ends anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Condition:
    """What may be the matter.

    ``key`` names it for good (``damage/us-east-1``); ``holds`` is None when nobody knows; ``after`` is how long it must hold to be
    worth an alert, in seconds; ``remedy`` says what to do.
    """

    key: str
    holds: bool | None
    text: str = ""
    remedy: str = ""
    after: float = 0.0


class Moment(StrEnum):
    """What people are told of."""

    BEGAN = "began"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert by the record: ``number`` is the event of its beginning, ``settled`` of which moments somebody was told, or not in time."""

    key: str
    number: int
    text: str
    remedy: str = ""
    ended: bool = False
    settled: frozenset[Moment] = frozenset()

    @property
    def due(self) -> Moment | None:
        """Of what people must be told next."""
        if Moment.BEGAN not in self.settled:
            return Moment.BEGAN
        return Moment.ENDED if self.ended and Moment.ENDED not in self.settled else None


@dataclass(frozen=True, slots=True)
class Ledger:
    """The record as far as it was read: alerts by number, those that are over and told of left out."""

    seq: int = 0
    alerts: Mapping[int, Alert] = field(default_factory=dict)

    def open(self) -> dict[str, Alert]:
        """Those that have not ended, by key."""
        return {alert.key: alert for alert in self.alerts.values() if not alert.ended}

    def untold(self) -> list[tuple[Alert, Moment]]:
        """Of what people must be told, in order."""
        return [(each, each.due) for each in self.alerts.values() if each.due is not None]

    def began(self, seq: int, alert: Alert) -> Ledger:
        """The record with a beginning more; one that is open already goes on."""
        if alert.key in self.open():
            return self.read(seq)
        return Ledger(seq, {**self.alerts, alert.number: alert})

    def ended(self, seq: int, key: str) -> Ledger:
        """The record with an end more."""
        alert = self.open().get(key)
        return self.read(seq) if alert is None else self._with(seq, replace(alert, ended=True))

    def settle(self, seq: int, number: int, moment: Moment) -> Ledger:
        """The record with somebody told, or not to be told any more."""
        alert = self.alerts.get(number)
        if alert is None:
            return self.read(seq)
        return self._with(seq, replace(alert, settled=alert.settled | {moment}))

    def read(self, seq: int) -> Ledger:
        """The record up to `seq`, of which the last event said nothing."""
        return replace(self, seq=seq)

    def _with(self, seq: int, alert: Alert) -> Ledger:
        kept = {number: each for number, each in self.alerts.items() if number != alert.number}
        if not alert.ended or alert.due is not None:
            kept[alert.number] = alert
        return Ledger(seq, dict(sorted(kept.items())))


@dataclass(frozen=True, slots=True)
class Clocks:
    """Since when each condition holds, and since when each that is open does not, on one process's clock."""

    holds: Mapping[str, float] = field(default_factory=dict)
    gone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be recorded now."""

    begin: tuple[Condition, ...]
    end: tuple[str, ...]


def weigh(
    clocks: Clocks, opened: Collection[str], conditions: Iterable[Condition], now: float, clear: float
) -> tuple[Clocks, Due]:
    """What begins and what ends.

    Args:
        clocks: as left the last time.
        opened: keys of the alerts that are open.
        conditions: all that are looked at; an open alert of which none speaks any more is over.
        now: this process's clock, in seconds.
        clear: for how long a condition must be gone before its alert is over, in seconds.
    """
    found = {each.key: each for each in conditions}
    holding = {
        key: clocks.holds.get(key, now)
        for key, each in found.items()
        if each.holds or (each.holds is None and key in clocks.holds)
    }
    gone = {
        key: clocks.gone.get(key, now)
        for key in opened
        if (each := found.get(key)) is None or each.holds is False
    }
    begin = tuple(
        each
        for key, each in found.items()
        if each.holds and key not in opened and now - holding[key] >= each.after
    )
    end = tuple(sorted(key for key, since in gone.items() if now - since >= clear))
    return Clocks(holding, gone), Due(begin, end)
