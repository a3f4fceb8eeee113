"""PostgreSQL: is the old side lost, is the new side ready, promote it, follow it, prove it (DB-2, DB-4, FM-4).

Promotion and following go through the region's agent only (SAFETY rule 5); reading goes to PostgreSQL.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, TemporaryError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key
from hmsdr.runbook.gap import known_gap

_PROBE_SECONDS = 1.5
_TO_SAY_SO = 1.0
_ANSWER_SECONDS = 5.0
"""A promotion takes less; whoever waits longer for a lost answer keeps users waiting for nothing."""
_HTTP_OK = 200


class RegionArgs(Model):
    """A region."""

    region: RegionName


class LostArgs(Model):
    """`region` is to be shown lost, from this site and from `witness_region`'s."""

    region: RegionName
    witness_region: RegionName


class RegionLost(Action[LostArgs]):
    """Independent evidence that a region is gone: two sites, several kinds of path (FA-3)."""

    name: ClassVar[str] = "verify.region-lost"
    summary: ClassVar[str] = "confirm from other vantage points that the region is lost"
    Args = LostArgs

    async def check(self, context: StepContext, args: LostArgs) -> Check:
        """Every path to the region is tried; one that serves means that it is not lost."""
        systems, region = context.systems, context.systems.playbook.regions[args.region]
        deadline = context.remaining(at_most=_PROBE_SECONDS)
        http, status, agent, other = await asyncio.gather(
            systems.http().get(f"{region.ingress.url}/health", deadline=deadline),
            systems.postgres(args.region).status(deadline=deadline),
            _quietly(systems.agent(args.region).status(deadline=deadline)),
            _quietly(systems.agent(args.witness_region).status(deadline=deadline)),
        )
        serving = http.status == _HTTP_OK
        writable = status.reachable and status.in_recovery is False
        streaming = None if other is None else other.replication.streaming
        evidence = {
            "own path": "serves" if serving else str(http.outcome),
            "database": "accepts writes" if writable else status.found or "no primary",
            "agent": "answers" if agent is not None else "silent",
            f"replication seen by {args.witness_region}": {
                None: "unknown",
                True: "streaming",
                False: "broken",
            }[streaming],
        }
        sites = int(not serving and not writable) + int(streaming is False)
        needed = systems.playbook.thresholds.verification.sites
        return Check(
            sites >= needed and not serving and not writable,
            {**evidence, "sites_that_agree": sites, "sites_needed": needed},
            f"{needed} sites that agree ({sites} do)",
        )

    async def act(self, context: StepContext, args: LostArgs) -> Mapping[str, Any]:  # noqa: ARG002 - nothing to do
        """Nothing is done: disagreement holds until the deadline, and then stops the run."""
        return {}

    def manual(self, playbook: Playbook, args: LostArgs) -> Manual:
        """By hand, from a place outside the region."""
        region = playbook.regions[args.region]
        other = playbook.regions[args.witness_region].postgres
        return Manual(
            commands=(
                f"curl -fsS --max-time 5 {region.ingress.url}/health",
                f"{psql(region.postgres)} -c 'SELECT pg_is_in_recovery()'",
                f"{psql(other)} -c 'SELECT status, last_msg_receipt_time FROM pg_stat_wal_receiver'",
            ),
            expected="all three fail, or the last shows no row: nothing of the region answers anybody",
            troubleshooting=(
                "One of them answers: it is not a regional outage. Use database-failover or service-failover.",
                "All fail but you cannot reach anything else either: you are the one who is cut off.",
            ),
        )


class ReadyArgs(Model):
    """The database of `region`; with `follows`, it must stream from that region's at this moment."""

    region: RegionName
    follows: RegionName | None = None


class DatabaseReady(Action[ReadyArgs]):
    """The standby can take over: it answers, its agent is there, and before a hand-over it streams from the primary."""

    name: ClassVar[str] = "verify.standby-ready"
    summary: ClassVar[str] = "confirm that the standby database can take over"
    Args = ReadyArgs

    async def check(self, context: StepContext, args: ReadyArgs) -> Check:
        """A standby that answers, with an agent beside it."""
        deadline = context.remaining(at_most=_PROBE_SECONDS)
        status, agent = await asyncio.gather(
            context.systems.postgres(args.region).status(deadline=deadline),
            _quietly(context.systems.agent(args.region).status(deadline=deadline)),
        )
        observed = {
            "database": status.found
            if not status.reachable
            else "standby"
            if status.in_recovery
            else "primary",
            "lsn": None if status.lsn is None else format_lsn(status.lsn),
            "agent": "answers" if agent else "silent",
        }
        if not status.reachable or agent is None:
            return Check(False, observed, f"the database of {args.region}")
        if args.follows is None or status.in_recovery is False:
            return Check(True, observed)
        # A clean stop sends its last records to those who stream: who does not then can never finish the hand-over.
        seen, limit = agent.replication, context.systems.playbook.thresholds.gates.replication_lag
        lag = seen.lag_seconds if seen.streaming else None
        observed |= {"streaming": seen.streaming, "lag_seconds": lag, "lag_bytes": seen.lag_bytes}
        close = lag is not None and lag < limit.total_seconds()
        return Check(close, observed, f"{args.region} to stream from {args.follows}")

    async def act(self, context: StepContext, args: ReadyArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: ReadyArgs) -> Manual:
        """By hand."""
        region = playbook.regions[args.region]
        return Manual(
            commands=(
                f"kubectl get nodes --context={region.kubernetes.context}",
                f"kubectl get pods --all-namespaces --context={region.kubernetes.context}",
                f"{psql(region.postgres)} -c 'SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()'",
            ),
            expected="nodes Ready, pods Running, pg_is_in_recovery is t",
            troubleshooting=(
                "It does not answer: there is nothing to fail over to. Repair the standby first.",
            ),
        )


class Checkpoint(Action[RegionArgs]):
    """A checkpoint just before a planned stop: it more than halves the gap that writers feel."""

    name: ClassVar[str] = "postgres.checkpoint"
    summary: ClassVar[str] = "write a checkpoint, so that stopping is quick"
    Args = RegionArgs

    async def check(self, context: StepContext, args: RegionArgs) -> Check:
        """Holds when another instance has the right already: nothing is stopped then. Else one more is always worth it."""
        record = await context.systems.authority.read_authority()
        mine = context.systems.playbook.regions[args.region].postgres.instance
        if record.holder is None or record.holder.instance == mine:
            return Check(False)
        return Check(True, {"holder": record.holder.instance, "epoch": record.epoch})

    async def act(self, context: StepContext, args: RegionArgs) -> Mapping[str, Any]:
        """CHECKPOINT, within the step's time: a server that cannot end one could not stop in order either."""
        try:
            left = max(1.0, context.remaining() - _TO_SAY_SO)
            await context.systems.postgres(args.region).checkpoint(deadline=left)
        except DriverError as error:
            raise TemporaryError(
                f"writing a checkpoint in {args.region}",
                f"{error.found}; nothing was taken from {args.region}, it goes on",
                "It could not hand over in order. Look at its disk, and at pg_replication_slots.wal_status; begin again",
            ) from error
        return {}

    async def verify(self, context: StepContext, args: RegionArgs) -> Check:  # noqa: ARG002
        """PostgreSQL answers only when it is done."""
        return Check(True)

    def manual(self, playbook: Playbook, args: RegionArgs) -> Manual:
        """By hand."""
        return Manual((f"{psql(playbook.regions[args.region].postgres)} -c CHECKPOINT",), "CHECKPOINT", ())


class PromoteArgs(Model):
    """Promote `region` under `epoch`."""

    region: RegionName
    epoch: int


class PromotePostgres(Action[PromoteArgs]):
    """Only the agent promotes, once per epoch (DB-2, SAFETY rule 5)."""

    name: ClassVar[str] = "postgres.promote"
    summary: ClassVar[str] = "promote PostgreSQL through its agent"
    Args = PromoteArgs
    asks_itself: ClassVar[bool] = True

    async def check(self, context: StepContext, args: PromoteArgs) -> Check:
        """Is it a primary under this epoch?"""
        status = await context.systems.agent(args.region).status(deadline=context.remaining(at_most=3))
        done = status.database.state == "primary" and status.accepted_epoch == args.epoch
        return Check(
            done,
            {"state": status.database.state, "accepted_epoch": status.accepted_epoch},
            "a primary that writes",
        )

    async def act(self, context: StepContext, args: PromoteArgs) -> Mapping[str, Any]:
        """Ask the agent; it answers when the first write was made. An answer that is lost is asked for again."""
        while True:
            try:
                answer = await context.systems.agent(args.region).promote(
                    epoch=args.epoch, min_lsn=None, deadline=context.remaining(at_most=_ANSWER_SECONDS)
                )
                break
            except OutcomeUnknownError:
                if context.remaining() < _ANSWER_SECONDS:
                    raise
        return {
            "seconds": answer.seconds,
            "lsn": format_lsn(answer.lsn),
            "timeline": answer.timeline,
            "already": answer.already,
        }

    async def verify(self, context: StepContext, args: PromoteArgs) -> Check:
        """The agent's answer is the proof: it wrote under the epoch before answering."""
        return await self.check(context, args)

    def manual(self, playbook: Playbook, args: PromoteArgs) -> Manual:
        """By hand: through the agent, as everything that promotes."""
        region = playbook.regions[args.region]
        pod = f"{region.postgres.statefulset}-0"
        return Manual(
            commands=(
                f'curl -fsS -X POST {region.agent.url}/v1/promote -H "Authorization: Bearer {agent_key(args.region)}" '
                f"-H 'Content-Type: application/json' -d '{{\"epoch\": {args.epoch}, \"min_lsn\": null}}'",
                f"kubectl --context={region.kubernetes.context} exec {pod} -n {region.kubernetes.namespace} -- "
                f"psql -U {region.postgres.user} -c 'SELECT pg_is_in_recovery()'",
            ),
            expected="pg_is_in_recovery is f",
            troubleshooting=(
                "Refused, not the holder: the grant (the step before) is missing or for another epoch.",
                "Refused, not replayed far enough: a hand-over waits until every commit of the old side is here.",
            ),
        )


class VerifyArgs(Model):
    """Prove the primary of `region`; `tables` are counted, by default those of all services. `follower` must stream."""

    region: RegionName
    tables: tuple[str, ...] = ()
    follower: RegionName | None = None

    def chosen(self, playbook: Playbook) -> tuple[str, ...]:
        """The tables that are counted."""
        every = (table for service in playbook.services.values() for table in service.tables)
        return self.tables or tuple(dict.fromkeys(every))


class VerifyDatabase(Action[VerifyArgs]):
    """The new primary writes, its tables can be read and are not damaged, and who follows it is shown (DB-4, FM-4)."""

    name: ClassVar[str] = "postgres.verify"
    summary: ClassVar[str] = "verify the primary: writes, counts, followers"
    Args = VerifyArgs

    async def check(self, context: StepContext, args: VerifyArgs) -> Check:
        """Reads and counts on the primary."""
        postgres = context.systems.postgres(args.region)
        deadline = context.remaining(at_most=10)
        status = await postgres.status(deadline=deadline)
        if not status.reachable or status.in_recovery:
            return Check(False, {"found": status.found or "in recovery"}, f"a primary in {args.region}")
        counts = await postgres.counts(args.chosen(context.systems.playbook), deadline=deadline)
        followers = await postgres.replication(deadline=deadline)
        slots = await postgres.slots(deadline=deadline)
        damage = await postgres.integrity(deadline=deadline)
        gap = await known_gap(context, args.region)
        wanted = f"undamaged data ({damage.checksum_failures} pages whose checksum failed)"
        followed = True
        if args.follower is not None:
            name = context.systems.playbook.regions[args.follower].postgres.instance
            followed = (name, "streaming") in {(item.name, item.state) for item in followers}
            wanted = wanted if followed else f"{name} to stream from {args.region}"
        return Check(
            # An invalid index is work for tomorrow: the rows are all there.
            damage.checksum_failures == 0 and followed,
            {
                "checksum_failures": damage.checksum_failures,
                "invalid_indexes": damage.invalid_indexes,
                "slots": {slot.name: slot.wal_status for slot in slots if slot.kind == "physical"},
                "lsn": None if status.lsn is None else format_lsn(status.lsn),
                "timeline": status.timeline,
                "counts": counts,
                "followers": [f"{item.name} {item.state}" for item in followers],
                **gap,
            },
            wanted,
        )

    async def act(self, context: StepContext, args: VerifyArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: this only looks."""
        return {}

    def manual(self, playbook: Playbook, args: VerifyArgs) -> Manual:
        """The source's own lines."""
        postgres = playbook.regions[args.region].postgres
        counts = tuple(
            f"{psql(postgres)} -d {postgres.database} -c 'SELECT COUNT(*) FROM {t};'"
            for t in args.chosen(playbook)
        )
        return Manual(
            (*counts, f"{psql(postgres)} -c 'SELECT * FROM pg_stat_replication;'"),
            "counts as before the incident, or more; a row for each standby that follows",
            ("A count is lower than before: stop, and compare with the reconciliation of lost writes.",),
        )


def psql(postgres: Any) -> str:
    """The psql line for an instance, complete but for the statement."""
    port = "" if postgres.port == 5432 else f" -p {postgres.port}"  # noqa: PLR2004 - PostgreSQL's own default
    return f"psql -h {shlex.quote(postgres.host)}{port} -U {shlex.quote(postgres.user)}"


async def _quietly(call: Any) -> Any:
    """The answer, or None when the system does not give one: for observing, where silence is an answer."""
    try:
        return await call
    except DriverError:
        return None
