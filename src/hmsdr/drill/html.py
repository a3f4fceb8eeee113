"""A drill's report as one self-contained page: no script, no font, nothing from elsewhere. Renders only."""

from __future__ import annotations

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
    return environment.get_template("report.html.j2").render(
        report=report, timeline=charts.timeline(report), felt=charts.felt(report)
    )
