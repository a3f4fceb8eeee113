"""The status page as files: HTML that needs no script, JSON, an Atom feed, and the script that puts a banner on a website (CM-3).

Texts come from `hmsdr.decide.statuspage`, and are escaped all the same. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from hmsdr.decide.statuspage import Notice, PublicStatus
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Language, StatusPage

_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "title": "Are our computers working?",
        "none": "Our computers work as they should.",
        "now": "Now",
        "earlier": "Earlier",
        "nothing": "There was no problem in the last 90 days.",
        "since": "Since",
        "to": "to",
        "as_of": "As of",
        "feed": "Follow this page (Atom)",
        "more": "Read more",
    },
    "es": {
        "title": "¿Funcionan nuestras computadoras?",
        "none": "Nuestras computadoras funcionan bien.",
        "now": "Ahora",
        "earlier": "Antes",
        "nothing": "No hubo ningún problema en los últimos 90 días.",
        "since": "Desde",
        "to": "hasta",
        "as_of": "Última actualización:",
        "feed": "Seguir esta página (Atom)",
        "more": "Leer más",
    },
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --soft: #595962; --line: #c9c9d1; --well: #0b6b2e; --ill: #a3200d; }
@media (prefers-color-scheme: dark) { :root { --ink: #eeeef2; --paper: #17181c; --soft: #b4b4be; --line: #45464f; --well: #7fd99a; --ill: #ffb4a6; } }
body { font: 1.125rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 42rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .25rem; }
p { margin: 0 0 .5rem; }
nav { margin-bottom: 1.5rem; }
nav a { display: inline-block; padding: .25rem .75rem .25rem 0; }
a { color: inherit; text-underline-offset: .15em; }
a:focus-visible { outline: 3px solid currentColor; outline-offset: 2px; }
.now { border: 2px solid var(--ill); border-left-width: .75rem; border-radius: .5rem; padding: 1rem; margin-bottom: 1rem; }
.now h3, .now .sign { color: var(--ill); }
.well { border-color: var(--well); }
.well .sign { color: var(--well); font-weight: 600; }
.soft { color: var(--soft); font-size: 1rem; }
ul { list-style: none; padding: 0; margin: 0; }
li { border-top: 1px solid var(--line); padding: .75rem 0; }
section + section { border-top: 3px solid var(--line); margin-top: 3rem; padding-top: 1.5rem; }
@media print { :root { --ink: #000; --paper: #fff; --soft: #333; --line: #888; --well: #000; --ill: #000; } nav { display: none; } .now, li { break-inside: avoid; } }
"""
_CACHE = "public, max-age=30, must-revalidate"


@dataclass(frozen=True, slots=True)
class File:
    """One of the page's files: its name, its type as browsers are told, and how long they may keep it."""

    name: str
    kind: str
    content: bytes
    cache: str = _CACHE


def files(status: PublicStatus, playbook: Playbook, page: StatusPage) -> tuple[File, ...]:
    """All files of the page; what people read comes last, when what it links to is there."""
    made = _Page(status, playbook, page)
    return (
        File("status.json", "application/json; charset=utf-8", made.as_json()),
        File("feed.atom", "application/atom+xml; charset=utf-8", made.feed()),
        File("banner.js", "text/javascript; charset=utf-8", made.banner()),
        File("index.html", "text/html; charset=utf-8", made.html()),
    )


class _Page:
    def __init__(self, status: PublicStatus, playbook: Playbook, page: StatusPage) -> None:
        self._status = status
        self._name = playbook.name
        self._zone = ZoneInfo(playbook.on_call.time_zone)
        self._url = page.url.rstrip("/") + "/"

    def as_json(self) -> bytes:
        status = self._status
        found = {
            "name": self._name,
            "status": status.reach,
            "as_of": _utc(status.as_of),
            "changed_at": _utc(status.changed_at),
            "now": [_notice(each) for each in status.going],
            "history": [_notice(each) for each in status.over],
        }
        return json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n"

    def feed(self) -> bytes:
        status, url = self._status, escape(self._url)
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            '<feed xmlns="http://www.w3.org/2005/Atom">',
            f"<title>{escape(self._name)}: {escape(_WORDS[status.languages[0]]['title'])}</title>",
            f"<id>{url}</id>",
            f"<updated>{_utc(status.changed_at)}</updated>",
            f'<link rel="self" type="application/atom+xml" href="{url}feed.atom"/>',
            f'<link rel="alternate" type="text/html" href="{url}"/>',
            f"<author><name>{escape(self._name)}</name></author>",
        ]
        for each in (*status.going, *status.over):
            text = "\n\n".join("\n".join(each.sentences[language]) for language in status.languages)
            lines += [
                "<entry>",
                f"<title>{escape(' · '.join(each.subjects.values()))}</title>",
                f"<id>{url}#{each.key}</id>",
                f'<link rel="alternate" type="text/html" href="{url}#{each.key}"/>',
                f"<published>{_utc(each.since)}</published>",
                f"<updated>{_utc(each.changed_at)}</updated>",
                f'<content type="text">{escape(text)}</content>',
                "</entry>",
            ]
        return "\n".join([*lines, "</feed>", ""]).encode()

    def banner(self) -> bytes:
        """The website's banner, with the words in it: it loads nothing more, and does nothing while all is well."""
        status = self._status
        gravest = [each for each in status.going if each.reach == status.reach][:1]
        words = {
            language: {"text": " ".join(each.sentences[language]), "more": _WORDS[language]["more"]}
            for each in gravest
            for language in status.languages
        }
        # In a script of a page, "</script>" and line separators would end it.
        said = json.dumps(words or None, ensure_ascii=True).replace("<", "\\u003c")
        first, url = json.dumps(status.languages[0]), json.dumps(self._url).replace("<", "\\u003c")
        return f"""(function () {{
  "use strict";
  var words = {said}, first = {first}, url = {url}, id = "hospital-status-banner";
  function show() {{
    if (!words || document.getElementById(id)) return;
    var language = (document.documentElement.lang || navigator.language || first).slice(0, 2).toLowerCase();
    if (!Object.prototype.hasOwnProperty.call(words, language)) language = first;
    var box = document.createElement("div"), link = document.createElement("a");
    box.id = id;
    box.lang = language;
    box.setAttribute("role", "status");
    box.style.cssText = "padding:12px 16px;background:#7a1407;color:#fff;font:16px/1.5 system-ui,sans-serif;text-align:center";
    box.appendChild(document.createTextNode(words[language].text + " "));
    link.href = url;
    link.style.cssText = "color:#fff;text-decoration:underline";
    link.appendChild(document.createTextNode(words[language].more));
    box.appendChild(link);
    document.body.insertBefore(box, document.body.firstChild);
  }}
  if (document.body) show(); else document.addEventListener("DOMContentLoaded", show);
}})();
""".encode()

    def html(self) -> bytes:
        status = self._status
        first = status.languages[0]
        names = {"en": "English", "es": "Español"}
        several = len(status.languages) > 1
        links = "".join(
            f'<a href="#{each}" lang="{each}" hreflang="{each}">{names[each]}</a>'
            for each in status.languages
        )
        body = "\n".join(self._section(language, first=language == first) for language in status.languages)
        title = f"{escape(self._name)}: {escape(_WORDS[first]['title'])}"
        return f"""<!doctype html>
<html lang="{first}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="300">
<title>{title}</title>
<link rel="alternate" type="application/atom+xml" href="feed.atom" title="{escape(self._name)}">
<style>{_STYLE}</style>
</head>
<body>
{f'<nav aria-label="Language">{links}</nav>' if several else ""}
<main>
{body}
</main>
</body>
</html>
""".encode()

    def _section(self, language: Language, *, first: bool) -> str:
        words, status = _WORDS[language], self._status
        heading = "h1" if first else "h2"
        going = "\n".join(self._now(each, language, marked=first) for each in status.going)
        well = f'<div class="now well"><p class="sign">✓ {escape(words["none"])}</p></div>'
        over = "\n".join(
            f"<li{self._mark(each, marked=first)}><h3>{escape(each.subjects[language])}</h3>"
            f'<p class="soft">{self._span(each, language)}</p></li>'
            for each in status.over
        )
        earlier = f"<ul>{over}</ul>" if over else f"<p>{escape(words['nothing'])}</p>"
        return f"""<section id="{language}" lang="{language}">
<{heading}>{escape(self._name)}: {escape(words["title"])}</{heading}>
<p class="soft">{escape(words["as_of"])} {self._time(status.as_of)}</p>
<h2>{escape(words["now"])}</h2>
{going or well}
<h2>{escape(words["earlier"])}</h2>
{earlier}
<p class="soft"><a href="feed.atom">{escape(words["feed"])}</a></p>
</section>"""

    def _now(self, each: Notice, language: Language, *, marked: bool) -> str:
        lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in each.sentences[language])
        return (
            f'<div class="now"{self._mark(each, marked=marked)}><h3>⚠ {escape(each.subjects[language])}</h3>'
            f'{lines}<p class="soft">{escape(_WORDS[language]["since"])} {self._time(each.since)}</p></div>'
        )

    @staticmethod
    def _mark(each: Notice, *, marked: bool) -> str:
        return f' id="{each.key}"' if marked else ""

    def _span(self, each: Notice, language: Language) -> str:
        return f"{self._time(each.since)} {escape(_WORDS[language]['to'])} {self._time(each.until or each.since)}"

    def _time(self, at: datetime) -> str:
        return f'<time datetime="{_utc(at)}">{at.astimezone(self._zone):%Y-%m-%d %H:%M %Z}</time>'


def _notice(each: Notice) -> dict[str, Any]:
    return {
        "id": each.key,
        "reach": each.reach,
        "since": _utc(each.since),
        "until": each.until and _utc(each.until),
        "changed_at": _utc(each.changed_at),
        "subject": dict(each.subjects),
        "text": {language: list(lines) for language, lines in each.sentences.items()},
    }


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
