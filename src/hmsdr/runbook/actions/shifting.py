"""Users go home share by share, by DNS weight, each share watched before the next one (SW-2, SW-3).

Three actions: how it was before (the baseline), a share that is set, a share that is watched. What figures mean is decided in
`hmsdr.decide.shifting`. Weights that are not what this run left there are somebody else's: it stops, and shows the difference.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hmsdr.decide.authority import Phase
from hmsdr.decide.shifting import Baseline, Judgement, Moment, Reading, Verdict, as_baseline, judge
from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.drivers.route53 import Weight
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, GoBackError, Manual, RegionName, StepContext, UndoableAction
from hmsdr.runbook.actions.traffic import upserts
from hmsdr.runbook.homecoming import WEIGH
from hmsdr.runbook.signals import filled, readings

BASELINE = "traffic.baseline"
_DNS_SECONDS = 5.0
_PAUSES = (0.5, 5.0)
"""Seconds from one look to the next: a tenth of the time that a share is held for, within these."""
_ALL = 100


class RegionsArgs(Model):
    """Users are to go to `home`; they are at `other`."""

    home: RegionName
    other: RegionName


class ShareArgs(RegionsArgs):
    """`share` per cent of users go to `home`, from `before`; the records carry `epoch`."""

    share: Annotated[int, Field(ge=1, le=_ALL)]
    before: Annotated[int, Field(ge=0, le=_ALL)]
    epoch: int

    def weights(self, share: int) -> dict[str, int]:
        """Those of both regions."""
        return {self.home: share, self.other: _ALL - share}


class TrafficBaseline(Action[RegionsArgs]):
    """How users fare before the first of them moves: within the absolute limits, or nobody is moved."""

    name: ClassVar[str] = BASELINE
    summary: ClassVar[str] = "measure errors, latency and saturation before users are moved"
    Args = RegionsArgs

    async def check(self, context: StepContext, args: RegionsArgs) -> Check:  # noqa: ARG002 - always measured anew
        """It is measured anew."""
        return Check(False, {}, "figures of how it is now")

    async def act(self, context: StepContext, args: RegionsArgs) -> Mapping[str, Any]:
        """Watch for as long as a share is watched."""
        watch = _Watch(context, args.home, args.other, 0, since=time.time(), baseline=None)
        reading = await watch.until_good()
        return {"baseline": asdict(as_baseline(reading)), "requests": round(reading.requests or 0.0)}

    async def verify(self, context: StepContext, args: RegionsArgs) -> Check:  # noqa: ARG002
        """It was measured."""
        return Check(True)

    def manual(self, playbook: Playbook, args: RegionsArgs) -> Manual:
        """By hand."""
        return _look(playbook, args.other)


class WeighTraffic(UndoableAction[ShareArgs]):
    """One exact batch: both weights, and the TXT record with epoch and step, so that no delayed change can match again."""

    name: ClassVar[str] = WEIGH
    summary: ClassVar[str] = "send a share of users to the region"
    Args = ShareArgs
    asks_itself: ClassVar[bool] = True

    async def check(self, context: StepContext, args: ShareArgs) -> Check:
        """Do the records say so?"""
        found, epoch = await context.systems.dns().carried(deadline=context.remaining(at_most=_DNS_SECONDS))
        weights = {name: item.weight for name, item in found.items()}
        holds = weights == args.weights(args.share) and epoch == args.epoch
        return Check(holds, {"weights": weights, "epoch": epoch}, f"{args.share} % to be sent to {args.home}")

    async def remember(self, context: StepContext, args: ShareArgs) -> Mapping[str, Any]:  # noqa: ARG002 - both are kept
        """The weights."""
        found = await context.systems.dns().weights(deadline=context.remaining(at_most=_DNS_SECONDS))
        return {"weights": {name: item.weight for name, item in found.items()}}

    async def act(self, context: StepContext, args: ShareArgs) -> Mapping[str, Any]:
        """From exactly what the step before left there."""
        doing = f"sending {args.share} % of users to {args.home}"
        await _refuse_other_epoch(context, args, doing)
        dns = context.systems.dns()
        found, epoch = await dns.carried(deadline=context.remaining(at_most=_DNS_SECONDS))
        mark = f"{context.run}/{args.share}"
        done = (
            not differences(context.systems.playbook, found, args.weights(args.share)) and epoch == args.epoch
        )
        if not done:
            refuse_strangers(context.systems.playbook, found, args.weights(args.before), doing)
            change = await dns.shift(
                args.weights(args.share), args.epoch, deadline=context.remaining(), mark=mark
            )
            if change is not None:
                context.progress("Route 53 to have the change in sync")
                await dns.wait_insync(change, deadline=context.remaining())
        ttl = max([context.systems.playbook.traffic.ttl, *(item.ttl for item in found.values())])
        return {"already": done, "changed_at": time.time(), "ttl": ttl, "weights": args.weights(args.share)}

    async def verify(self, context: StepContext, args: ShareArgs) -> Check:  # noqa: ARG002
        """Route 53 said INSYNC to the very batch."""
        return Check(True, {"weights": args.weights(args.share)})

    async def undo(self, context: StepContext, args: ShareArgs, before: Mapping[str, Any]) -> None:  # noqa: ARG002
        """All users go back at once to the region that served before the first step: the only state known to be good for all."""
        doing = f"sending all users back to {args.other}"
        dns = context.systems.dns()
        found, _ = await dns.carried(deadline=context.remaining(at_most=_DNS_SECONDS))
        playbook = context.systems.playbook
        if not differences(playbook, found, args.weights(0)):
            return
        if differences(playbook, found, args.weights(args.share)):
            refuse_strangers(playbook, found, args.weights(args.before), doing)
        change = await dns.shift(
            args.weights(0),
            args.epoch,
            deadline=context.remaining(),
            mark=f"{context.run}/back-from-{args.share}",
        )
        if change is not None:
            await dns.wait_insync(change, deadline=context.remaining())

    def manual(self, playbook: Playbook, args: ShareArgs) -> Manual:
        """By hand: the weights as one batch of upserts."""
        traffic = playbook.traffic
        endpoint = f" --endpoint-url {playbook.aws.endpoint_url}" if playbook.aws.endpoint_url else ""
        changes = upserts(playbook, args.weights(args.share))
        return Manual(
            (
                f"ZONE=$(aws route53{endpoint} list-hosted-zones-by-name --dns-name {traffic.hosted_zone} "
                "--query 'HostedZones[0].Id' --output text)",
                f'aws route53{endpoint} change-resource-record-sets --hosted-zone-id "$ZONE" '
                f"--change-batch '{json.dumps({'Changes': changes})}'",
            ),
            f"after the TTL ({traffic.ttl} s) about {args.share} of 100 answers of `getent ahostsv4 {traffic.record}` "
            f"are {playbook.regions[args.home].ingress.address}",
            (f"Go back with the same batch and the weights 0 for {args.home} and 100 for {args.other}.",),
        )


class WatchTraffic(Action[ShareArgs]):
    """The guard: a share stays as long as the playbook says, well all the while; a bad one goes back, an unknown one is held."""

    name: ClassVar[str] = "traffic.watch"
    summary: ClassVar[str] = "watch errors, latency, saturation and the split that arrives"
    Args = ShareArgs

    async def check(self, context: StepContext, args: ShareArgs) -> Check:
        """It is always watched anew; what is seen now is shown."""
        found = await context.systems.dns().weights(deadline=context.remaining(at_most=_DNS_SECONDS))
        return Check(
            False,
            {"weights": {name: item.weight for name, item in found.items()}},
            f"{args.share} % at {args.home} to be watched",
        )

    async def act(self, context: StepContext, args: ShareArgs) -> Mapping[str, Any]:
        """Watch until it is judged good, or is not."""
        changed, before = context.earlier(WEIGH), context.earlier(BASELINE).get("baseline")
        # Without the step before there is nothing to count from: then it is counted from now.
        since = float(changed.get("changed_at", time.time())) + float(
            changed.get("ttl", context.systems.playbook.traffic.ttl)
        )
        baseline = None if before is None else Baseline(before["error_ratio"], dict(before["latency"]))
        watch = _Watch(context, args.home, args.other, args.share, since=since, baseline=baseline, args=args)
        reading = await watch.until_good()
        return {
            "arrived": None if watch.judged.arrived is None else round(watch.judged.arrived, 1),
            "home": _shown(reading),
            "other": _shown(watch.other),
        }

    async def verify(self, context: StepContext, args: ShareArgs) -> Check:  # noqa: ARG002
        """It was judged good."""
        return Check(True, {"share": args.share})

    def manual(self, playbook: Playbook, args: ShareArgs) -> Manual:
        """By hand."""
        return _look(playbook, args.home)


class _Watch:
    """Looks again and again, until a share is judged good."""

    def __init__(
        self,
        context: StepContext,
        home: str,
        other: str,
        share: int,
        *,
        since: float,
        baseline: Baseline | None,
        args: ShareArgs | None = None,
    ) -> None:
        self._context = context
        self._home, self._other, self._share = home, other, share
        self._since = since
        self._baseline = baseline
        self._args = args
        self._limits = context.systems.playbook.procedures.switchback
        self.judged = Judgement(Verdict.WAIT)
        self.other: Reading | str = ""

    async def until_good(self) -> Reading:
        """The figures of the region that is watched (with no share of users yet: of the one where they are).

        Raises:
            GoBackError: it is bad, or somebody asks to go back.
            PermanentError: somebody else changed the records, or the right to write has moved on.
            TemporaryError: it could not be judged good in time; nothing was moved.
        """
        doing = f"watching {self._share} % of users at {self._home}"
        hold = self._limits.hold.total_seconds()
        pause = min(max(hold / 10, _PAUSES[0]), _PAUSES[1])
        patience = hold + self._limits.patience.total_seconds()
        while True:
            asked = await self._context.asked()
            if asked.to_stop is not None:
                raise GoBackError(
                    doing, f"somebody asked to go back: {asked.to_stop}", "Plan again when you want to"
                )
            held = await self._refuse_changes(doing)
            home, self.other = await self._look(hold)
            if not held:
                self.judged = self._judge(home, self.other)
                held = self.judged.reasons
                if self.judged.verdict is Verdict.BAD:
                    self._bad(doing)
            good = self.judged.verdict is Verdict.GOOD and not held
            if good and asked.to_pause is None:
                reading = home if self._share else self.other
                assert isinstance(reading, Reading)  # noqa: S101 - nothing else is judged good
                return reading
            words = (
                "; ".join(held)
                or f"somebody to let it go on (`hmsdr run resume`); paused by {asked.to_pause}"
            )
            self._context.progress(words)
            if time.time() - self._since > patience and asked.to_pause is None:
                raise TemporaryError(
                    doing,
                    f"held there, and not judged good within {patience:g} s: {words}",
                    "Nothing was moved. Mend what is missing and begin again: it goes on from this share",
                )
            await asyncio.sleep(pause)

    def _bad(self, doing: str) -> None:
        found = "; ".join(self.judged.reasons)
        if self._share == 0:
            raise PermanentError(doing, found, "Nobody was moved. Mend it, then begin again")
        raise GoBackError(
            doing, found, f"All users go back to {self._other}; mend {self._home}, then begin again"
        )

    def _judge(self, home: Reading | str, other: Reading | str) -> Judgement:
        now = time.time()
        moment = Moment(self._home, self._other, self._share, now, now - self._since)
        fresh = self._context.systems.playbook.prometheus.fresh.total_seconds()
        return judge(home, other, moment, self._limits, fresh=fresh, baseline=self._baseline)

    async def _look(self, hold: float) -> tuple[Reading | str, Reading | str]:
        """Over the time since the share arrived, as far as it is long enough for a rate, and no longer than it is held."""
        fresh = self._context.systems.playbook.prometheus.fresh.total_seconds()
        window = max(min(time.time() - self._since, hold), min(fresh, hold))
        return await readings(self._context.systems, self._home, self._other, window)

    async def _refuse_changes(self, doing: str) -> tuple[str, ...]:
        """Why it cannot be known whether the records are still ours; empty when they are.

        Raises:
            PermanentError: they are not.
        """
        if self._args is None:
            return ()
        try:
            await _refuse_other_epoch(self._context, self._args, doing)
            found = await self._context.systems.dns().weights(deadline=_DNS_SECONDS)
        except TemporaryError as error:
            return (error.found,)
        refuse_strangers(self._context.systems.playbook, found, self._args.weights(self._share), doing)
        return ()


def differences(playbook: Playbook, found: Mapping[str, Weight], expected: Mapping[str, int]) -> list[str]:
    """In words, what of the public record is not as expected: weights, addresses, and longer TTLs than the playbook's."""
    words = []
    for name, weight in expected.items():
        item = found.get(name)
        if item is None:
            words.append(f"{name} has no record any more")
            continue
        if item.weight != weight:
            words.append(f"{name} has weight {item.weight}, expected {weight}")
        address = playbook.regions[name].ingress.address
        if item.value != address:
            words.append(f"{name} leads to {item.value}, expected {address}")
    words += [f"a record of {name} that the playbook does not know" for name in found if name not in expected]
    return words


def refuse_strangers(
    playbook: Playbook, found: Mapping[str, Weight], expected: Mapping[str, int], doing: str
) -> None:
    """Raise when the records are not as expected.

    Raises:
        PermanentError: with the difference.
    """
    words = differences(playbook, found, expected)
    if words:
        raise PermanentError(
            doing,
            f"somebody else changed the records of {playbook.traffic.record}: {'; '.join(words)}",
            "Nothing was changed. Find out who did it and why; then plan again from what is there",
        )


async def _refuse_other_epoch(context: StepContext, args: ShareArgs, doing: str) -> None:
    """Users are sent to who writes, or nowhere.

    Raises:
        PermanentError: the right to write is not what this plan made of it.
    """
    record = await context.systems.authority.read_authority()
    instance = context.systems.playbook.regions[args.home].postgres.instance
    held = record.holder is not None and record.holder.instance == instance and record.phase is Phase.HELD
    if record.epoch != args.epoch or not held:
        holder = record.holder.instance if record.holder else "nobody"
        raise PermanentError(
            doing,
            f"the right to write has moved on: epoch {record.epoch}, {record.phase} by {holder}",
            "This plan is void: look at `hmsdr authority show`",
        )


def _shown(reading: Reading | str) -> Any:
    if isinstance(reading, str):
        return reading
    return {
        "requests": _rounded(reading.requests),
        "errors": _rounded(reading.errors),
        "saturation": _rounded(reading.saturation),
        **{name: _rounded(value) for name, value in reading.latency.items()},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)  # noqa: PLR0124 - not a number


def _look(playbook: Playbook, region: str) -> Manual:
    values = {"region": region, "window": "5m", "quantile": "0.95"}
    url = playbook.prometheus.url
    signals = playbook.prometheus.signals
    asked = [signals.requests, signals.errors, signals.latency, signals.saturation]
    limits = playbook.procedures.switchback
    return Manual(
        tuple(
            f"curl -fsS -G {url}/api/v1/query --data-urlencode 'query={filled(each, values)}'"
            for each in asked
        ),
        f"errors below {100 * limits.error_ratio:g} % of requests, 95 of 100 within {limits.latency_p95.total_seconds():g} s, "
        f"saturation below {limits.saturation:g}",
        ("An empty result is no good news: the monitoring is broken. Move nobody until it is mended.",),
    )
