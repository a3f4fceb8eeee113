"""The old side becomes a standby of the new one, through its agent: it never comes up writable, and loses no row unsaid (DB-1)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key
from hmsdr.runbook.actions.database import psql


class FollowArgs(Model):
    """`region` follows `primary` as a standby under `epoch`; the last two are a person's word that it may lose what is not known."""

    region: RegionName
    primary: RegionName
    epoch: int
    accepted_by: str = ""
    accepted_because: str = ""

    @model_validator(mode="after")
    def _a_whole_word(self) -> Self:
        if bool(self.accepted_by.strip()) != bool(self.accepted_because.strip()):
            raise ValueError("accepting that not every lost row is known takes a named person and a reason")
        return self


class FollowPrimary(Action[FollowArgs]):
    """Make the old side a standby of the new one; it never comes up writable."""

    name: ClassVar[str] = "postgres.follow"
    summary: ClassVar[str] = "follow the new primary as a standby"
    Args = FollowArgs

    async def check(self, context: StepContext, args: FollowArgs) -> Check:
        """Is it streaming?"""
        status = await context.systems.agent(args.region).status(deadline=context.remaining(at_most=3))
        return Check(
            status.database.state == "standby" and status.replication.streaming,
            {"state": status.database.state, "streaming": status.replication.streaming},
            f"streaming from {args.primary}",
        )

    async def act(self, context: StepContext, args: FollowArgs) -> Mapping[str, Any]:
        """Make the slot, then start as a standby through it."""
        systems, regions = context.systems, context.systems.playbook.regions
        slot = regions[args.region].postgres.slot
        made = await systems.postgres(args.primary).create_physical_slot(
            slot, deadline=context.remaining(at_most=5)
        )
        primary = regions[args.primary].postgres
        answer = await systems.agent(args.region).follow(
            epoch=args.epoch,
            primary_host=primary.host,
            primary_port=primary.port,
            slot=slot,
            deadline=context.remaining(),
            without_lost_rows=(args.accepted_by, args.accepted_because) if args.accepted_by.strip() else None,
        )
        return {"slot": slot, "slot_made": made, "rewound": answer.rewound, "lost": answer.lost}

    def later(self, args: FollowArgs) -> str:
        """The shipped runbook for just this."""
        return f"hmsdr follow {args.region}"

    def manual(self, playbook: Playbook, args: FollowArgs) -> Manual:
        """By hand."""
        region, primary = playbook.regions[args.region], playbook.regions[args.primary].postgres
        slot = region.postgres.slot
        word = {"without_lost_rows": {"by": args.accepted_by, "reason": args.accepted_because}}
        order = {
            "epoch": args.epoch,
            "primary_host": primary.host,
            "primary_port": primary.port,
            "slot": slot,
            **(word if args.accepted_by.strip() else {}),
        }
        return Manual(
            commands=(
                f"{psql(primary)} -c \"SELECT * FROM pg_create_physical_replication_slot('{slot}')\"",
                f'curl -fsS -X POST {region.agent.url}/v1/follow -H "Authorization: Bearer {agent_key(args.region)}" '
                f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(order))}",
                f"{psql(primary)} -c 'SELECT application_name, state, replay_lsn FROM pg_stat_replication'",
            ),
            expected="one row, state streaming",
            troubleshooting=(
                "The slot exists already: that is fine, go on.",
                "Refused, not all rows are known: what it committed alone would be gone. docs/agent.md, 'What was lost'.",
                "It does not stream and logs 'requested timeline is not a child': it diverged; recover the region.",
            ),
        )
