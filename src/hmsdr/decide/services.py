"""When critical services count as unavailable (FA-1): as many of them at once as the playbook says, each confirmed. Pure.

Each service is weighed by itself (`hmsdr.decide.testimony`), so that one site's lost pharmacy and another's lost laboratory do
not add up to an outage that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hmsdr.decide.testimony import Finding, Verdict


@dataclass(frozen=True, slots=True)
class ServicesFinding:
    """The finding on all critical services together, and which of them are confirmed lost."""

    finding: Finding
    lost: tuple[str, ...] = ()


def together(findings: Mapping[str, Finding], threshold: int) -> ServicesFinding:
    """What the findings on each critical service say together; `threshold` of them lost at once is an outage.

    Below it, a service on which the sites disagree is a disagreement: a person must look.
    """
    lost = tuple(sorted(name for name, each in findings.items() if each.verdict is Verdict.CONFIRMED))
    verdicts = {each.verdict for each in findings.values()}
    if lost and len(lost) >= threshold:
        verdict = Verdict.CONFIRMED
    elif Verdict.DISAGREEMENT in verdicts:
        verdict = Verdict.DISAGREEMENT
    elif lost or Verdict.WAITING in verdicts:
        verdict = Verdict.WAITING
    else:
        verdict = Verdict.WELL
    weighed = [findings[name] for name in lost] or list(findings.values())
    return ServicesFinding(
        Finding(
            verdict,
            _sites(each.lost for each in weighed),
            _sites(each.reach for each in weighed),
            _sites(each.silent for each in weighed),
        ),
        lost,
    )


def _sites(named: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({site for sites in named for site in sites}))
