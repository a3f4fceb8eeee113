"""A drill's report for the terminal: what matters first, the stages drawn to scale, what users felt. Renders only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hmsdr.drill.report import Moment, Report, Users, Watched, duration
from hmsdr.incident.checklists import Item, ItemState

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LABEL = 14
_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_SHOWN_IDS = 5
_WIDEST = 110
_ITEM = 42
_WIDE, _NARROW = 96, 80
_MOST_MOMENTS = 400
_COLOURS = {
    "detection": "yellow",
    "verification": "yellow",
    "fencing": "magenta",
    "scaling-up": "cyan",
    "promotion": "green",
    "dns-update": "blue",
    "validation": "bright_green",
}
_MARKS = {
    ItemState.DONE: ("✔", "green"),
    ItemState.OPEN: ("✘", "red"),
    ItemState.NOT_POSSIBLE: ("◌", "yellow"),
}


@dataclass(frozen=True, slots=True)
class _Scale:
    """Seconds after the fault to columns."""

    start: float
    end: float
    columns: int

    def column(self, seconds: float) -> int:
        share = (seconds - self.start) / (self.end - self.start)
        return min(self.columns, max(0, round(share * self.columns)))


def render(report: Report, console: Console, written: Sequence[str] = ()) -> None:
    """Print `report`; `written` names the files that have more."""
    width = min(console.width, _WIDEST)
    scale = _scale(report, width - _LABEL - 14)
    verdict = "PASSED" if report.passed else "FAILED"
    colour = "green" if report.passed else "red"
    head = Text.assemble(
        (f" {verdict} ", f"bold white on {colour}"),
        f"  {report.title}: ",
        report.source,
        " → ",
        report.target,
    )
    parts: list[RenderableType] = [Rule(style=colour), head, Text("")]
    parts += [Padding(Text(f"✘ {_printable(failure)}", style="red"), (0, 2)) for failure in report.failures]
    parts += [
        _figures(report, width),
        Text(""),
        _timeline(report, scale),
        Text(""),
        _felt(report, scale),
        Text(""),
    ]
    if len(report.phases) > 1:
        parts += [_phases(report, width), Text("")]
    if report.traffic_steps:
        parts += [_traffic(report, width), Text("")]
    if report.watched:
        parts += [_watched(report.watched, width), Text("")]
    parts += [_checklist("Before the failover", report.pre_failover, width)]
    parts += [_checklist("After the failover", report.post_failover, width)]
    parts += [Padding(Text(_printable(line), style="dim"), (0, 0, 0, 2)) for line in _footer(report, written)]
    console.print(Group(*parts), width=width, highlight=False)


def _scale(report: Report, columns: int) -> _Scale:
    return _Scale(-1.5, report.last_second + 1.0, max(20, columns))


def _figures(report: Report, width: int) -> Table:
    """Side by side where there is room, else one below the other."""
    table = Table.grid(padding=(0, 3))
    if width >= _WIDE:
        table.add_row(*(_figure(*line) for line in _headline(report)))
        return table
    for name, value, against, good in _headline(report):
        style = "bold green" if good else "bold red"
        table.add_row(Text(f"  {name}", style="dim"), Text(value, style=style), Text(against, style="dim"))
    return table


def _headline(report: Report) -> list[tuple[str, str, str, bool]]:
    """Name, value, what it is held against, and whether it is good."""
    rto, rpo, executed = report.rto_seconds, report.rpo_seconds, report.execution_seconds
    return [
        (
            "RTO",
            duration(rto),
            f"target {report.rto_target_seconds:g} s",
            rto is not None and rto <= report.rto_target_seconds,
        ),
        (
            "RPO",
            duration(rpo),
            f"target {report.rpo_target_seconds:g} s",
            rpo is not None and rpo <= report.rpo_target_seconds,
        ),
        ("execution", duration(executed), "free to validated", executed is not None),
        (
            "lost writes",
            str(len(report.lost_writes)),
            f"of {report.acknowledged_writes} acknowledged",
            not report.lost_writes,
        ),
        ("dual writers", str(report.dual_writers), "must be 0", report.dual_writers == 0),
    ]


def _figure(name: str, value: str, against: str, good: bool) -> Text:
    return Text.assemble(
        ("  " + name + "\n", "dim"),
        (f"  {value}\n", "bold green" if good else "bold red"),
        (f"  {against}", "dim"),
    )


def _timeline(report: Report, scale: _Scale) -> Table:
    """Stages to scale; the fault is second 0."""
    table = _lanes(scale)
    table.add_row(Text(f"{'seconds':>{_LABEL}}", style="dim"), Text(_axis(scale), style="dim"), Text(""))
    for stage in report.stages:
        begin = (stage.started_at - report.fault_at).total_seconds()
        end = begin + (stage.seconds or 0.0)
        first, last = scale.column(begin), scale.column(end)
        bar = "█" * (last - first) if last > first else "▏"
        colour = _COLOURS.get(stage.name, "white") if stage.outcome == "succeeded" else "red"
        table.add_row(
            Text(f"{stage.name:>{_LABEL}}"),
            Text.assemble(" " * first, (bar, colour)),
            Text(duration(stage.seconds), style="bold" if stage.seconds and stage.seconds >= 1 else "dim"),
        )
    return table


def _lanes(scale: _Scale) -> Table:
    """Label, plot, figure: three columns that never wrap."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL, no_wrap=True)
    table.add_column(width=scale.columns, no_wrap=True, overflow="crop")
    table.add_column(no_wrap=True)
    return table


def _axis(scale: _Scale) -> str:
    """Marks at round seconds."""
    apart = scale.columns / (scale.end - scale.start)
    room = len(f"|{scale.end:.0f}") + 1
    step = next((step for step in _STEPS if step * apart >= room), math.ceil(room / apart))
    line = [" "] * scale.columns
    for second in range(0, int(scale.end) + 1, step):
        at, label = scale.column(second), f"|{second}"
        # A figure that would be cut off says something else: none is better.
        if at + len(label) <= scale.columns:
            line[at : at + len(label)] = label
    return "".join(line)


def _felt(report: Report, scale: _Scale) -> Table:
    """Share of failed requests and latency over the same time."""
    table = _lanes(scale)
    users = report.users.coarser(_MOST_MOMENTS)
    slowest = max((moment.p95_ms or 0.0 for moment in _within(users, scale.start, scale.end)), default=0.0)
    errors = _spark(users, scale, _failed_share)
    slow = _spark(users, scale, lambda here: max(m.p95_ms or 0.0 for m in here) / slowest if slowest else 0.0)
    table.add_row(
        Text(f"{'errors':>{_LABEL}}"),
        Text(errors, style="red"),
        Text(f"{report.users.failed} failed", style="dim"),
    )
    table.add_row(
        Text(f"{'p95 latency':>{_LABEL}}"),
        Text(slow, style="cyan"),
        Text(f"max {slowest:.0f} ms", style="dim"),
    )
    return table


def _spark(users: Users, scale: _Scale, share: Callable[[Sequence[Moment]], float]) -> str:
    """A column for what was felt in its stretch of time; empty where there is nothing to tell."""
    line = [" "] * scale.columns
    each = (scale.end - scale.start) / scale.columns
    for column in range(scale.columns):
        here = _within(users, scale.start + column * each, scale.start + (column + 1) * each)
        value = share(here) if here else 0.0
        line[column] = _EIGHTHS[0 if value <= 0 else max(1, round(value * 8))]
    return "".join(line)


def _within(users: Users, start: float, end: float) -> list[Moment]:
    return [moment for moment in users.moments if moment.at < end and moment.at + users.width > start]


def _failed_share(here: Sequence[Moment]) -> float:
    return sum(moment.errors for moment in here) / max(1, sum(moment.requests for moment in here))


def _phases(report: Report, width: int) -> Table:
    """The parts of the whole circle: when each began after the fault, how long it took, what was found."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3)
    table.add_column(width=width - 5, overflow="fold")
    table.add_row(Text(""), Text("The whole circle", style="bold"))
    for phase in report.phases:
        well = phase.outcome == "succeeded"
        mark, colour = _MARKS[ItemState.DONE if well else ItemState.OPEN]
        after = (phase.started_at - report.fault_at).total_seconds()
        took = f"  after {duration(max(0.0, after))}, took {duration(phase.seconds)}"
        table.add_row(Text(f"  {mark}", style=colour), Text.assemble(_printable(phase.title), (took, "dim")))
        for words in phase.words:
            table.add_row(Text(""), Text(_printable(words), style="dim"))
    if report.reconciled is not None:
        lost, whole = (
            report.reconciled,
            "every row of it is known" if report.reconciled["complete"] else "NOT all is known",
        )
        told = f"the lost primary had alone: {lost['commits']} commits in {duration(report.realised_rpo)}; {whole}"
        table.add_row(Text(""), Text(told, style="dim"))
    return table


def _traffic(report: Report, width: int) -> Table:
    """The steps home: the share asked, the one that arrived, for how long it was watched, and what was seen."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3)
    table.add_column(width=width - 5, overflow="fold")
    table.add_row(Text(""), Text(f"Users on their way home to {report.source}", style="bold"))
    for step in report.traffic_steps:
        mark, colour = _MARKS[ItemState.DONE if step.verdict == "good" else ItemState.OPEN]
        arrived = "—" if step.arrived is None else f"{step.arrived:.0f} %"
        p95 = step.home.get("p95")
        seen = "" if p95 is None else f", p95 {duration(p95)}, {step.home.get('errors') or 0:g} errors"
        words = f"  {arrived} arrived, watched for {duration(step.held)}{seen}"
        table.add_row(Text(f"  {mark}", style=colour), Text.assemble(f"{step.asked:>3} %", (words, "dim")))
        if step.found:
            table.add_row(Text(""), Text(_printable(step.found), style="dim"))
    return table


def _watched(watched: Sequence[Watched], width: int) -> Table:
    """What the scenario demands besides: a line each, what was seen below it."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3)
    table.add_column(width=width - 5, overflow="fold")
    table.add_row(Text(""), Text("What was watched", style="bold"))
    for each in watched:
        mark, colour = _MARKS[ItemState.DONE if each.well else ItemState.OPEN]
        table.add_row(Text(f"  {mark}", style=colour), Text(each.what))
        table.add_row(Text(""), Text(_printable(each.found), style="dim"))
    return table


def _checklist(title: str, items: Sequence[Item], width: int) -> Table:
    """A line for each item; in a narrow terminal its evidence stands below it."""
    narrow = width < _NARROW
    table = Table.grid(padding=(0, 1))
    table.add_column(width=3)
    table.add_column(width=width - 5 if narrow else _ITEM, no_wrap=True, overflow="ellipsis")
    if not narrow:
        table.add_column(width=width - _ITEM - 8, no_wrap=True, overflow="ellipsis")
    table.add_row(Text(""), Text(title, style="bold"))
    for item in items:
        mark, colour = _MARKS[item.state]
        tick, evidence = Text(f"  {mark}", style=colour), Text(_printable(item.evidence), style="dim")
        if narrow:
            table.add_row(tick, Text(item.title))
            table.add_row(Text(""), evidence)
        else:
            table.add_row(tick, Text(item.title), evidence)
    return table


def _printable(text: str) -> str:
    """What others wrote, without the power to move the cursor."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def _footer(report: Report, written: Sequence[str]) -> list[str]:
    overlay = f" with the overlay '{report.overlay}' ({_figures_of(report)})" if report.overlay else ""
    lines = ["", f"Playbook {report.playbook}{overlay}"]
    if report.lost_writes:
        lines.append(
            f"Lost: {', '.join(report.lost_writes[:_SHOWN_IDS])}{' …' if len(report.lost_writes) > _SHOWN_IDS else ''}"
        )
    return [*lines, *written]


def _figures_of(report: Report) -> str:
    return ", ".join(f"{name} {value}" for name, value in report.thresholds.items())
