"""Texts that may go into a message: nothing that mentions, links, breaks a line or names a patient. Pure.

What an alert says comes from outside and is shown, never obeyed. What people write keeps its links. A patient's data is kept out of
both: what looks like it is withheld, and the reader is told that it was. A number too much withheld costs a call; one too few, a
patient's privacy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_MENTION = re.compile(r"@(?=\w)")
_MARKUP = re.compile(r"<(?=[!@#(A-Za-z/])")
"""What chats and mail make a link, a mention or a tag of; `<30 s` is none."""
_MOMENT = re.compile(r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?)?\b")
_ADDRESS = re.compile(r"[^\s@<>,;()]+@[^\s@<>,;()]+\.\w+")
_SCHEME = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}):(?=//)|\b(mailto|javascript|tel|data):")
_DOTTED = re.compile(r"(?<=[A-Za-z0-9-])\.(?=[A-Za-z]{2,})")
_PHONE = re.compile(r"(?<![\w.])\+?\d(?:[ ()/-]{0,2}\d){8,14}(?!\w)")
_WORDS_AFTER_PATIENT = "Access|Administration|Care|Data|Experience|Flow|List|Portal|Record|Records|Registration|Safety|Service|Services|System|Systems|Transport"
_SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a record number", re.compile(r"(?i)\b(?:mrn|medical record|patient id|patient no|patient number|chart)\b[^\w\n]{0,3}(?:no|nr|number|#)?[^\w\n]{0,3}[a-z]{0,3}-?\d{3,}")),
    ("a social security number", re.compile(r"(?<!\d)\d{3}[- ]\d{2}[- ]\d{4}(?!\d)")),
    ("a date of birth", re.compile(r"(?i)\b(?:dob|d\.o\.b|date of birth|birth ?date|born)\b[^\n]{0,15}?\d")),
    ("a patient's name", re.compile(rf"\b[Pp]atients?:? +(?:(?:Mr|Mrs|Ms|Miss)\.? +)?(?!(?:{_WORDS_AFTER_PATIENT})\b)[A-ZÀ-ÖØ-Þ]\w*[a-zß-ÿ]\w*[ ,]+[A-ZÀ-ÖØ-Þ]\w*")),
    ("a patient's name", re.compile(r"\b(?:Mr|Mrs|Ms|Miss)\.? +[A-ZÀ-ÖØ-Þ]\w+")),
    ("a long number", re.compile(r"(?<![\w.-])\d{8,}(?![\w-])")),
)  # fmt: skip
WITHHELD = "[withheld: it may tell of a patient]"


@dataclass(frozen=True, slots=True)
class Withheld:
    """What was kept back: where it stood, and what it looked like. Never the text itself."""

    where: str
    looks_like: str


def one_line(text: str, most: int) -> str:
    """On one line, without invisible characters, cut at `most` characters."""
    found = _SPACE.sub(" ", text).strip()
    return found if len(found) <= most else f"{found[: most - 1].rstrip()}…"


def unmentioned(text: str) -> str:
    """Nobody is called by it: no channel, no person, no markup of a chat. An address stays an address."""
    addresses = [match.span() for match in _ADDRESS.finditer(text)]

    def mention(match: re.Match[str]) -> str:
        return "@" if any(begin < match.start() < end for begin, end in addresses) else "(at)"

    return _MARKUP.sub("(", _MENTION.sub(mention, text))


def shown(text: str, most: int = 300) -> str:
    """What comes from outside: on one line, without mentions, and with links that nobody can follow by a slip."""
    found = _SCHEME.sub(lambda match: f"{match.group(1) or match.group(2)}[:]", one_line(text, most))
    return _DOTTED.sub("[.]", _MARKUP.sub("(", _MENTION.sub("(at)", found)))


def written(text: str, most: int = 1000) -> str:
    """What people of the team wrote: on one line, without mentions; links stay."""
    return unmentioned(one_line(text, most))


def tells_of_a_patient(text: str, ours: Collection[str] = ()) -> str | None:
    """What in `text` looks like a patient's data; None when nothing does.

    Args:
        text: as it was written.
        ours: numbers and addresses that may stand there: the team's.
    """
    rest = _SPACE.sub(" ", text)
    for known in sorted(ours, key=len, reverse=True):
        rest = rest.replace(known, " ")
    if _ADDRESS.search(rest):
        return "somebody's address"
    for looks_like, sign in _SIGNS:
        if sign.search(rest):
            return looks_like
    return "somebody's number" if _PHONE.search(_MOMENT.sub(" ", rest)) else None
