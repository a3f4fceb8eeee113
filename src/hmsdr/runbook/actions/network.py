"""After a partition has healed: who may write, who writes all the same, and sessions whose clients the cut has swallowed (AP-3).

It moves no right to write: the record says who holds it, and only the other side is ever fenced. Ways are looked at in
`reaching`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.deadpeers import Peer, Session, peers
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key
from hmsdr.runbook.actions.database import psql

_ASK_SECONDS = 3.0


class HeldArgs(Model):
    """`holder` holds the right to write as `epoch`; the other region does not."""

    holder: RegionName
    epoch: int


class AuthorityHeld(Action[HeldArgs]):
    """Record and agents agree on who may write."""

    name: ClassVar[str] = "authority.held"
    summary: ClassVar[str] = "who may write: the record, and what each agent says of it"
    Args = HeldArgs

    async def check(self, context: StepContext, args: HeldArgs) -> Check:
        """The record's holder has a running lease under its epoch."""
        playbook = context.systems.playbook
        record = await context.systems.authority.read_authority()
        other = playbook.other_region(args.holder)
        _refuse_another(record, playbook, args)
        holder, left = await asyncio.gather(_status(context, args.holder), _status(context, other))
        observed = {
            "epoch": record.epoch,
            "phase": str(record.phase),
            "holder": None if record.holder is None else record.holder.instance,
            "lease_seconds": record.lease_seconds,
            "agents": {args.holder: _told(holder), other: _told(left)},
        }
        held = (
            record.phase is Phase.HELD
            and isinstance(holder, AgentStatus)
            and holder.lease.held
            and holder.lease.epoch == record.epoch
            and holder.database.state == "primary"
        )
        return Check(held, observed, f"the agent of {args.holder} to hold the lease of epoch {record.epoch}")

    async def act(self, context: StepContext, args: HeldArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: HeldArgs) -> Manual:
        """By hand."""
        return Manual(
            (
                "hmsdr authority show",
                *(
                    f'curl -fsS {region.agent.url}/v1/status -H "Authorization: Bearer {agent_key(name)}"'
                    for name, region in playbook.regions.items()
                ),
            ),
            f'held by {playbook.regions[args.holder].postgres.instance}; its agent: "state": "primary" and a '
            "lease that is held; the other one's agent: no lease",
            (
                "The right is vacant or handed over: a failover has not ended. `hmsdr run list`, then resume it.",
                "The other region holds it: name this one as the region to be looked after.",
            ),
        )


class FenceArgs(Model):
    """`region` does not hold `epoch`, which is the present one."""

    region: RegionName
    epoch: int


class FenceStray(Action[FenceArgs]):
    """A side that writes without the right is stopped by its agent; one that does not is left alone."""

    name: ClassVar[str] = "authority.fence-stray"
    summary: ClassVar[str] = "fence a side that writes without the right, never the holder"
    Args = FenceArgs

    async def check(self, context: StepContext, args: FenceArgs) -> Check:
        """Does anything there take writes? Its agent is asked, and its database itself."""
        await self._refuse_holder(context, args)
        postgres = context.systems.postgres(args.region)
        agent, database = await asyncio.gather(
            _status(context, args.region),
            postgres.status(deadline=context.remaining(at_most=_ASK_SECONDS)),
        )
        writes = database.reachable and database.in_recovery is False
        says = isinstance(agent, AgentStatus) and (agent.database.state == "primary" or agent.lease.held)
        observed = {"agent": _told(agent), "takes_writes": writes, "reachable": database.reachable}
        if isinstance(agent, DriverError) and not database.reachable:
            # Silence is no proof: what cannot be asked may write to those who reach it.
            return Check(False, observed, f"the agent or the database of {args.region} to answer")
        return Check(not writes and not says, observed, f"{args.region} not to write")

    async def act(self, context: StepContext, args: FenceArgs) -> Mapping[str, Any]:
        """Fence it under the present epoch: for that one it is not the holder, and older ones are over."""
        await self._refuse_holder(context, args)
        receipt = await context.systems.agent(args.region).fence(
            epoch=args.epoch,
            reason=f"writes without the right (run {context.run})",
            run=context.run,
            clean=False,
            deadline=context.remaining(at_most=20),
        )
        if receipt.survivors:
            raise TemporaryError(
                f"fencing {args.region}",
                f"{receipt.survivors} processes survive",
                "Stop its machine if it goes on",
            )
        return {
            "instance": receipt.instance,
            "fenced_at": receipt.fenced_at.isoformat(),
            "killed": receipt.killed,
        }

    @staticmethod
    async def _refuse_holder(context: StepContext, args: FenceArgs) -> None:
        playbook, record = context.systems.playbook, await context.systems.authority.read_authority()
        other = playbook.other_region(args.region)
        _refuse_another(record, playbook, HeldArgs(holder=other, epoch=args.epoch))

    def manual(self, playbook: Playbook, args: FenceArgs) -> Manual:
        """By hand."""
        region = playbook.regions[args.region]
        return Manual(
            (
                "hmsdr authority show",
                f"{psql(region.postgres)} -c 'SELECT pg_is_in_recovery()'",
                f'curl -fsS -X POST {region.agent.url}/v1/fence -H "Authorization: Bearer {agent_key(args.region)}" '
                f"-H 'Content-Type: application/json' "
                f'-d \'{{"epoch": {args.epoch}, "reason": "writes without the right", "run": "manual", "clean": false}}\'',
            ),
            "the second says t, or nobody answers: then the third is not needed. "
            'Otherwise the third says "survivors": 0',
            (
                f"`hmsdr authority show` says that {region.postgres.instance} holds the right: never fence it.",
                "Neither agent nor database answers: the partition has not healed for them. Look at the network first.",
                "The database writes and its agent is silent: start the agent, which stops it, or stop the machine.",
            ),
        )


class EndDeadArgs(Model):
    """On the writer, `region`; waits within a transaction of less than `older_than` seconds are a client's ordinary work."""

    region: RegionName
    older_than: Annotated[float, Field(gt=0, le=86400)] = 10.0


class EndDeadSessions(Action[EndDeadArgs]):
    """Sessions that hold a transaction for a client that is gone are ended; those of the living are only shown."""

    name: ClassVar[str] = "postgres.end-dead-sessions"
    summary: ClassVar[str] = "end sessions on the writer whose clients are dead, list all that are stuck"
    Args = EndDeadArgs

    async def check(self, context: StepContext, args: EndDeadArgs) -> Check:
        """Is there one whose far end is dead, as the kernel beside the database says?"""
        found = await self._stuck(context, args)
        dead = [session.pid for session, peer in found if peer is Peer.DEAD]
        observed = {"stuck": [{**_shown(session), "client_is": str(peer)} for session, peer in found]}
        return Check(not dead, observed, f"{len(dead)} sessions of dead clients to end")

    async def act(self, context: StepContext, args: EndDeadArgs) -> Mapping[str, Any]:
        """End exactly those, once it is sure that this is the writer."""
        instance = context.systems.playbook.regions[args.region].postgres
        from hmsdr.drivers.postgres_sessions import end_sessions  # noqa: PLC0415 - its client is loaded when used

        record = await context.systems.authority.read_authority()
        if record.holder is None or record.holder.instance != instance.instance:
            raise PermanentError(
                f"ending sessions of {args.region}",
                "it does not hold the right to write",
                "`hmsdr authority show` tells who does; a standby's sessions are left alone",
            )
        dead = [session for session, peer in await self._stuck(context, args) if peer is Peer.DEAD]
        ended = await end_sessions(instance, dead, deadline=context.remaining(at_most=10))
        return {"ended": [_shown(session) for session in dead if session.pid in ended]}

    @staticmethod
    async def _stuck(context: StepContext, args: EndDeadArgs) -> tuple[tuple[Session, Peer], ...]:
        from hmsdr.drivers.postgres_sessions import stuck_sessions  # noqa: PLC0415 - its client is loaded when used

        instance = context.systems.playbook.regions[args.region].postgres
        sessions, known = await stuck_sessions(
            instance, older=args.older_than, deadline=context.remaining(at_most=5)
        )
        return peers(sessions, known)

    def manual(self, playbook: Playbook, args: EndDeadArgs) -> Manual:
        """By hand."""
        line = psql(playbook.regions[args.region].postgres)
        return Manual(
            (
                f'{line} -c "SELECT pid, application_name, client_addr, client_port, state, wait_event, '
                "now() - state_change AS since FROM pg_stat_activity WHERE xact_start IS NOT NULL AND "
                "backend_type = 'client backend' AND (state LIKE 'idle in transaction%' OR wait_event_type IN "
                "('Client', 'Lock')) ORDER BY since DESC\"",
                "ss -tno state all '( sport = :postgresql )'   # on the machine of the database",
                f'{line} -c "SELECT pg_terminate_backend(PID)"   # for those only whose client is gone',
            ),
            "each client of the first list is in the second as ESTAB, and answers",
            (
                "CLOSE-WAIT, no line at all, or a timer with many retries: its client is gone; end it.",
                "ESTAB: its client is there. Ask who it is before you end anything of a person's.",
                "The run says `unknown`: its user may not read the kernel's table; GRANT pg_read_server_files, or look by ss.",
            ),
        )


def _refuse_another(record: Authority, playbook: Playbook, args: HeldArgs) -> None:
    """Raise PermanentError when the record says that another one holds the right, or another epoch."""
    wanted = playbook.regions[args.holder].postgres.instance
    holder = None if record.holder is None else record.holder.instance
    if record.epoch == args.epoch and (
        holder == wanted or (holder is None and record.phase is not Phase.HELD)
    ):
        if holder == wanted:
            return
        raise TemporaryError(
            "reading who may write",
            f"nobody holds the right (epoch {record.epoch}, {record.phase})",
            "A failover is under way or has not ended: `hmsdr run list`",
        )
    raise PermanentError(
        "reading who may write",
        f"epoch {record.epoch} is held by {holder or 'nobody'}, this plan is for epoch {args.epoch} held by {wanted}",
        "`hmsdr authority show`; begin again, and name the region that does not hold the right",
    )


async def _status(context: StepContext, region: str) -> AgentStatus | DriverError:
    try:
        return await context.systems.agent(region).status(deadline=context.remaining(at_most=_ASK_SECONDS))
    except DriverError as error:
        return error


def _told(status: AgentStatus | DriverError) -> dict[str, Any]:
    """What an agent says, for the record."""
    if isinstance(status, DriverError):
        return {"silent": status.found}
    return {
        "state": status.database.state,
        "accepted_epoch": status.accepted_epoch,
        "lease_held": status.lease.held,
        "lease_epoch": status.lease.epoch,
        "lease_seconds_left": status.lease.seconds_left,
        "streaming": status.replication.streaming,
    }


def _shown(session: Session) -> dict[str, Any]:
    return {
        "pid": session.pid,
        "application": session.application,
        "client": f"{session.address}:{session.port}",
        "state": session.state,
        "waits_for": session.waits_for,
        "seconds": round(session.seconds, 1),
    }
