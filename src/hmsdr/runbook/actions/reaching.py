"""After a partition has healed: where the public name leads, and proof that both sides see each other again (AP-3). It only looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from hmsdr.drivers.agent_answers import AgentStatus, DataAnswer
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext, agent_key
from hmsdr.runbook.actions.database import psql

if TYPE_CHECKING:  # the driver is imported when it is used
    from hmsdr.drivers.nameservers import NameAnswer

_ASK_SECONDS = 3.0
_DATA_SECONDS = 40.0
"""An agent tries its way to the primary with a bulk of data."""
_FRESH_SECONDS = 30.0
"""What was seen longer ago is no proof of now."""
_PAUSE = 0.5
_HTTP_OK = 200
_SEES = frozenset({"well", "slow"})
"""Answers of a controller's view that are right."""


class NameArgs(Model):
    """The public name leads to the region `users`, and to others only with a weight of their own."""

    users: RegionName


class NameLeads(Action[NameArgs]):
    """Each name server answers what Route 53 was told, and where one did not, the TTL has passed since it does.

    A wait that a crash cuts short is not begun again: what the servers answer is checked anew, how long they have is not.
    """

    name: ClassVar[str] = "dns.leads"
    summary: ClassVar[str] = (
        "ask each name server for the public name, and wait the TTL out where one leads elsewhere"
    )
    Args = NameArgs

    async def check(self, context: StepContext, args: NameArgs) -> Check:
        """Ask all of them at once."""
        playbook = context.systems.playbook
        deadline = context.remaining(at_most=_ASK_SECONDS)
        weights = await context.systems.dns().weights(deadline=deadline)
        if weights.get(args.users) is None or weights[args.users].weight == 0:
            raise PermanentError(
                f"looking where {playbook.traffic.record} leads",
                f"Route 53 sends nobody to {args.users}",
                "Somebody changed the record since the plan was made: look at `hmsdr status`, and begin again",
            )
        allowed = {
            playbook.regions[name].ingress.address.rstrip("."): name
            for name, item in weights.items()
            if item.weight > 0 and name in playbook.regions
        }
        zone, answers = await self._answers(playbook, deadline)
        wrong = [each for each in answers if each.values and not set(each.values) <= allowed.keys()]
        silent = [each.server for each in answers if not each.values]
        observed = {
            "weights": {name: item.weight for name, item in weights.items()},
            "asked": "the zone's name servers and the playbook's resolvers"
            if zone
            else "resolvers alone: the zone names no server",
            "answers": {each.server: list(each.values) or each.found for each in answers},
            "elsewhere": [each.server for each in wrong],
            "ttl": max((each.ttl for each in answers), default=playbook.traffic.ttl),
        }
        words = [f"{each.server} to let go of {', '.join(each.values)}" for each in wrong]
        words += [f"{server} to answer" for server in silent]
        return Check(not words, observed, "; ".join(words) or None)

    @staticmethod
    async def _answers(playbook: Playbook, deadline: float) -> tuple[bool, tuple[NameAnswer, ...]]:
        """Whether the zone names its servers, and what they and the resolvers answer."""
        from hmsdr.drivers.nameservers import ask, servers_of  # noqa: PLC0415 - see above

        traffic = playbook.traffic
        zone = await servers_of(traffic.hosted_zone, traffic.resolvers, deadline=deadline)
        servers: list[str | None] = [*zone, *traffic.resolvers]
        found = await asyncio.gather(
            *(
                ask(server, traffic.record, traffic.record_type, deadline=deadline)
                for server in servers or [None]
            )
        )
        return bool(zone), tuple(found)

    async def act(self, context: StepContext, args: NameArgs) -> Mapping[str, Any]:
        """Wait until all answer right; then for the TTL that a resolver may keep what it was told last before."""
        loop, stale = asyncio.get_running_loop(), False
        while True:
            found = await self.check(context, args)
            if found.holds:
                break
            stale = stale or bool(found.observed["elsewhere"])
            context.progress(found.waiting_for or "")
            await asyncio.sleep(_PAUSE)
        if not stale:
            return {"waited_seconds": 0}
        seconds = max(int(found.observed["ttl"]), context.systems.playbook.traffic.ttl)
        if seconds > context.remaining():
            raise PermanentError(
                "waiting for resolvers to forget the old answer",
                f"they may keep it for {seconds} s, this step has {context.remaining():.0f} s",
                "All name servers answer right: nothing is to be done but to wait; then resume the run",
            )
        ends = loop.time() + seconds
        while (left := ends - loop.time()) > 0:
            context.progress(f"resolvers may keep the old answer for {left:.0f} s more")
            await asyncio.sleep(min(left, 1.0))
        return {"waited_seconds": seconds}

    def manual(self, playbook: Playbook, args: NameArgs) -> Manual:
        """By hand."""
        traffic = playbook.traffic
        at = (
            f" @{traffic.resolvers[0].rpartition(':')[0] or traffic.resolvers[0]}"
            if traffic.resolvers
            else ""
        )
        return Manual(
            (
                f"dig{at} +short NS {traffic.hosted_zone}",
                f"for s in $(dig{at} +short NS {traffic.hosted_zone}); do dig @$s +noall +answer {traffic.record} "
                f"{traffic.record_type}; done",
                f"getent ahostsv4 {traffic.record}",
            ),
            f"{playbook.regions[args.users].ingress.address} everywhere",
            (
                f"A server answers another address: wait {traffic.ttl} s, the TTL, from when all are right.",
                "The servers are right and a clinic goes to the old side: its own resolver or a proxy keeps the answer; "
                "flush it there.",
            ),
        )


class MutualArgs(Model):
    """`standby` follows `primary`, and each sees the other."""

    standby: RegionName
    primary: RegionName


class SidesSeeEachOther(Action[MutualArgs]):
    """Agents, databases and controllers of both sides see those of the other, now."""

    name: ClassVar[str] = "network.mutual"
    summary: ClassVar[str] = "proof that both sides see each other: agents, databases, each site's controller"
    Args = MutualArgs

    async def check(self, context: StepContext, args: MutualArgs) -> Check:
        """What each side says itself; what only we reach proves nothing about them."""
        primary, standby, (sites, unseen) = await asyncio.gather(
            self._primary(context, args), self._standby(context, args), self._sites(context)
        )
        missing = [*primary, *standby, *unseen]
        observed = {
            f"{args.primary}_sees_{args.standby}": not primary,
            f"{args.standby}_sees_{args.primary}": not standby,
            "sites": sites or "the playbook names no controllers",
        }
        return Check(not missing, observed, "; ".join(missing) or None)

    async def act(self, context: StepContext, args: MutualArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    @staticmethod
    async def _primary(context: StepContext, args: MutualArgs) -> list[str]:
        """What the primary lacks: the other database must answer its stream."""
        instance = context.systems.playbook.regions[args.standby].postgres.instance
        try:
            rows = await context.systems.postgres(args.primary).replication(
                deadline=context.remaining(at_most=_ASK_SECONDS)
            )
        except DriverError as error:
            return [f"the database of {args.primary} to answer ({error.found})"]
        streams = (instance, "streaming") in {(each.name, each.state) for each in rows}
        return [] if streams else [f"{args.primary} to see {instance} stream"]

    @staticmethod
    async def _standby(context: StepContext, args: MutualArgs) -> list[str]:
        """What the standby lacks: its agent must reach the other database, and have seen it write a moment ago."""
        agent = context.systems.agent(args.standby)

        async def both() -> tuple[AgentStatus, DataAnswer]:
            data = await agent.data(deadline=context.remaining(at_most=_DATA_SECONDS))
            return await agent.status(deadline=context.remaining(at_most=_ASK_SECONDS)), data

        try:
            status, data = await both()
        except DriverError as error:
            return [f"the agent of {args.standby} to answer ({error.found})"]
        missing, seen = [], status.replication.primary_seen_at
        if data.unreachable:
            missing.append(f"{args.standby} to reach the database of {args.primary} ({data.unreachable})")
        if seen is None or (datetime.now(UTC) - seen).total_seconds() > _FRESH_SECONDS:
            missing.append(f"the agent of {args.standby} to see {args.primary} write")
        return missing

    @staticmethod
    async def _sites(context: StepContext) -> tuple[dict[str, Any], list[str]]:
        """Each controller's view of both regions; and what it does not see."""
        playbook, http = context.systems.playbook, context.systems.http()
        told: dict[str, Any] = {}
        missing: list[str] = []
        for site in playbook.sites():
            controller = playbook.controller(site)
            if controller is None:
                continue
            answer = await http.get(
                f"{controller.url}/v1/view", context.remaining(at_most=_ASK_SECONDS), reuse=False
            )
            if answer.status != _HTTP_OK:
                told[site] = answer.found or f"HTTP {answer.status}"
                missing.append(f"the controller at {site} to answer ({told[site]})")
                continue
            seen = _seen(answer.body)
            if seen is None:
                raise PermanentError(
                    f"reading the view of the controller at {site}",
                    "its answer is no view",
                    f"Look at {controller.url}/v1/view: is it a controller, and of this version?",
                )
            told[site] = seen
            for name in playbook.regions:
                blind = [what for what in ("region", "agent", "database") if not seen.get(f"{name} {what}")]
                if blind:
                    missing.append(f"{site} to see {', '.join(blind)} of {name}")
        return told, missing

    def manual(self, playbook: Playbook, args: MutualArgs) -> Manual:
        """By hand."""
        standby = playbook.regions[args.standby]
        views = [
            f"curl -fsS {controller.url}/v1/view"
            for site in playbook.sites()
            if (controller := playbook.controller(site)) is not None
        ]
        return Manual(
            (
                f"{psql(playbook.regions[args.primary].postgres)} -c 'SELECT application_name, state FROM pg_stat_replication'",
                f'curl -fsS {standby.agent.url}/v1/data -H "Authorization: Bearer {agent_key(args.standby)}"',
                f'curl -fsS {standby.agent.url}/v1/status -H "Authorization: Bearer {agent_key(args.standby)}"',
                *views,
            ),
            f'{standby.postgres.instance} streaming; "reaches_primary": ""; "primary_seen_at" a moment ago; each view: both '
            "regions reachable, their agent and database well",
            (
                "One direction works, the other does not: a firewall or route came back by halves. Try from both machines.",
                "A controller sees nothing at all: it is its site that is cut off.",
            ),
        )


def _seen(body: bytes) -> dict[str, bool] | None:
    """Of a controller's view: what is seen well, and lately; None when it is no view."""
    try:
        raw = json.loads(body)
        seen = {f"{name} region": each["sight"] == "reachable" for name, each in raw["regions"].items()}
        for each in raw["systems"]:
            fresh = float(each["seconds_ago"]) <= _FRESH_SECONDS
            seen[f"{each['region']} {each['system']}"] = each["answer"] in _SEES and fresh
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return seen
