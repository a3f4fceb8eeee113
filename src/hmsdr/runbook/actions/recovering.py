"""A lost region's database comes back through its agent, by the path that was planned; its slot on the primary first (RC-2)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from hmsdr.decide.recovery import Path
from hmsdr.drivers.agent_answers import RecoveryAnswer
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.errors import RefusedError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key
from hmsdr.runbook.actions.database import psql
from hmsdr.runbook.actions.following import FollowArgs

_ASK_SECONDS = 10.0


class SlotArgs(Model):
    """The slot of `region`'s server on the primary of `primary`."""

    region: RegionName
    primary: RegionName


class SlotReady(Action[SlotArgs]):
    """The slot through which the region's server follows: from now on the primary keeps WAL for it."""

    name: ClassVar[str] = "postgres.slot"
    summary: ClassVar[str] = "have the slot for a standby on the primary"
    Args = SlotArgs

    async def check(self, context: StepContext, args: SlotArgs) -> Check:
        """Is it there, physical, with the WAL that it keeps?"""
        name = context.systems.playbook.regions[args.region].postgres.slot
        slots = await context.systems.postgres(args.primary).slots(
            deadline=context.remaining(at_most=_ASK_SECONDS)
        )
        found = next((slot for slot in slots if slot.name == name), None)
        if found is not None and found.kind != "physical":
            raise PermanentError(
                f"looking for slot {name} of {args.primary}",
                f"it is there and is a {found.kind} one",
                "Find out who made it; drop it, or name another in the playbook (regions.REGION.postgres.slot)",
            )
        usable = found is not None and found.restart_lsn is not None and found.wal_status != "lost"
        observed = {"slot": name, "wal_status": None if found is None else found.wal_status}
        return Check(usable, observed, f"slot {name}")

    async def act(self, context: StepContext, args: SlotArgs) -> Mapping[str, Any]:
        """Make it; one that has lost its WAL, and that nobody uses, is dropped first."""
        systems, name = context.systems, context.systems.playbook.regions[args.region].postgres.slot
        postgres = systems.postgres(args.primary)
        slots = await postgres.slots(deadline=context.remaining(at_most=_ASK_SECONDS))
        spoilt = next((slot for slot in slots if slot.name == name), None)
        if spoilt is not None:
            await postgres.drop_slot(name, deadline=context.remaining(at_most=_ASK_SECONDS))
        made = await postgres.create_physical_slot(name, deadline=context.remaining(at_most=_ASK_SECONDS))
        return {"slot": name, "made": made, "dropped": spoilt is not None}

    def manual(self, playbook: Playbook, args: SlotArgs) -> Manual:
        """The source's line."""
        slot = playbook.regions[args.region].postgres.slot
        line = psql(playbook.regions[args.primary].postgres)
        return Manual(
            (
                f"{line} -c \"SELECT slot_name, active, wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'\"",
                f"{line} -c \"SELECT * FROM pg_create_physical_replication_slot('{slot}', true)\"",
            ),
            "one row: the slot",
            (
                "It exists already: that is fine, unless wal_status is lost; then drop it (pg_drop_replication_slot) and make it.",
                "All replication slots are in use: drop what nobody uses, or raise max_replication_slots.",
            ),
        )


class RecoverArgs(FollowArgs):
    """`region` comes back behind `primary` by `path`; `backup` is the one to restore. A person's word as for following."""

    path: Literal["", "follow", "rewind", "restore", "basebackup"] = ""
    backup: str = ""


class RecoverDatabase(Action[RecoverArgs]):
    """The region's database is a standby again, by the path that was planned; it is never writable meanwhile."""

    name: ClassVar[str] = "postgres.recover"
    summary: ClassVar[str] = "bring a lost database back by a planned path"
    Args = RecoverArgs

    async def check(self, context: StepContext, args: RecoverArgs) -> Check:
        """Does it stream, with no recovery under way and no sign of damage?

        Raises:
            RefusedError: no path was planned.
        """
        if not args.path:
            raise RefusedError(
                f"recovering the database of {args.region}",
                "no path was planned",
                f"`hmsdr recover {args.region}` looks at what is left, and plans one",
            )
        status = await context.systems.agent(args.region).status(
            deadline=context.remaining(at_most=_ASK_SECONDS)
        )
        recovery = status.recovery
        streams = status.database.state == "standby" and status.replication.streaming
        damaged = status.health is not None and bool(status.health.signs)
        observed = {
            "state": status.database.state,
            "streaming": status.replication.streaming,
            "recovery": recovery.state,
            **_told(recovery),
        }
        holds = streams and recovery.state != "running" and not damaged
        return Check(holds, observed, waiting(recovery, args))

    async def act(self, context: StepContext, args: RecoverArgs) -> Mapping[str, Any]:
        """Give the order; the agent carries it out, over its own deaths."""
        systems = context.systems
        primary = systems.playbook.regions[args.primary].postgres
        word = (args.accepted_by, args.accepted_because) if args.accepted_by.strip() else None
        begun = await systems.agent(args.region).recover(
            run=context.run,
            epoch=args.epoch,
            path=args.path,
            primary=(primary.host, primary.port),
            slot=systems.playbook.regions[args.region].postgres.slot,
            backup=args.backup or None,
            without_lost_rows=word,
            deadline=context.remaining(at_most=30),
        )
        return {"path": begun.path, "began_at": begun.began_at}

    async def verify(self, context: StepContext, args: RecoverArgs) -> Check:
        """As `check`, while the recovery goes on; one that failed says why.

        Raises:
            PermanentError: the agent refused to go on.
            TemporaryError: it failed; the same order begins it again.
        """
        try:
            status = await context.systems.agent(args.region).status(
                deadline=context.remaining(at_most=_ASK_SECONDS)
            )
        except TemporaryError as error:
            return Check(False, {}, f"the agent of {args.region} ({error.found})")
        recovery = status.recovery
        if recovery.state == "failed":
            kind = PermanentError if recovery.refused else TemporaryError
            raise kind(f"recovering {args.region} by {args.path}", recovery.found, recovery.remedy)
        streams = status.database.state == "standby" and status.replication.streaming
        observed = {"state": status.database.state, "streaming": streams, **_told(recovery)}
        return Check(recovery.state == "done" and streams, observed, waiting(recovery, args))

    def later(self, args: RecoverArgs) -> str:
        """Planned anew: what is there now may be in another state."""
        return f"hmsdr recover {args.region}"

    def manual(self, playbook: Playbook, args: RecoverArgs) -> Manual:
        """By hand."""
        region, primary = playbook.regions[args.region], playbook.regions[args.primary].postgres
        word = {"without_lost_rows": {"by": args.accepted_by, "reason": args.accepted_because}}
        order = {
            "run": "by-hand-1",
            "epoch": args.epoch,
            "path": args.path or "PATH",
            "backup": args.backup or None,
            "primary_host": primary.host,
            "primary_port": primary.port,
            "slot": region.postgres.slot,
            **(word if args.accepted_by.strip() else {}),
        }
        key = f'-H "Authorization: Bearer {agent_key(args.region)}"'
        return Manual(
            commands=(
                f"curl -fsS -X POST {region.agent.url}/v1/recover {key} "
                f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(order))}",
                f"curl -fsS {region.agent.url}/v1/status {key} | jq .recovery",
                f"{psql(primary)} -c 'SELECT application_name, state, replay_lsn FROM pg_stat_replication'",
            ),
            expected="the second prints state done after a while; the third one row, state streaming",
            troubleshooting=(
                "state failed: found says why, remedy what to do; plan again, then order it under another run.",
                "The agent does not run: `scripts/restore-database.sh` restores the newest backup, beside what is there.",
                "Refused, not all rows are known: what it committed alone would be gone. docs/agent.md, 'What was lost'.",
            ),
        )


def waiting(recovery: RecoveryAnswer, args: RecoverArgs) -> str:
    """What is waited for: the stage, how much of it is done, how long the rest takes."""
    if recovery.state != "running":
        return f"{args.region} to stream from {args.primary}"
    done = "" if recovery.part is None else f", {100 * recovery.part:.0f} %"
    left = "" if recovery.seconds_left is None else f", {recovery.seconds_left:.0f} s left"
    return f"{args.region}: {recovery.words or recovery.stage}{done}{left}"


def _told(recovery: RecoveryAnswer) -> dict[str, Any]:
    """What is kept with the run of a recovery that was carried out."""
    if recovery.state == "none":
        return {}
    return {"path": Path(recovery.path), "made": recovery.made, "kept": recovery.kept, "lost": recovery.lost}
