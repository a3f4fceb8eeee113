"""``hmsdr drill``: practise a disaster on the embedded lab, and write down what came of it. A face over `hmsdr.drill`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hmsdr.cli.common import run_async
from hmsdr.cli.lab import directory_option
from hmsdr.cli.lab_view import UpView
from hmsdr.cli.launching import Shown
from hmsdr.drill import database_failure, html, network_partition, regional_outage, terminal
from hmsdr.drill.practice import Narrator, Scenario, practise
from hmsdr.drill.report import Report
from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab import control, wires
from hmsdr.playbook.findings import nearest

SCENARIOS = {
    each.name: each
    for each in (regional_outage.BY_HAND, database_failure.BY_HAND, network_partition.SCENARIO)
}
BY_THEMSELVES = {each.name: each for each in (regional_outage.BY_ITSELF, database_failure.BY_ITSELF)}
"""What ``--auto`` makes of them; a network partition is nobody's to command in any case."""
DEFAULT_OUT = Path(".hmsdr/drills")


@click.group()
def drill() -> None:
    """Practise a disaster on a lab of its own, with real servers, and report."""


@drill.command("list")
def list_command() -> None:
    """The scenarios."""
    for name, scenario in SCENARIOS.items():
        click.echo(f"{name:<20} {scenario.title}")


class Rate(click.FloatRange):
    """A range that ``nan`` is not in, although it is not outside either."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As a number in the range."""
        rate = super().convert(value, param, ctx)
        if math.isnan(rate):
            self.fail(f"{value} is no number", param, ctx)
        return rate


@drill.command("run")
@click.argument("scenario")
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"Directory of the report. Default: {DEFAULT_OUT}/TIME."
)
@click.option("--rate", type=Rate(0.5, 200), help="Requests of the clinics, a second.")
@click.option("--keep", is_flag=True, help="Leave the lab up afterwards.")
@click.option(
    "--auto", is_flag=True, help="With controllers at three sites: nobody touches anything until it is over."
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the summary.")
@directory_option
def run_command(
    scenario: str,
    out: Path | None,
    rate: float | None,
    keep: bool,
    auto: bool,
    as_json: bool,
    directory: Path,
) -> None:
    """Practise SCENARIO. Exit status 0 only when it passed."""
    if scenario not in SCENARIOS:
        hint = nearest(scenario, SCENARIOS) or ""
        raise RefusedError(
            "starting a drill",
            f"there is no scenario {scenario!r}",
            f"{hint} Known: {', '.join(SCENARIOS)}".strip(),
        )
    chosen = BY_THEMSELVES.get(scenario, SCENARIOS[scenario]) if auto else SCENARIOS[scenario]
    if chosen.apart and not wires.entered():
        wires.enter(["-m", "hmsdr", *sys.argv[1:]])
    place = _place(out or DEFAULT_OUT / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    if chosen.apart:
        wires.lay()
    report = _interruptible(_practise(chosen, directory, place, rate, keep=keep, quiet=as_json))
    written = _write(report, place)
    if as_json:
        click.echo((place / "report.json").read_text())
    else:
        terminal.render(
            report,
            Console() if sys.stdout.isatty() else Console(width=100),
            [*written, *([_kept(directory)] if keep else [])],
        )
    if not report.passed:
        raise FailedError(f"drill {scenario}", "; ".join(report.failures), f"See {place / 'report.html'}")


async def _practise(
    scenario: Scenario, directory: Path, place: Path, rate: float | None, *, keep: bool, quiet: bool
) -> Report:
    control.interrupt_on_signals()
    began = time.monotonic()

    def say(text: str) -> None:
        if not quiet:
            click.echo(click.style(f"[{time.monotonic() - began:5.1f} s] {text}", bold=True))

    with contextlib.ExitStack() as stack:
        narrator = Narrator(say)
        if not quiet:
            narrator.lab_progress = stack.enter_context(UpView()).progress
            narrator.run = Shown(as_json=False).watcher()
        return await practise(scenario, directory, place / "ledger.jsonl", narrator, rate=rate, keep=keep)


def _place(out: Path) -> Path:
    """The directory of the report, made; a report that is there is not overwritten."""
    doing = f"writing the report to {out}"
    if (out / "report.json").exists() or (out / "ledger.jsonl").exists():
        raise RefusedError(doing, "a report is there already", "Name another directory with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise RefusedError(
            doing, error.strerror or str(error), "Name another directory with --out"
        ) from error
    return out


def _write(report: Report, place: Path) -> list[str]:
    try:
        (place / "report.json").write_text(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
        (place / "report.html").write_text(html.page(report))
    except OSError as error:
        raise FailedError(
            f"writing the report to {place}",
            error.strerror or str(error),
            "Make room, and run the drill again",
        ) from error
    return [f"Report: {place / 'report.html'}", f"        {place / 'report.json'}"]


def _kept(directory: Path) -> str:
    return f"The lab is still up: `hmsdr lab status --dir {directory}`, `hmsdr lab down --dir {directory}`"


def _interruptible(work: Coroutine[Any, Any, Report]) -> Report:
    try:
        return run_async(work)
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise FailedError("the drill", "it was interrupted", "Nothing is left running; try again") from None
