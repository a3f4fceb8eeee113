"""Whether a hand-over that did not go forward goes back to the side that gave (SAFETY rule 9). Looks at what agents said; acts not."""

from __future__ import annotations

from collections.abc import Mapping

from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.takeover import Side, recipient
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.playbook.model import Playbook


def way_back(
    playbook: Playbook, record: Authority, told: Mapping[str, AgentStatus]
) -> tuple[str, str] | None:
    """The regions (from, to) of a way back; None when it can go forward, or neither side is known to have everything.

    Asked once a run has tried to go forward in vain. The side that gave has stopped for good reason and has everything: its
    receipt says so. The other one may be granted when it has replayed as much of the same history.

    Args:
        playbook: the hospital's.
        record: the right to write.
        told: what each region's agent said just now; who is silent is not in it.
    """
    if record.phase is not Phase.HANDING_OVER:
        return None
    regions = {region.postgres.instance: name for name, region in playbook.regions.items()}
    gave = regions.get(record.handover_from or "")
    if gave is None or gave not in told:
        return None
    sides = [_giver(record, told[gave])]
    sides += [_other(record, each, told[gave]) for name, each in told.items() if name != gave]
    chosen = recipient(record, sides, None)
    if chosen is None or chosen.instance != record.handover_from:
        return None
    return playbook.other_region(gave), gave


def _giver(record: Authority, told: AgentStatus) -> Side:
    """As its receipt says, which is what was handed over; without one it is not known what it has."""
    receipt = told.fence
    known = receipt is not None and receipt.clean and receipt.epoch == record.epoch
    lsn = receipt.last_lsn if receipt is not None and known else None
    return Side(
        told.instance, told.incarnation, record.data_epoch if known else -1, -1 if lsn is None else lsn
    )


def _other(record: Authority, told: AgentStatus, giver: AgentStatus) -> Side:
    timeline = giver.database.timeline
    same = told.database.timeline == timeline or timeline is None
    lsn = told.database.lsn
    return Side(
        told.instance, told.incarnation, record.data_epoch if same else -1, -1 if lsn is None else lsn
    )
