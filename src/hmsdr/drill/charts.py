"""The drawings of a drill's report as SVG: stages to scale, and what users felt over the same time. Renders only.

Colours come from the page's style sheet by class, so that they follow its light and dark schemes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from hmsdr.drill.report import Moment, Report, duration

_LEFT, _RIGHT, _PLOT = 132.0, 96.0, 720.0
_WIDTH = _LEFT + _PLOT + _RIGHT
_ROW = 30.0
_BAR = 18.0
_TOP = 34.0
_PANEL = 84.0
_PANEL_GAP = 34.0
_MOST_TICKS = 14
_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_MOST_COLUMNS = 360
_GAPLESS = 4.0
"""Columns narrower than this stand without a gap between them."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Seconds after the fault to pixels."""

    start: float
    end: float

    def x(self, seconds: float) -> float:
        share = (seconds - self.start) / (self.end - self.start)
        return _LEFT + _PLOT * min(1.0, max(0.0, share))

    def ticks(self) -> list[int]:
        span = self.end - self.start
        enough = (each for each in _STEPS if span / each <= _MOST_TICKS)
        step = next(enough, _STEPS[-1] * math.ceil(span / _STEPS[-1] / _MOST_TICKS))
        return [second for second in range(0, int(self.end) + 1, step) if second >= self.start]


def timeline(report: Report) -> Markup:
    """The stages, each a bar from its start to its end; the band is the time in which users were not served."""
    axis = _axis(report)
    height = _TOP + _ROW * len(report.stages) + 8
    parts = [_outage(report, axis, height), _grid(axis, height)]
    for number, stage in enumerate(report.stages):
        begin = (stage.started_at - report.fault_at).total_seconds()
        left, right = axis.x(begin), axis.x(begin + (stage.seconds or 0.0))
        top = _TOP + number * _ROW
        bad = "" if stage.outcome == "succeeded" else " bad"
        title = escape(f"{stage.title}: {duration(stage.seconds)}, {stage.outcome}")
        parts.append(
            f'<g><title>{title}</title><text class="name" x="{_LEFT - 12:.1f}" y="{top + 13:.1f}">{escape(stage.name)}'
            f'</text><rect class="bar {escape(stage.name)}{bad}" x="{left:.1f}" y="{top:.1f}" rx="3" '
            f'width="{max(2.5, right - left):.1f}" height="{_BAR:.0f}"/>'
            f'<text class="took" x="{right + 7:.1f}" y="{top + 13:.1f}">{duration(stage.seconds)}</text></g>'
        )
    return _svg("Stages of the failover, to scale", height, parts)


def felt(report: Report) -> Markup:
    """Requests that failed, and latency of those that did not, as users felt them."""
    axis = _axis(report)
    height = _TOP + 2 * _PANEL + _PANEL_GAP
    users = report.users.coarser(_MOST_COLUMNS)
    moments = [moment for moment in users.moments if axis.start <= moment.at <= axis.end]
    busiest = max((moment.requests for moment in moments), default=1)
    slowest = max((moment.p95_ms or 0.0 for moment in moments), default=0.0) or 1.0
    first, second = _TOP, _TOP + _PANEL + _PANEL_GAP
    parts = [_outage(report, axis, height), _grid(axis, height)]
    parts += _columns(moments, axis, users.width, first, busiest)
    parts += [_label("requests", f"{busiest} in {users.width:g} s", first)]
    parts += [_line("p95", moments, axis, second, lambda moment: _share(moment.p95_ms, slowest))]
    parts += [_line("p50", moments, axis, second, lambda moment: _share(moment.p50_ms, slowest))]
    parts += [_label("latency", f"{slowest:.0f} ms", second)]
    return _svg("What users felt", height, parts)


def _axis(report: Report) -> _Axis:
    return _Axis(-2.0, report.last_second + 1.5)


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    # Every text in `parts` was escaped where it was put in.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _grid(axis: _Axis, height: float) -> str:
    lines = [
        f'<line class="grid" x1="{axis.x(tick):.1f}" x2="{axis.x(tick):.1f}" y1="22" y2="{height:.0f}"/>'
        f'<text class="tick" x="{axis.x(tick):.1f}" y="14">{tick} s</text>'
        for tick in axis.ticks()
    ]
    fault = axis.x(0.0)
    lines.append(
        f'<line class="fault" x1="{fault:.1f}" x2="{fault:.1f}" y1="22" y2="{height:.0f}"><title>the fault</title></line>'
    )
    return "".join(lines)


def _outage(report: Report, axis: _Axis, height: float) -> str:
    if report.users.first_failed_at is None:
        return ""
    begin = (report.users.first_failed_at - report.fault_at).total_seconds()
    over = report.users.recovered_at
    end = axis.end if over is None else (over - report.fault_at).total_seconds()
    left, right = axis.x(begin), axis.x(end)
    return (
        f'<rect class="outage" x="{left:.1f}" y="22" width="{right - left:.1f}" height="{height - 22:.0f}">'
        f"<title>users were not served: {duration(end - begin)}</title></rect>"
    )


def _columns(moments: Sequence[Moment], axis: _Axis, width: float, top: float, busiest: int) -> list[str]:
    parts = []
    gap = 0.5 if axis.x(width) - axis.x(0.0) > _GAPLESS else 0.0
    for moment in moments:
        left, right = axis.x(moment.at) + gap, axis.x(moment.at + width) - gap
        whole = _PANEL * moment.requests / busiest
        failed = _PANEL * moment.errors / busiest
        title = f"{moment.at:+.1f} s: {moment.requests} requests, {moment.errors} failed"
        parts.append(
            f'<g><title>{title}</title><rect class="good" x="{left:.1f}" y="{top + _PANEL - whole:.1f}" '
            f'width="{max(0.5, right - left):.1f}" height="{whole - failed:.1f}"/>'
            f'<rect class="failed" x="{left:.1f}" y="{top + _PANEL - failed:.1f}" '
            f'width="{max(0.5, right - left):.1f}" height="{failed:.1f}"/></g>'
        )
    return parts


def _line(
    name: str, moments: Sequence[Moment], axis: _Axis, top: float, share: Callable[[Moment], float | None]
) -> str:
    """A line with gaps where nothing succeeded."""
    path, pen = [], "M"
    for moment in moments:
        value = share(moment)
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{axis.x(moment.at):.1f} {top + _PANEL * (1 - value):.1f}")
        pen = "L"
    return f'<path class="{name}" d="{"".join(path)}"/>'


def _share(value: float | None, of: float) -> float | None:
    return None if value is None else value / of


def _label(name: str, top_value: str, top: float) -> str:
    return (
        f'<text class="name" x="{_LEFT - 12:.1f}" y="{top + _PANEL / 2:.1f}">{name}</text>'
        f'<text class="took" x="{_LEFT + _PLOT + 7:.1f}" y="{top + 8:.1f}">{top_value}</text>'
        f'<line class="base" x1="{_LEFT:.1f}" x2="{_LEFT + _PLOT:.1f}" y1="{top + _PANEL:.1f}" y2="{top + _PANEL:.1f}"/>'
    )
