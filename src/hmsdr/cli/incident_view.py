"""Incidents for people on a terminal. It renders what `hmsdr.incident.view` gives, and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hmsdr.playbook.model import Playbook

_MOST_ALERTS = 10
_WIDTH = 100
_MARKS = {True: "✓", False: "✗", None: "…"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def plain(text: object, most: int = _WIDTH) -> str:
    """On one line, without what could move a terminal's cursor; cut at `most` characters."""
    found = _CONTROL.sub(" ", str(text)).strip()
    return found if len(found) <= most else f"{found[: most - 1]}…"


def list_lines(found: Mapping[str, Any]) -> list[str]:
    """All incidents, and the alerts that none has."""
    lines = []
    for each in found["incidents"]:
        late = f"  missed: {', '.join(each['missed'])}" if each["missed"] else ""
        lines.append(
            f"{each['incident']:<8} {each['severity']}  {each['status']:<13} {_time(each['detected_at'])}  "
            f"{plain(each['title'], 70)}{late}"
        )
    without = found["alerts_without_incident"]
    if without:
        lines.append(f"{len(without)} alerts have no incident yet:")
        lines += [
            f"    {plain(each['key'], 40)}  {plain(each['text'], 80)}" for each in without[:_MOST_ALERTS]
        ]
    return lines or ["No incident. `hmsdr incident declare TITLE --by NAME` declares one."]


def shown_lines(found: Mapping[str, Any]) -> list[str]:
    """One incident."""
    proposed = found["proposed"]
    word = f" (proposed: {proposed})" if proposed != found["severity"] else ""
    lines = [
        f"{found['incident']}  {found['severity']}{word}  {found['status']}  {plain(found['title'], 160)}",
        f"  detected {_time(found['detected_at'])}, declared by {plain(found['declared_by'])}",
    ]
    if found["acknowledged_at"]:
        lines.append(f"  acknowledged {_time(found['acknowledged_at'])} by {plain(found['acknowledged_by'])}")
    if (said := found["overruled"]) is not None:
        lines.append(f"  {found['severity']} is the word of {plain(said['by'])}: {plain(said['text'])}")
    lines += [f"  because {plain(reason)}" for reason in found["reasons"]]
    if found["passed_over"]:
        lines.append(f"  {found['passed_over']} events about it were passed over: they fit nothing")
    lines += ["", "Targets"]
    lines += [f"  {_MARKS[each['met']]} {each['name']:<28} {_target(each)}" for each in found["targets"]]
    lines += ["", "Roles"]
    lines += [f"  {role:<20} {', then '.join(map(plain, chain))}" for role, chain in found["roles"].items()]
    lines += ["", "Checklist", *(_item(each) for each in found["checklist"])]
    if found["due"]:
        lines += [
            "",
            "Due now",
            *(f"  {each['how']}: {_who(each)}: {plain(each['text'])}" for each in found["due"]),
        ]
    if found["facts"]:
        lines += ["", "Known"]
        lines += [
            f"  {name:<14} {plain(each['text'])}  ({plain(each['by'])})"
            for name, each in found["facts"].items()
        ]
    return [*lines, *_alerts(found["alerts"])]


def timeline_lines(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """What happened, an event a line."""
    return [
        f"  {each['seq']:>6}  {_time(each['at'])}  {plain(each['by'], 24):<24}  {each['kind']:<22} {_said(each)}"
        for each in events
    ]


def on_call_lines(playbook: Playbook, found: Mapping[str, Sequence[str]], at: datetime) -> list[str]:
    """Who is called for each role, with numbers."""
    phones = {person.name: person.phone for person in playbook.people}
    lines = [f"On call at {at:%Y-%m-%d %H:%M} UTC"]
    for role, chain in found.items():
        people = ", then ".join(f"{name} {phones.get(name, '')}".strip() for name in chain)
        lines.append(f"  {playbook.roles[role].title:<20} {people}")
    return lines


def _item(each: Mapping[str, Any]) -> str:
    mark = "✓" if each["done"] else "!" if each["overdue"] else "·"
    if each["done"]:
        return f"  {mark} {each['item']:<18} {each['title']:<40} {plain(each['by'], 20)}: {plain(each['evidence'], 60)}"
    late = "overdue since" if each["overdue"] else "until"
    return f"  {mark} {each['item']:<18} {each['title']:<40} {plain(each['owner'], 20)}, {late} {_time(each['due_at'])}"


def _alerts(alerts: Sequence[Mapping[str, Any]]) -> list[str]:
    if not alerts:
        return []
    lines = ["", f"Alerts ({len(alerts)})"]
    for each in alerts[:_MOST_ALERTS]:
        over = f", over {_time(each['ended_at'])}" if each["ended_at"] else ""
        lines.append(f"  {_time(each['at'])}{over}  {plain(each['key'], 40)}: {plain(each['text'], 80)}")
    if len(alerts) > _MOST_ALERTS:
        lines.append(f"  and {len(alerts) - _MOST_ALERTS} more: --json has them all")
    return lines


def _who(each: Mapping[str, Any]) -> str:
    return ", ".join(map(plain, each["people"]))


def _target(each: Mapping[str, Any]) -> str:
    if each["done_at"] is not None:
        return f"{_time(each['done_at'])}, due {_time(each['due_at'])}"
    return f"due {_time(each['due_at'])}"


def _said(each: Mapping[str, Any]) -> str:
    data = each["data"]
    told = [f"{name} {plain(data[name], 80)}" for name in _TOLD if data.get(name) not in (None, "", [], {})]
    return "; ".join(told)


_TOLD = (
    "title",
    "severity",
    "status",
    "role",
    "person",
    "item",
    "field",
    "text",
    "reason",
    "word",
    "series",
    "rung",
)


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
