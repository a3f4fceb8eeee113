"""The contact lists on paper: a card for the wallet and a sheet for the wall (AP-2). One HTML page, ready to print, without a script.

It is what the playbook says, and when it was printed; a paper cannot know what changed since.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape

from hmsdr.playbook.model import Playbook

_STYLE = """
@page { size: A4; margin: 12mm; }
body { font: 10pt/1.35 system-ui, sans-serif; color: #000; background: #fff; margin: 0 auto; max-width: 186mm; }
h1 { font-size: 18pt; margin: 0 0 2mm; }
h2 { font-size: 12pt; margin: 4mm 0 1mm; }
table { width: 100%; border-collapse: collapse; break-inside: avoid; }
th, td { overflow-wrap: anywhere; text-align: left; vertical-align: top; border: .3mm solid #555; padding: 1mm 1.5mm; }
thead th { background: #ddd; }
td.number { white-space: nowrap; font-weight: 600; }
.note { color: #333; }
.card { width: 85.6mm; min-height: 54mm; box-sizing: border-box; border: .3mm dashed #555; padding: 2.5mm; font-size: 7.2pt; line-height: 1.25; break-inside: avoid; display: inline-block; vertical-align: top; }
.card table { font-size: 7pt; } .card th, .card td { border: 0; padding: .2mm .6mm; } .card td:first-child, .card td.number { white-space: nowrap; }
.card strong { font-size: 8.5pt; }
.sheet { break-before: page; }
"""


def printed(playbook: Playbook, at: datetime) -> str:
    """The page.

    Args:
        playbook: the hospital's.
        at: when it is printed, on the hospital's clocks.
    """
    when = f"{at:%Y-%m-%d %H:%M %Z}"
    name = escape(playbook.name)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{name}: emergency contacts</title><style>{_STYLE}</style></head>
<body>
<section class="card" aria-label="Wallet card">
<strong>{name}: emergency contacts</strong> · {when}
<table><tbody>
{chr(10).join(_card_team(playbook))}
</tbody></table>
</section>
<section class="card" aria-label="Wallet card, back">
<strong>{name}: emergency numbers</strong> · {when}
<table><tbody>
{chr(10).join(_card_lists(playbook))}
</tbody></table>
</section>
<section class="sheet">
<h1>{name}: emergency contacts</h1>
<p class="note">Printed {when}. Replace it when anybody changes, and at every review of the playbook.</p>
<h2>Response team</h2>
{_table(("Role", "Name", "Phone", "Email"), _team(playbook))}
<h2>Emergency contacts and vendors</h2>
{_table(("List", "Who", "How", "Note"), _lists(playbook))}
</section>
</body>
</html>
"""


def _card_team(playbook: Playbook) -> Iterator[str]:
    """Those who hold a role, and who stand in for them. The card grows with them: nothing is cut off."""
    phones = {person.name: person.phone for person in playbook.people}
    for role in playbook.roles.values():
        for name, what in ((role.primary, role.title), (role.backup, f"{role.title}, backup")):
            if name is not None:
                yield _row((what, name, phones.get(name, "")))


def _card_lists(playbook: Playbook) -> Iterator[str]:
    for entries in (*playbook.contacts.emergency.values(), *playbook.contacts.vendors.values()):
        for each in entries:
            yield _row((each.name, each.reach))


def _team(playbook: Playbook) -> Iterator[tuple[str, ...]]:
    held: dict[str, list[str]] = {person.name: [] for person in playbook.people}
    for role in playbook.roles.values():
        held.setdefault(role.primary, []).append(role.title)
        if role.backup is not None:
            held.setdefault(role.backup, []).append(f"{role.title}, backup")
    for person in playbook.people:
        yield "; ".join(held[person.name]) or "on the list", person.name, person.phone, person.email


def _lists(playbook: Playbook) -> Iterator[tuple[str, ...]]:
    for lists in (playbook.contacts.emergency, playbook.contacts.vendors):
        for name, entries in lists.items():
            for each in entries:
                yield name.replace("-", " ").capitalize(), each.name, each.reach, each.note


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>"


def _row(cells: tuple[str, ...]) -> str:
    def cell(text: str) -> str:
        kind = ' class="number"' if text.startswith("+") else ""
        return f"<td{kind}>{escape(text)}</td>"

    return f"<tr>{''.join(map(cell, cells))}</tr>"
