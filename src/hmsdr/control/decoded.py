"""Reading what PostgreSQL's `test_decoding` says of a change, into columns and values. It understands text and no more.

Values stay the text that PostgreSQL prints, so that nothing is rounded or guessed; NULL is None. The text is patients' data:
an error says where it could not be read, never what stands there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_TABLE, _MESSAGE = "table ", "message: "
_OLD, _NEW = "old-key: ", "new-tuple: "
_NOTHING = "(no-tuple-data)"
_UNCHANGED = "unchanged-toast-datum"
_BARE_END = " "


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row. ``unchanged`` names columns that are stored apart and were not touched: their value is not told."""

    table: str
    """As PostgreSQL quotes it: ``public.patients``, ``public."Odd name"``."""
    operation: str
    """insert, update, delete, truncate, or message (an application's own, in the WAL)."""
    old: dict[str, str | None] | None
    """What told the row apart before (its key, or all of it); None where that was not logged."""
    new: dict[str, str | None] | None
    unchanged: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    text: str
    at: int = 0
    unchanged: list[str] = field(default_factory=list)

    def error(self, expected: str) -> ValueError:
        return ValueError(f"expected {expected} at character {self.at}")

    def ahead(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def take(self, what: str) -> None:
        if not self.ahead(what):
            raise self.error(repr(what))
        self.at += len(what)

    @property
    def ended(self) -> bool:
        return self.at >= len(self.text)

    def quoted(self, mark: str) -> str:
        """What stands between two `mark`s; doubled, a mark stands for itself."""
        self.take(mark)
        parts = []
        while True:
            end = self.text.find(mark, self.at)
            if end < 0:
                raise self.error(f"a closing {mark}")
            parts.append(self.text[self.at : end])
            self.at = end + 1
            if not self.ahead(mark):
                return "".join(parts)
            parts.append(mark)
            self.at += 1

    def until(self, stop: str) -> str:
        """Up to `stop`, or to the end; `stop` is not taken."""
        end = self.text.find(stop, self.at)
        end = len(self.text) if end < 0 else end
        found, self.at = self.text[self.at : end], end
        return found

    def name(self) -> str:
        return self.quoted('"') if self.ahead('"') else self.until("[")

    def skip_type(self) -> None:
        """``[integer[]]``, ``["Odd ]: type"]``: brackets nest, and quotes hide them."""
        depth = 0
        while True:
            if self.ended:
                raise self.error("a type's end")
            if self.ahead('"'):
                self.quoted('"')
                continue
            depth += {"[": 1, "]": -1}.get(self.text[self.at], 0)
            self.at += 1
            if depth == 0:
                return

    def value(self) -> str | None:
        if self.ahead("'"):
            return self.quoted("'")
        if self.ahead("B'"):
            self.at += 1
            return self.quoted("'")
        bare = self.until(_BARE_END)
        return None if bare == "null" else bare

    def columns(self) -> dict[str, str | None]:
        """Columns up to the end, or to the word that begins the new row."""
        found: dict[str, str | None] = {}
        while not self.ended and not self.ahead(_NEW):
            name = self.name()
            self.skip_type()
            self.take(":")
            if self.ahead(_UNCHANGED):
                self.take(_UNCHANGED)
                self.unchanged.append(name)
            else:
                found[name] = self.value()
            if not self.ended:
                self.take(" ")
        return found


def read_change(text: str) -> list[Change]:
    """The change in one line of output (more than one: a TRUNCATE of several tables).

    Raises:
        ValueError: it cannot be read; the error has no data in it.
    """
    reader = _Reader(text)
    if reader.ahead(_MESSAGE):
        return [Change("", "message", None, {"content": text.removeprefix(_MESSAGE)})]
    reader.take(_TABLE)
    tables = [_table(reader)]
    while reader.ahead(", "):
        reader.take(", ")
        tables.append(_table(reader))
    reader.take(": ")
    operation = reader.until(":").lower()
    reader.take(": ")
    if operation == "truncate":
        return [Change(table, operation, None, None) for table in tables]
    if operation not in ("insert", "update", "delete") or len(tables) != 1:
        raise reader.error("INSERT, UPDATE, DELETE or TRUNCATE")
    if reader.ahead(_NOTHING):
        return [Change(tables[0], operation, None, None)]
    old = None
    if reader.ahead(_OLD):
        reader.take(_OLD)
        old = reader.columns()
        reader.unchanged.clear()
        reader.take(_NEW)
    row = reader.columns()
    if operation == "delete":
        return [Change(tables[0], operation, row, None)]
    return [Change(tables[0], operation, old, row, tuple(reader.unchanged))]


def _table(reader: _Reader) -> str:
    """A schema and a table, each perhaps in quotes."""
    start = reader.at
    while not reader.ended:
        if reader.ahead('"'):
            reader.quoted('"')
        elif reader.ahead(": ") or reader.ahead(", "):
            break
        else:
            reader.at += 1
    return reader.text[start : reader.at]
