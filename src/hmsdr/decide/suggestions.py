"""What fits an incident, from what is seen of it: mitigations, and the runbook with its parameters (IR-2, IR-3). Pure.

It proposes, and begins nothing: whether a runbook may start is for its gates. What nothing here fits has no suggestion, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hmsdr.decide.incident import Effect, Incident, Signal
from hmsdr.playbook.model import Playbook

FAILOVER, SERVICE = "regional-failover", "service-failover"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One way out. ``command`` shows or begins it; ``runbook`` has gates that can be judged beforehand, empty without one."""

    what: str
    why: str
    command: str
    runbook: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def suggest(incident: Incident, playbook: Playbook, active: str | None) -> tuple[Suggestion, ...]:
    """What fits what goes on, gravest first; nothing for an incident that is over, or whose signals have ended.

    Args:
        incident: as the log has it.
        playbook: with its regions.
        active: the region whose database holds the right to write; None when it is not known.
    """
    if not incident.active:
        return ()
    going = [each for each in incident.signals.values() if each.ended_at is None]
    found = [
        *_lost(going, playbook, active),
        *_damaged(going, playbook),
        *_unwritable(going),
        *_services(going, playbook, active),
    ]
    return tuple({each.command: each for each in reversed(found)}.values())[::-1]


def _lost(going: list[Signal], playbook: Playbook, active: str | None) -> Iterator[Suggestion]:
    lost = _regions(going, "lost", playbook)
    for region in lost:
        others = [name for name in playbook.regions if name not in lost]
        if not others:
            yield Suggestion(
                "Find out whether the regions are down, or only the way to them",
                f"every region counts as lost: {', '.join(lost)}",
                "hmsdr health-check",
            )
        elif active is None or active == region:
            target = others[0]
            yield Suggestion(
                f"Fail over from {region} to {target}",
                f"{region}, where users are, counts as lost",
                f"hmsdr failover {region} {target}",
                FAILOVER,
                {"from": region, "to": target},
            )
        else:
            yield Suggestion(
                f"Bring {region} back as the standby; {active} serves, so nobody is to be moved",
                f"{region} counts as lost, and the hospital runs in {active}",
                f"hmsdr plan recover {region}",
            )


def _damaged(going: list[Signal], playbook: Playbook) -> Iterator[Suggestion]:
    for region in _regions(going, "damaged", playbook):
        yield Suggestion(
            f"Map the damage in {region} before anything is moved: a standby may have copied it",
            f"the database of {region} shows damage",
            f"hmsdr plan corruption {region}",
        )


def _unwritable(going: list[Signal]) -> Iterator[Suggestion]:
    if any(each.effect == "unwritable" for each in going):
        yield Suggestion(
            "See who holds the right to write, and until when",
            "no database may write",
            "hmsdr authority show",
        )


def _services(going: list[Signal], playbook: Playbook, active: str | None) -> Iterator[Suggestion]:
    lost = _regions(going, "lost", playbook)
    effects: tuple[Effect, ...] = ("down", "degraded")
    for effect in effects:
        for each in going:
            if each.effect != effect:
                continue
            for service in each.services:
                places = [name for name in each.regions if name in playbook.regions] or [
                    active or playbook.home_region
                ]
                for region in places:
                    # A region that is lost as a whole is not mended service by service.
                    if service in playbook.services and region not in lost:
                        yield Suggestion(
                            f"Restore {playbook.services[service].title} in {region}",
                            f"it is {'down' if effect == 'down' else 'not as it should be'} there",
                            f"hmsdr run start {SERVICE} region={region} service={service}",
                            SERVICE,
                            {"region": region, "service": service},
                        )


def _regions(going: list[Signal], effect: Effect, playbook: Playbook) -> list[str]:
    """Regions of the playbook with that effect, in its order."""
    named = {name for each in going if each.effect == effect for name in each.regions}
    return [name for name in playbook.regions if name in named]
