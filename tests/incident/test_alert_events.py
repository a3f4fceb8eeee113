"""The events of the controllers' alerts are named in two rooms that may not import one another: here they are compared."""

from __future__ import annotations

from hmsdr.control import alarms
from hmsdr.decide import signals


def test_an_incident_listens_to_what_controllers_say() -> None:
    assert (signals.ALERT_BEGAN, signals.ALERT_ENDED) == (alarms.BEGAN, alarms.ENDED)
