"""Telling the response team what a run does: it begins, it has ended (FA-2, CM-1).

Facts of the plan only: no patient data, nothing that a person would have to look up first. Delivery is at least
once: a message carries a key, so that one which comes twice can be told.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from hmsdr.playbook.base import Model, format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, RegionName, StepContext
from hmsdr.runbook.plan import Mode
from hmsdr.runbook.team import escalation, tell

_PAUSE: Mapping[Mode, str] = {
    "planned": "Users are served; saving pauses for a moment when the other region takes over.",
    "unplanned": "Until it is done, new records cannot be saved.",
}


class NotifyArgs(Model):
    """A run from `source` to `target` has `moment`."""

    moment: Literal["begun", "ended"]
    source: RegionName
    target: RegionName
    mode: Mode = "unplanned"


class NotifyTeam(Action[NotifyArgs]):
    """One message to the internal channel; to the backup channel when the first does not take it (CM-1)."""

    name: ClassVar[str] = "notify.team"
    summary: ClassVar[str] = "tell the response team on its channel"
    Args = NotifyArgs

    async def check(self, context: StepContext, args: NotifyArgs) -> Check:  # noqa: ARG002
        """Nobody can ask a channel whether it was told."""
        return Check(False)

    async def act(self, context: StepContext, args: NotifyArgs) -> Mapping[str, Any]:
        """Post it; the first channel that accepts is enough."""
        playbook = context.systems.playbook
        text = message_of(playbook, playbook.channels.primary, args)["text"]
        posted = await tell(
            context.systems,
            text,
            f"{context.run}/{args.moment}",
            seconds=lambda: context.remaining(at_most=5),
        )
        return {
            "channel": posted.channel,
            "sent_at": datetime.now(UTC).isoformat(),
            "failed_before": list(posted.failed_before),
        }

    async def verify(self, context: StepContext, args: NotifyArgs) -> Check:
        """The channel's acceptance is the proof there is."""
        channels = context.systems.playbook.channels
        return Check(True, {"moment": args.moment, "channels": [channels.primary, channels.backup]})

    def manual(self, playbook: Playbook, args: NotifyArgs) -> Manual:
        """By hand."""
        channel = playbook.channels.primary
        kind = channel.partition(":")[0]
        body = shlex.quote(json.dumps(message_of(playbook, channel, args), ensure_ascii=False))
        return Manual(
            (
                f"curl -fsS -X POST -H 'Content-Type: application/json' -d {body} \"$HMSDR_{kind.upper()}_WEBHOOK\"",
            ),
            "HTTP 200; the message stands in the channel",
            (
                f"It does not: write it in {playbook.channels.backup} yourself, then call {escalation(playbook)}.",
            ),
        )


def message_of(playbook: Playbook, channel: str, args: NotifyArgs) -> dict[str, str]:
    """What is posted: Slack's and Teams's common ground, a text."""
    old, new = playbook.regions[args.source].title, playbook.regions[args.target].title
    if args.moment == "begun":
        text = (
            f"{playbook.name}: {args.mode} failover from {args.source} ({old}) to {args.target} ({new}) has begun. "
            f"{_PAUSE[args.mode]} Target: {format_duration(playbook.thresholds.targets.rto)}."
        )
    else:
        text = (
            f"{playbook.name}: {args.target} ({new}) serves the hospital now; all services answered. {args.source} "
            f"({old}) cannot write. Next: confirm with the wards, then plan the recovery of {args.source}."
        )
    return {"channel": channel.partition(":")[2], "text": text}
