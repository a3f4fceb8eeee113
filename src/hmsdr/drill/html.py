"""A drill's report as one self-contained page: no script, no font, nothing from elsewhere. Renders only."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from hmsdr.drill import charts
from hmsdr.drill.report import Report, duration


def page(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("hmsdr.drill"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = duration
    environment.filters["signals"] = _signals
    return environment.get_template("report.html.j2").render(
        report=report, timeline=charts.timeline(report), felt=charts.felt(report)
    )


def _signals(seen: Mapping[str, float | None]) -> str:
    """A step's signals in words; Prometheus estimates counts, so they are rounded."""
    words = [f"{seen[name]:.0f} {name}" for name in ("requests", "errors") if seen.get(name) is not None]
    busy = seen.get("saturation")
    words += [] if busy is None else [f"{100 * busy:.0f} % busy"]
    slow = [(name, seen.get(name)) for name in ("p50", "p95", "p99")]
    return ", ".join([*words, *(f"{name} {duration(value)}" for name, value in slow if value is not None)])
