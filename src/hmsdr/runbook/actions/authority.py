"""Taking the right to write from one database and giving it to another (SAFETY rules 3, 4, 5, 9; DB-1).

The order is the protocol's: revoke first, so that renewals fail; then a fence receipt or the whole wait,
counted on this process's own clock from the answer to *its* revocation; then the grant. What is enough
evidence is decided in `hmsdr.decide.authority`; here it is only gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from hmsdr.decide.authority import (
    Authority,
    AuthorityRefused,
    Holder,
    LeaseWaited,
    Phase,
    Receipt,
    grant,
    prove_fenced,
    revoke,
)
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.takeover import Takeover, answered, enough, handover, left
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError
from hmsdr.log.store import AuthorityStore
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key

_ASK_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_REPLAY_SECONDS = 5.0
_REPLAY_PAUSE = 0.01
"""Writers wait: the last records arrive within milliseconds of the stop."""


class FreeArgs(Model):
    """Take the right from `region`, which holds `epoch`; `clean` asks for a shutdown that loses nothing."""

    region: RegionName
    epoch: int
    to: RegionName
    clean: bool


class FreeAuthority(Action[FreeArgs]):
    """Revoke, then wait for proof that the old primary cannot write."""

    name: ClassVar[str] = "authority.free"
    summary: ClassVar[str] = "revoke the right to write and wait for proof of fencing"
    Args = FreeArgs

    async def check(self, context: StepContext, args: FreeArgs) -> Check:
        """Is the right free under this epoch, or granted already?"""
        record = await context.systems.authority.read_authority()
        free = record.phase in (Phase.VACANT, Phase.HANDING_OVER) and record.epoch == args.epoch
        return Check(
            free or record.epoch > args.epoch, _shown(record), "proof that the old primary is fenced"
        )

    async def act(self, context: StepContext, args: FreeArgs) -> Mapping[str, Any]:
        """Revoke, gather proof, and free the right."""
        store = context.systems.authority
        loop = asyncio.get_running_loop()
        playbook = context.systems.playbook
        takeover = Takeover(
            args.epoch,
            playbook.regions[args.to].postgres.instance,
            playbook.database.drift_margin,
            args.clean,
        )
        revoked = await _change(store, lambda record: revoke(record, args.epoch))
        # The loop's clock is the monotonic one, and this is after the revocation was answered.
        takeover = answered(takeover, revoked, since := loop.time())
        proof = await self._proof(context, args, takeover)
        to = handover(takeover, proof)
        freed = await _change(store, lambda record: prove_fenced(record, proof, handover_to=to))
        return {
            "proof": "receipt" if isinstance(proof, Receipt) else "lease waited out",
            "seconds": round(loop.time() - since, 4),
            "clean": to is not None,
            "last_lsn": format_lsn(proof.last_lsn) if isinstance(proof, Receipt) and proof.last_lsn else None,
            "handover_lsn": None if freed.handover_lsn is None else format_lsn(freed.handover_lsn),
        }

    async def verify(self, context: StepContext, args: FreeArgs) -> Check:  # noqa: ARG002 - writers wait
        """The store took the change from the very record it was made from: that is the proof."""
        return Check(True, {"epoch": args.epoch})

    async def _proof(self, context: StepContext, args: FreeArgs, takeover: Takeover) -> Receipt | LeaseWaited:
        """A receipt as soon as there is one; else the wait.

        A clean hand-over keeps asking to the deadline, but an agent that says nothing at all for a lease more is lost, and
        what it could have handed over with it.
        """
        loop = asyncio.get_running_loop()
        asking = asyncio.create_task(self._ask(context, args))
        lease = context.systems.playbook.database.lease.total_seconds()
        silent: float | None = None
        try:
            while True:
                if asking.done():
                    takeover = replace(takeover, receipt=asking.result())
                now = loop.time()
                waited = left(takeover, now)
                if args.clean and waited <= 0 and not asking.done():
                    answers, now = await self._answers(context, args.region), loop.time()
                    silent = None if answers else now if silent is None else silent
                # Only a planned hand-over may wait longer for the receipt: it is what loses nothing.
                lost = silent is not None and now - silent >= lease
                bound = context.remaining() * 0.9 if args.clean and not lost else waited
                proof = enough(takeover, now, patient=args.clean and bound > _ASK_AGAIN_SECONDS)
                if proof is not None:
                    return proof
                context.progress(awaited(args.region, left(takeover, now), bound))
                await asyncio.wait({asking}, timeout=max(0.001, min(bound, _ASK_AGAIN_SECONDS)))
        finally:
            asking.cancel()

    @staticmethod
    async def _answers(context: StepContext, region: str) -> bool:
        """Whether the agent says anything: while it stops a database, its receipt may take long."""
        try:
            await context.systems.agent(region).status(deadline=context.remaining(at_most=_LOOK_SECONDS))
        except DriverError:
            return False
        return True

    @staticmethod
    async def _ask(context: StepContext, args: FreeArgs) -> Receipt:
        agent = context.systems.agent(args.region)
        while True:
            try:
                answer = await agent.fence(
                    epoch=args.epoch,
                    reason=f"run {context.run}",
                    run=context.run,
                    clean=args.clean,
                    deadline=context.remaining(at_most=10),
                )
            except DriverError:
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                continue
            return Receipt(
                instance=answer.instance,
                incarnation=answer.incarnation,
                epoch=args.epoch,
                last_lsn=answer.last_lsn,
                clean=answer.clean,
                survivors=answer.survivors,
                unused=answer.unused,
            )

    def manual(self, playbook: Playbook, args: FreeArgs) -> Manual:
        """By hand: through the same protocol."""
        agent = playbook.regions[args.region].agent
        return Manual(
            commands=(
                f'hmsdr authority revoke --epoch {args.epoch} --by "$USER"',
                f'curl -fsS -X POST {agent.url}/v1/fence -H "Authorization: Bearer {agent_key(args.region)}" '
                f"-H 'Content-Type: application/json' "
                f'-d \'{{"epoch": {args.epoch}, "reason": "by hand", "run": "manual", '
                f'"clean": {str(args.clean).lower()}}}\' | tee fence-receipt.json',
                f'hmsdr authority prove --epoch {args.epoch} --receipt fence-receipt.json --by "$USER"',
            ),
            expected='the receipt says "survivors": 0; `hmsdr authority show` says vacant or handing_over',
            troubleshooting=(
                "No answer from the agent: the region may be dead. Wait the lease out instead: "
                f"`hmsdr authority prove --epoch {args.epoch} --wait --by NAME`, which counts from its own revocation.",
                "The plan was made for another epoch: somebody failed over meanwhile. Stop and look at "
                "`hmsdr run list`.",
            ),
        )


class GrantArgs(Model):
    """Give the right to `region` as `epoch`."""

    region: RegionName
    epoch: int


class GrantAuthority(Action[GrantArgs]):
    """The point of no return: from here the other side may write (SAFETY rule 10)."""

    name: ClassVar[str] = "authority.grant"
    summary: ClassVar[str] = "grant the right to write under the next epoch"
    Args = GrantArgs

    async def check(self, context: StepContext, args: GrantArgs) -> Check:
        """Does an agent of the region's instance hold exactly this epoch?"""
        record = await context.systems.authority.read_authority()
        instance = context.systems.playbook.regions[args.region].postgres.instance
        if record.epoch > args.epoch:
            raise PermanentError(
                f"granting epoch {args.epoch} to {args.region}",
                f"epoch {record.epoch} was granted since",
                "This plan is void: look at `hmsdr run list` for the newer one",
            )
        held = (
            record.phase is Phase.HELD
            and record.epoch == args.epoch
            and record.holder is not None
            and record.holder.instance == instance
        )
        return Check(held, _shown(record), f"epoch {args.epoch} held by {instance}")

    async def act(self, context: StepContext, args: GrantArgs) -> Mapping[str, Any]:
        """Compare-and-swap the grant to the agent that answers now."""
        record, status = await self._complete(context, args)
        holder = Holder(status.instance, status.incarnation)

        def to_holder(record: Authority) -> Authority:
            if record.epoch + 1 != args.epoch:
                raise AuthorityRefused(
                    f"the plan grants epoch {args.epoch}, the record stands at {record.epoch}"
                )
            return grant(
                record, holder, lease_seconds=context.systems.playbook.database.lease.total_seconds()
            )

        granted = await _change(context.systems.authority, to_holder, known=record)
        return {"epoch": granted.epoch, "instance": holder.instance}

    async def verify(self, context: StepContext, args: GrantArgs) -> Check:  # noqa: ARG002 - writers wait
        """The store took the grant from the very record it was made from: that is the proof."""
        return Check(True, {"epoch": args.epoch})

    @staticmethod
    async def _complete(context: StepContext, args: GrantArgs) -> tuple[Authority, AgentStatus]:
        """The record, and what the agent answers, once its database has all that was handed over (SAFETY rule 9).

        Asked before the grant, which is the point of no return: a side that lacks it can never promote.
        """
        record = await context.systems.authority.read_authority()
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(_REPLAY_SECONDS, context.remaining() / 2)
        while True:
            status = await context.systems.agent(args.region).status(deadline=context.remaining(at_most=3))
            needed, found = record.handover_lsn, status.database.lsn
            giver = status.instance == record.handover_from
            if needed is None or giver or (found is not None and found >= needed):
                return record, status
            if loop.time() >= ends:
                raise PermanentError(
                    f"granting epoch {args.epoch} to {args.region}",
                    f"its database has {'nothing' if found is None else format_lsn(found)}, handed over was "
                    f"{format_lsn(needed)}",
                    f"Nothing is lost: a controller gives the right back to {record.handover_from}; where none "
                    "runs, do it: docs/agent.md, 'Back to the old side'",
                )
            await asyncio.sleep(_REPLAY_PAUSE)

    def manual(self, playbook: Playbook, args: GrantArgs) -> Manual:
        """By hand: through the same record."""
        return Manual(
            commands=(f'hmsdr authority grant {args.region} --epoch {args.epoch} --by "$USER"',),
            expected=f"epoch {args.epoch} held by {playbook.regions[args.region].postgres.instance}",
            troubleshooting=(
                "Refused because it is not vacant: prove the old side fenced first (the step before).",
                f"The agent of {args.region} does not answer: start it; without an agent nothing may promote.",
            ),
        )


async def _change(
    store: AuthorityStore, transition: Callable[[Authority], Authority], known: Authority | None = None
) -> Authority:
    """Apply `transition` by compare-and-swap, to `known` first; a lost race reads again, a refusal is permanent.

    Raises:
        PermanentError: the protocol refuses the transition.
        TemporaryError: others changed the record again and again.
    """
    for _ in range(20):
        fresh = known is None
        record, known = known or await store.read_authority(), None
        try:
            new = transition(record)
        except AuthorityRefused as refusal:
            if not fresh:
                continue
            raise PermanentError(
                "changing the right to write", str(refusal), "`hmsdr authority show` tells who holds it"
            ) from refusal
        if new == record or await store.swap_authority(record, new):
            return new
    raise TemporaryError("changing the right to write", "others changed it 20 times in a row", "Try again")


def _shown(record: Authority) -> dict[str, Any]:
    return {
        "epoch": record.epoch,
        "phase": str(record.phase),
        "holder": record.holder.instance if record.holder else None,
    }


def awaited(region: str, lease_seconds: float, most_seconds: float) -> str:
    """What freeing the right waits for; once the lease has run out, only a planned hand-over still does.

    Args:
        region: whose agent is asked.
        lease_seconds: until its lease has run out.
        most_seconds: how much longer a receipt is waited for at most.
    """
    if lease_seconds > 0:
        return f"fence receipt from {region}, or {lease_seconds:.1f} s until its lease has run out"
    return (
        f"fence receipt from {region}, which says that nothing is lost: its lease has run out, so that in "
        f"at most {most_seconds:.0f} s it goes on without"
    )
