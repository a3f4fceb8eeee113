"""Monitoring after a failover: Prometheus sees the new active region, and alerts are there (AP-1). Only looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, StepContext
from hmsdr.runbook.actions.database import RegionArgs

if TYPE_CHECKING:  # the driver is imported when it is used
    from hmsdr.drivers.prometheus import AlertRule


class RegionWatched(Action[RegionArgs]):
    """Every target of the region is up, and at least as many as it has services."""

    name: ClassVar[str] = "monitoring.watched"
    summary: ClassVar[str] = "Prometheus sees every target of the region up"
    Args = RegionArgs

    async def check(self, context: StepContext, args: RegionArgs) -> Check:
        """`up`, by the label that names the region."""
        playbook = context.systems.playbook
        query = _query(playbook, args.region)
        samples = await context.systems.prometheus().query(query, deadline=context.remaining(at_most=3))
        up = sum(sample.value == 1 for sample in samples)
        return Check(
            up == len(samples) and up >= len(playbook.services),
            {"query": query, "targets": len(samples), "up": up},
            f"Prometheus to see {args.region} ({up} of {max(len(samples), len(playbook.services))} targets up)",
        )

    async def act(self, context: StepContext, args: RegionArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: waiting is all."""
        return {}

    def manual(self, playbook: Playbook, args: RegionArgs) -> Manual:
        """By hand."""
        query = _query(playbook, args.region)
        return Manual(
            (f"curl -fsS -G {playbook.prometheus.url}/api/v1/query --data-urlencode 'query={query}'",),
            f"at least {len(playbook.services)} samples, every value 1",
            ("A value is 0: that target does not answer its scrape; look at its pod.",),
        )


class AlertsConfigured(Action[RegionArgs]):
    """Prometheus has alert rules, and each of them can be evaluated."""

    name: ClassVar[str] = "monitoring.alerts"
    summary: ClassVar[str] = "alert rules are loaded and healthy"
    Args = RegionArgs

    async def check(self, context: StepContext, args: RegionArgs) -> Check:  # noqa: ARG002 - alerts are global
        """The rules and their health."""
        rules = await context.systems.prometheus().alert_rules(deadline=context.remaining(at_most=3))
        broken = [rule.name for rule in rules if rule.health == "err"]
        # A rule that was never evaluated may be as wrong as one that failed: it is waited for.
        waiting = [rule.name for rule in rules if rule.health not in ("ok", "err")]
        return Check(
            bool(rules) and not broken and not waiting,
            {
                "rules": [rule.name for rule in rules],
                "firing": [rule.name for rule in rules if rule.state == "firing"],
                "broken": broken,
            },
            _awaited(rules, broken, waiting),
        )

    async def act(self, context: StepContext, args: RegionArgs) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing is done: this only looks."""
        return {}

    def manual(self, playbook: Playbook, args: RegionArgs) -> Manual:  # noqa: ARG002
        """By hand."""
        return Manual(
            (f"curl -fsS '{playbook.prometheus.url}/api/v1/rules?type=alert'",),
            "rules with health ok",
            ("None: rule_files of Prometheus's configuration is empty or was not loaded.",),
        )


def _awaited(rules: Sequence[AlertRule], broken: Sequence[str], waiting: Sequence[str]) -> str:
    if not rules:
        return "alert rules: there are none"
    if broken:
        return f"alert rules that can be evaluated; these cannot: {', '.join(broken)}"
    return f"the first evaluation of {', '.join(waiting)}"


def _query(playbook: Playbook, region: str) -> str:
    return f'up{{{playbook.prometheus.region_label}="{region}"}}'
