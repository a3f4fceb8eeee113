"""How `hmsdr lab` looks: a lab coming up, and its state. Renders what it is given; asks nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from hmsdr.decide.harmless import one_line
from hmsdr.lab.launch import Remains
from hmsdr.lab.layout import Layout
from hmsdr.lab.report import Status

if TYPE_CHECKING:  # only a terminal needs it
    from rich.live import Live
    from rich.table import Table

_BEGINS = 100
"""Characters of a message in a list."""


class UpView:
    """Shows the steps of coming up: live on a terminal, a line for each that is ready elsewhere."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[str, float]] = {}
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - a command that shows nothing live starts without it
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(
                get_renderable=self._table,
                console=Console(stderr=True),
                refresh_per_second=10,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def progress(self, message: dict[str, Any]) -> None:
        """A step changed its state."""
        step, state, at = message["step"], message["state"], float(message["at"])
        began = self._steps.get(step, ("", at))[1]
        self._steps[step] = (state, began if state == "starting" else at)
        if self._live is None and state == "ready":
            click.echo(f"  {at:5.1f} s  {step}", err=True)

    @property
    def begun(self) -> bool:
        """Whether a step was seen to begin."""
        return bool(self._steps)

    def _table(self) -> Table:
        from rich.table import Table  # noqa: PLC0415

        table = Table.grid(padding=(0, 2))
        now = time.monotonic() - self._began
        for step, (state, at) in self._steps.items():
            mark = "[green]✔[/]" if state == "ready" else "[yellow]…[/]"
            table.add_row(mark, step, f"{at if state == 'ready' else now:5.1f} s")
        return table


def left_lines(left: Remains, directory: Path, *, begun: bool) -> str:
    """What an interrupted `hmsdr lab up` left, and what clears it."""
    if left.up:
        return f"A lab is up in {directory}: `hmsdr lab status` shows it, `hmsdr lab down` ends it"
    if left.processes:
        return f"{left.processes} processes of it are still running: `hmsdr lab down --dir {directory}` ends them"
    if left.files:
        return (
            f"Nothing of it runs; its files are in {directory}, and the next `hmsdr lab up` there clears them"
        )
    if begun:
        return "What had been started was stopped and removed: nothing is left"
    return "Nothing had been started: nothing is left"


def status_lines(found: Status, layout: Layout) -> list[str]:
    """A lab's state, for people."""
    lines = [f"Lab in {found.directory}: {'up' if found.whole else 'up, but broken'}"]
    lines += [f"  ! {problem}" for problem in found.problems]
    lines += ["", "Regions"]
    lines += [f"  {name:<12} {_region(found.regions.get(name, {}))}" for name in layout.regions]
    right = found.authority
    lines += ["", "Right to write"]
    lines.append(f"  epoch {right.get('epoch')}, {right.get('phase')}, {right.get('holder') or 'nobody'}")
    weights = ", ".join(f"{name} {weight}" for name, weight in found.weights.items())
    lines += ["", "Public record", f"  weights: {weights or 'unknown'}; {found.epoch_record}"]
    if found.faults:
        lines += ["", "Broken on purpose (`hmsdr lab heal`)"]
        lines += [f"  {item['fault']} {item['region']} {item['service'] or ''}" for item in found.faults]
    lines += ["", "Processes"]
    lines += _processes(found.processes)
    return [
        *lines,
        "",
        "The playbook's own lines, with this lab's hosts",
        *(f"  {line}" for line in found.commands),
    ]


def message_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each message that arrived: time in UTC, kind, recipient, and how it begins."""
    if not found:
        return ["Nothing has arrived."]
    lines = []
    for each in found:
        at = datetime.fromtimestamp(float(each["at"]), UTC)
        begins = one_line(str(each.get("subject") or each["text"]), _BEGINS)
        lines.append(f"{at:%H:%M:%S.%f}"[:-3] + f"Z  {each['kind']:<6} {each['channel']:<40} {begins}")
    return lines


def _region(region: dict[str, Any]) -> str:
    database = region.get("database")
    if database is None:
        return "down: its agent does not answer"
    text = f"database {database} (epoch {region['epoch']})"
    if database == "standby":
        lag = f"{region['lag_seconds']:.1f} s" if region["lag_seconds"] is not None else "unknown"
        text += f", {'streaming' if region['streaming'] else 'not streaming'}, lag {lag} / {region['lag_bytes']} bytes"
    well = sum(region["services"].values())
    return f"{text}; redis {region['redis'] or 'down'}; {well} of {len(region['services'])} services answer"


def _processes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each process; a database's backends, and pods of one kind, stand together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        name = "postgres" if str(row["name"]).startswith("postgres") else str(row["name"])
        groups.setdefault((row["region"] or "shared", name), []).append(row)
    lines = []
    for (region, name), members in groups.items():
        memory = sum(float(row["memory_mb"]) for row in members)
        oldest = max(float(row["uptime_seconds"]) for row in members)
        count = f"  ({len(members)} processes)" if len(members) > 1 else ""
        lines.append(
            f"  {members[0]['pid']:>7}  {region:<10} {memory:>7.1f} MB {oldest:>8.1f} s  {name}{count}"
        )
    return lines
