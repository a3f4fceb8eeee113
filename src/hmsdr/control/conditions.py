"""What may be the matter, as the controller that leads sees it, for `hmsdr.decide.alerts`. It looks at what is known; it asks nobody.

Each condition has a name for good, so that whoever leads next knows it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hmsdr.control.chronicle import VETOED, Chronicle
from hmsdr.control.facets import Answer
from hmsdr.control.leader import Leader
from hmsdr.control.observer import Observer, damage_heard, testimonies
from hmsdr.control.view import Known
from hmsdr.control.watch import fresh
from hmsdr.control.weighing import Heard, health_of, region_of
from hmsdr.decide.alerts import Condition
from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.leading import Cause, Stay, Why
from hmsdr.decide.outage import Sight
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook

_UNHEARD = frozenset({Answer.HALF_OPEN, Answer.REFUSED, Answer.SILENT})
_LOOK_FROM_THERE = "Look from where it is said to be reached; `hmsdr declare disaster` if it is lost"
_WHAT_TO_DO: Mapping[Why, str] = {
    Why.DISAGREEMENT: _LOOK_FROM_THERE,
    Why.WAITING: "Bring the missing site's controller back, or decide: `hmsdr failover`, `hmsdr declare disaster`",
    Why.COOLING_DOWN: "A person decides: `hmsdr failover`, `hmsdr declare disaster`",
    Why.TARGET_NOT_READY: "Mend the standby's stream first: `hmsdr health-check`",
    Why.TARGET_DAMAGED: "`hmsdr damage show REGION`, and docs/agent.md, 'Damage'",
    Why.TARGET_UNSERVING: "Mend the services: leaving would mend nothing",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What one round knows: the record, everybody's last words, what this site sees and folds; ``now`` is its boot-time clock."""

    playbook: Playbook
    record: Authority
    heard: Mapping[str, Heard]
    known: Mapping[tuple[str, str], Known]
    observer: Observer
    chronicle: Chronicle
    leader: Leader
    now: float

    @property
    def active(self) -> str | None:
        """The region whose database holds the right to write."""
        return region_of(self.playbook, self.record)

    @property
    def patience(self) -> float:
        """How long what may pass is waited for, in seconds."""
        return self.playbook.thresholds.verification.deadline.total_seconds()


def conditions(facts: Facts) -> list[Condition]:
    """Everything that is looked at."""
    return [
        *_failover(facts),
        *_sites(facts),
        *_agents(facts),
        *_damage(facts),
        *_standby(facts),
        *_backup(facts),
    ]


def _failover(facts: Facts) -> Iterator[Condition]:
    active = facts.active
    free = facts.record.phase is not Phase.HELD
    yield Condition(
        "right-to-write",
        free,
        f"No region may write: epoch {facts.record.epoch} is {facts.record.phase}",
        "`hmsdr run list` shows what is being done about it, `hmsdr authority show` the record",
        facts.patience,
    )
    blocked = facts.leader.blocked
    yield Condition(
        "failover-blocked",
        bool(blocked),
        f"A failover was decided and is not carried out: {blocked}",
        "`hmsdr run list`; it is tried again",
    )
    if active is None:
        return
    stay = facts.leader.held_back
    for cause in Cause:
        yield _held(facts, active, cause, stay)
        proposed = facts.chronicle.proposed(active, facts.record.epoch, cause)
        vetoed = facts.chronicle.noted(VETOED, active, facts.record.epoch)
        veto = format_duration(facts.playbook.thresholds.automation.veto)
        yield Condition(
            f"failover-proposed/{active}/{cause}",
            proposed is not None and vetoed is None,
            f"Leaving {active} is proposed ({cause}), and carried out after {veto} unless somebody stops it",
            f"`hmsdr run list` says why; `hmsdr veto {active} --reason TEXT --by NAME` stops it",
        )


def _held(facts: Facts, active: str, cause: Cause, stay: Stay | None) -> Condition:
    key = f"failover-held/{active}/{cause}"
    if stay is None or stay.cause is not cause:
        return Condition(key, False)
    at_once = stay.why in (Why.DISAGREEMENT, Why.COOLING_DOWN)
    return Condition(
        key,
        True,
        f"{cause} speaks for leaving {active}, and nothing is done: {stay.why}",
        _WHAT_TO_DO.get(stay.why, "`hmsdr health-check`"),
        0.0 if at_once else facts.patience,
    )


def _sites(facts: Facts) -> Iterator[Condition]:
    limit = fresh(facts.playbook)
    for site in facts.playbook.sites():
        said = facts.heard.get(site)
        silent = said is None or facts.now - said.at > limit
        yield Condition(
            f"site-silent/{site}",
            silent,
            f"Nothing is heard of the controller at {site}: there is one vantage point, and one vote, less",
            f"Look at hmsdr-controller there, and at the way from there to etcd: {_readyz(facts.playbook, site)}",
            facts.patience,
        )
        blind = (
            None
            if said is None or silent
            else any(each.sight is Sight.BLIND for each in testimonies(site, said.word, said.at))
        )
        yield Condition(
            f"site-blind/{site}",
            blind,
            f"The controller at {site} sees neither a region nor anything else: what it says does not count",
            f"Look at the network of {site}",
            facts.patience,
        )


def _readyz(playbook: Playbook, site: str) -> str:
    controller = playbook.controller(site)
    return "its log" if controller is None else f"{controller.url}/readyz"


def _agents(facts: Facts) -> Iterator[Condition]:
    for region in facts.playbook.regions:
        known = facts.known.get((region, "agent"))
        yield Condition(
            f"agent-silent/{region}",
            None if known is None else known.seen.answer in _UNHEARD,
            f"The agent of {region} is not heard: {'' if known is None else known.seen.words}",
            f"Look at hmsdr-agent in {region}; if that region writes, its right runs out with the lease",
            facts.patience,
        )


def _damage(facts: Facts) -> Iterator[Condition]:
    limit = fresh(facts.playbook)
    for region in facts.playbook.regions:
        told = [
            seen
            for site, said in facts.heard.items()
            if facts.now - said.at <= limit
            for seen in damage_heard(site, said.word, region).values()
            if seen is not None
        ]
        health = health_of(facts.observer, region)
        signs = (
            ""
            if health is None
            else ", ".join(sorted({f"{each.kind} in {each.where}" for each in health.signs}))
        )
        yield Condition(
            f"damage/{region}",
            any(told) if told else None,
            f"The database of {region} shows damage{': ' if signs else ''}{signs}",
            f"`hmsdr damage show {region}`; it is never promoted meanwhile",
        )


def _standby(facts: Facts) -> Iterator[Condition]:
    if facts.active is None:
        return
    standby = facts.playbook.other_region(facts.active)
    told = facts.observer.told(standby)
    status = None if told is None or facts.now - told[0] > fresh(facts.playbook) else told[1]
    follows = status is not None and status.database.state == "standby" and status.replication.streaming
    yield Condition(
        f"standby-apart/{standby}",
        None if status is None else not follows,
        f"The database of {standby} does not follow that of {facts.active}: a failover would lose what is written now",
        f"`hmsdr health-check`; `hmsdr follow {standby}`",
        facts.patience,
    )


def _backup(facts: Facts) -> Iterator[Condition]:
    if facts.active is None:
        return
    known = facts.known.get((facts.active, "backup"))
    answered = known is not None and known.seen.answer in (Answer.WELL, Answer.SLOW, Answer.WRONG)
    yield Condition(
        f"backup-stale/{facts.active}",
        known.seen.answer is Answer.WRONG if known is not None and answered else None,
        f"The newest backup of {facts.active} is too old, or cannot be seen: {'' if known is None else known.seen.words}",
        "Look at the backup job, and at the bucket",
    )
