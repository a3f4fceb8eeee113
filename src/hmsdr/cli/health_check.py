"""``hmsdr health-check``: are users served, and is the hospital protected (FM-4, SW-4, TV-1)? A face over control/health."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hmsdr.cli.common import opened, playbook_option, run_async
from hmsdr.control.health import Area, Finding, examine
from hmsdr.errors import ExitStatus
from hmsdr.runbook.systems import Systems


@click.command("health-check")
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def health_check(context: click.Context, playbook_path: Path | None, as_json: bool) -> None:
    """Ask every system once. Exit status 0 when all is well, 1 when something is not."""
    findings = run_async(_examine(playbook_path))
    well = all(finding.well for finding in findings)
    if as_json:
        click.echo(
            json.dumps({"well": well, "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
    else:
        click.echo("\n".join(lines_of(findings)))
    if not well:
        context.exit(ExitStatus.FAILED)


async def _examine(playbook_path: Path | None) -> tuple[Finding, ...]:
    async with opened(playbook_path, reading=True) as (playbook, store):
        systems = Systems(playbook, store)
        try:
            return await examine(systems)
        finally:
            await systems.close()


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Both questions and what was found, for people."""
    lines = []
    for area in Area:
        mine = [finding for finding in findings if finding.area is area]
        bad = sum(not finding.well for finding in mine)
        verdict = (
            click.style("yes", fg="green")
            if not bad
            else click.style(f"no, {bad} of {len(mine)} are not well", fg="red")
        )
        lines.append(f"{area.value[0].upper()}{area.value[1:]}: {verdict}")
        for finding in mine:
            mark = click.style("✓", fg="green") if finding.well else click.style("✗", fg="red")
            expected = f"  (expected: {finding.limit})" if finding.limit and not finding.well else ""
            lines.append(f"  {mark} {finding.name:<22} {finding.observed}{expected}")
            if finding.remedy and not finding.well:
                lines.append(f"      to mend it: `{finding.remedy}`")
    return lines
