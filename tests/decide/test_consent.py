"""The playbook's policy for each cause: at once, or proposed and stoppable. A veto stops all."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hmsdr.decide.consent import Consent, Heard, consent, policy
from hmsdr.decide.leading import Cause
from hmsdr.playbook.thresholds import Automation

_FIELDS = {
    Cause.REGION: "region_unreachable",
    Cause.SERVICES: "critical_services_unavailable",
    Cause.CORRUPTION: "database_corruption",
}
NOTHING = Heard(vetoed=False, proposed_at=None)


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("cause", list(Cause))
def test_each_cause_has_both_policies(cause: Cause) -> None:
    automatic = Automation(**{_FIELDS[cause]: "automatic"})  # type: ignore[arg-type]
    assert consent(automatic, cause, NOTHING, 100) is Consent.GO
    propose = Automation(veto=timedelta(seconds=60), **{_FIELDS[cause]: "propose"})  # type: ignore[arg-type]
    assert policy(propose, cause) == "propose"
    assert consent(propose, cause, NOTHING, 100) is Consent.PROPOSE
    assert consent(propose, cause, Heard(vetoed=False, proposed_at=100), 159) is Consent.WAIT
    assert consent(propose, cause, Heard(vetoed=False, proposed_at=100), 160) is Consent.GO


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("proposed_at", [None, 0.0])
@pytest.mark.parametrize("choice", ["automatic", "propose"])
def test_a_veto_stops_every_cause(cause: Cause, proposed_at: float | None, choice: str) -> None:
    automation = Automation(**{_FIELDS[cause]: choice})  # type: ignore[arg-type]
    assert consent(automation, cause, Heard(vetoed=True, proposed_at=proposed_at), 1000) is Consent.STOPPED


@pytest.mark.req("FA-1")
def test_what_the_playbook_says_when_it_says_nothing() -> None:
    """The region and its services are failed over by themselves; damaged data is looked at first."""
    assert [policy(Automation(), cause) for cause in Cause] == ["automatic", "automatic", "propose"]
