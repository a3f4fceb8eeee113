"""Plans that begin in the middle: the right to write was granted already, or goes back to who handed it over. They change nothing."""

from __future__ import annotations

from collections.abc import Callable

from hmsdr.decide.authority import Authority, Phase
from hmsdr.errors import RefusedError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.observe import mode_of, rest_mode_of, sent_to
from hmsdr.runbook.plan import Mode, Plan
from hmsdr.runbook.systems import Systems

_PROBE_SECONDS = 3.0
FOLLOW = "postgres.follow"
"""The action that makes a database a standby."""


async def rest(
    systems: Systems,
    runbook: str,
    record: Authority,
    source: str,
    target: str,
    frozen: Callable[[Mode, int], Plan],
) -> Plan:
    """The plan when `target` holds the right already: that of the epoch before the grant, whose first steps hold.

    A failover ended between its grant and the promotion, or the database went alone and now users are to follow it.

    Raises:
        RefusedError: it writes, and users are not sent to `source`: there is no rest.
    """
    status = await systems.postgres(target).status(deadline=_PROBE_SECONDS)
    users = await sent_to(systems)
    if status.in_recovery is not True and source not in users:
        unknown = "" if users else ", and Route 53 does not tell where users are sent"
        raise RefusedError(
            f"planning {runbook} from {source} to {target}",
            f"{target} holds the right to write already (epoch {record.epoch}){unknown}",
            "Look at `hmsdr authority show`; did you mean the other direction?"
            if users
            else "Try again when Route 53 answers",
        )
    writes = status.reachable and status.in_recovery is False
    mode = await (rest_mode_of if writes else mode_of)(systems, source)
    return frozen(mode, record.epoch - 1).model_copy(update={"granted": True})


def handed_back(
    playbook: Playbook, record: Authority, target: str, frozen: Callable[[Mode, int], Plan]
) -> Plan:
    """The plan that gives the right back to `target`. No gate is judged: it handed over in order, and has everything.

    Raises:
        RefusedError: it handed nothing over: whoever grants then has to take the right away first.
    """
    instance = playbook.regions[target].postgres.instance
    if record.phase is Phase.HANDING_OVER and record.handover_from == instance:
        return frozen("unplanned", record.epoch)
    if record.phase is Phase.HELD and record.holder is not None and record.holder.instance == instance:
        return frozen("unplanned", record.epoch - 1).model_copy(update={"granted": True})
    raise RefusedError(
        f"giving the right to write back to {target}",
        f"it is {str(record.phase).replace('_', ' ')} under epoch {record.epoch}, and {target} is not handing it over",
        "Look at `hmsdr authority show`; to move it, run `hmsdr failover`",
    )


def refuse_following_as_holder(plan: Plan, playbook: Playbook, record: Authority) -> None:
    """A database that holds the right to write is nobody's standby.

    Raises:
        RefusedError: the plan, which moves no right, would make it one.
    """
    for step in plan.steps():
        region = step.arguments.get("region")
        if step.action != FOLLOW or region not in playbook.regions or record.holder is None:
            continue
        if playbook.regions[region].postgres.instance == record.holder.instance:
            other = playbook.other_region(region)
            raise RefusedError(
                f"making {region} follow {other}",
                f"{region} holds the right to write (epoch {record.epoch})",
                f"Did you mean `hmsdr follow {other}`? To move the right, run `hmsdr failover {region} {other}`",
            )
