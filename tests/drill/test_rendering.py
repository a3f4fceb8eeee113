"""The two faces of a drill's report: every width, hours, nothing at all, and texts that mean harm."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from rich.console import Console
from story import (
    EAST,
    TRIGGER,
    WEST,
    circle,
    data,
    database_circle,
    database_run,
    gathered,
    home,
    ledger,
    recovery,
    run,
)

from hmsdr.drill import html, terminal
from hmsdr.drill.measures import assess
from hmsdr.drill.report import Moment, Report, duration

HOURS = 4 * 3600
EVIL = "<script>alert(1)</script>\"' onload=x <img src=http://evil.example/x> \x1b[2J{{ 7*7 }}"

DEAD = {**TRIGGER, "kind": "database-failed", "hold_down_seconds": None}
"""Why a database moves alone."""


def reports() -> dict[str, Report]:
    """One of each kind of drill."""
    long = ledger(served_from=HOURS, until=HOURS + 60, each=2)
    late = run(failing="validation/database", end="run.failed", stages={"validation": (100.0, HOURS + 40.0)})
    found = {
        "passed": gathered(ledger(), run()),
        "hours": gathered(long, late),
        "days": gathered(long, run(stages={"validation": (100.0, 400_000.0)}, until="validation")),
        "never": gathered(
            ledger(served_from=99, until=90), run(failing="fencing/free-authority", end="run.failed")
        ),
        "unfinished": gathered(ledger(), run(until="fencing", end=None)),
        "unnoticed": gathered(ledger(served_from=0), run()),
        "nothing": gathered([], None, trigger=None, present=None, log_head=None, problem="it broke"),
        "lost": gathered(ledger(), run(), present=set()),
        "circle": gathered(ledger(), run(), **circle(recovery(), compared=data(), gone_home=home())),
        "back": gathered(
            ledger(),
            run(),
            **circle(
                recovery(), compared=data("patients"), gone_home=home(failing="traffic-40/watch", end=None)
            ),
        ),
        "database": gathered(
            ledger(), database_run(EAST, WEST, mode="unplanned"), trigger=DEAD, **database_circle()
        ),
        "half": gathered(ledger(), run(), **circle(None)),
    }
    return {name: assess(each) for name, each in found.items()}


REPORTS = reports()


def printed(report: Report, width: int) -> list[str]:
    out = io.StringIO()
    terminal.render(report, Console(file=out, width=width, color_system=None), ["Report: /x/report.html"])
    return out.getvalue().splitlines()


@pytest.mark.req("TV-4")
@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("name", REPORTS)
def test_the_summary_fits_every_terminal(name: str, width: int) -> None:
    report = REPORTS[name]
    lines = printed(report, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert ("PASSED" if report.passed else "FAILED") in lines[1]
    assert "…" not in text.split("Before the failover")[0], "no figure is cut off"
    for stage in report.stages:
        (lane,) = [line for line in lines if line.startswith(f"{stage.name:>14} ")]
        assert lane.rstrip().endswith(duration(stage.seconds)), "a lane is one line, and its figure is whole"
    for item in (*report.pre_failover, *report.post_failover):
        shown = [line for line in lines if re.match(rf"  [✔✘◌] {re.escape(item.title)}( |$)", line)]
        assert shown, item
    # The axis: every mark is whole, apart from the next, and in order.
    axis = next(line for line in lines if line.lstrip().startswith("seconds"))
    assert re.fullmatch(r" *seconds +(\|\d+ +)*(\|\d+)? *", axis)
    marks = [int(mark) for mark in re.findall(r"\|(\d+)", axis)]
    assert marks[0] == 0
    assert len({second - first for first, second in pairwise(marks)}) <= 1, "evenly apart"
    assert len(marks) <= 24


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_long_line_of_the_footer_keeps_its_indent(width: int) -> None:
    report = replace(
        REPORTS["passed"], overlay="lab", thresholds={f"threshold_{n}": "500ms" for n in range(9)}
    )
    lines = printed(report, width)
    first = next(index for index, line in enumerate(lines) if line.startswith("  Playbook "))
    footer = [line.rstrip() for line in lines[first:] if line.strip()]
    assert len(footer) > 3, "it is too long for one line"
    assert all(line.startswith("  ") and not line.startswith("   ") for line in footer)


def test_the_lanes_are_drawn_to_scale() -> None:
    lines = {line.split()[0]: line for line in printed(REPORTS["passed"], 100) if line.strip()}
    cells = {name: lines[name].count("█") for name in ("detection", "fencing", "validation", "scaling-up")}
    assert cells["detection"] / cells["fencing"] == pytest.approx(7.5 / 3, rel=0.1)
    assert cells["scaling-up"] / cells["validation"] == pytest.approx(4.5 / 2, rel=0.15)
    start = lines["fencing"].index("█")
    assert lines["seconds"].index("|8") == pytest.approx(start, abs=1)


def test_an_outage_is_one_block_however_long_it_was() -> None:
    for name in ("passed", "hours", "never"):
        (errors,) = [line for line in printed(REPORTS[name], 80) if line.lstrip().startswith("errors")]
        assert re.fullmatch(r" *errors +[▁-▇]?█{10,}[▁-▇]? +\d+ failed *", errors), errors


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    hostile = assess(gathered(ledger(), run(), problem=EVIL))
    assert "\x1b" not in "\n".join(printed(hostile, 80))


class Page(HTMLParser):
    """The tags of a page, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_stands_alone(name: str) -> None:
    text = html.page(REPORTS[name])
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    for _, attributes in page.tags:
        assert not attributes.keys() & {"src", "href", "xlink:href", "srcset", "action", "data"}
        assert not [each for each in attributes if each.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", text)
    assert len(text) < 500_000, "an outage of hours is not a page of megabytes"
    assert "None" not in page.text
    assert REPORTS[name].outcome in page.text
    for number in re.findall(r' (?:x|y|width|height|x1|x2)="([^"]*)"', text):
        assert float(number) >= 0, "nothing is drawn outside, or with a negative size"


def test_what_was_watched_on_the_way_home_has_units() -> None:
    text = Page(html.page(REPORTS["circle"])).text
    assert "us-east-1: 40 requests, 0 errors, 20 % busy, p95 31 ms" in text


def test_nothing_on_the_page_demands_more_room_than_a_telephone_has() -> None:
    """Columns shrink, words break, and drawings move within their frame; on paper all of it is there."""
    text = html.page(REPORTS["passed"])
    style = text[text.index("<style>") : text.index("</style>")]
    for least in re.findall(r"minmax\(([^,]+(?:, 100%\))?), 1fr\)", style):
        assert "100%" in least or int(least.removesuffix("px")) <= 300, least
    assert re.search(r"^td, th \{[^}]*overflow-wrap: anywhere", style, re.MULTILINE)
    assert re.search(r"^\.plot \{[^}]*overflow-x: auto", style, re.MULTILINE)
    assert "@media screen and (prefers-color-scheme: dark)" in style, "paper is never dark"
    assert "details::details-content" in style[style.index("@media print") :]


def test_hostile_texts_are_only_text() -> None:
    state = run(
        observed={"announcement/begun": {"channel": EVIL}, "validation/database": {"counts": {EVIL: EVIL}}}
    )
    trigger = {**TRIGGER, "evidence": {EVIL: EVIL, "items": "x"}, "region": EVIL}
    told = assess(gathered(ledger(), state, trigger=trigger, problem=EVIL))
    stages = tuple(replace(stage, name=EVIL, title=EVIL, outcome=EVIL) for stage in told.stages)
    steps = tuple(replace(step, title=EVIL, found=EVIL) for step in told.steps)
    fields = dict.fromkeys(
        ("title", "source", "target", "fault", "playbook", "overlay", "run", "plan_hash", "log_head"), EVIL
    )
    hostile = replace(
        told, **fields, stages=stages, steps=steps, lost_writes=(EVIL,), thresholds={EVIL: EVIL}
    )
    page = Page(html.page(hostile))
    assert {tag for tag, _ in page.tags} == {
        tag for tag, _ in Page(html.page(assess(gathered(ledger(), run(), present=set(), problem="x")))).tags
    }
    for _, attributes in page.tags:
        assert not attributes.keys() & {"src", "href", "onload"}
    assert page.text.count(EVIL) > 15, "told as it is, not left out"


def test_coarser_moments_lose_no_request() -> None:
    users = REPORTS["hours"].users
    fewer = users.coarser(100)
    assert len(fewer.moments) <= 100
    for count in ("requests", "errors"):
        assert sum(getattr(each, count) for each in fewer.moments) == sum(
            getattr(each, count) for each in users.moments
        )
    assert users.coarser(len(users.moments)) is users
    three = replace(
        users,
        width=1.0,
        moments=(Moment(0, 1, 1, None, None), Moment(1, 2, 0, 5, 9), Moment(2, 0, 0, None, None)),
    )
    assert three.coarser(1).moments == (Moment(0, 3, 1, 5, 9),)
    assert three.coarser(1).width == 3.0


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "—"), (0, "0 ms"), (0.4, "400 ms"), (3.5, "3.50 s"), (99.99, "99.99 s"), (900, "900 s"), (17_900, "4 h 58 min")],
)  # fmt: skip
def test_durations_for_people(value: float | None, words: str) -> None:
    assert duration(value) == words
