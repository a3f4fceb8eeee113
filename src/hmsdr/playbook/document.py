"""YAML text as a tree of values that know their file, line and column.

Reads a deliberately small YAML: the JSON types (YAML 1.2's core rules, so ``no`` and ``5:30`` are texts),
anchors, aliases and merge keys, within limits that no honest playbook meets. It knows nothing of playbooks.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Never

import yaml

from hmsdr.playbook.findings import Finding, Keys, Mark, PlaybookError

MAX_BYTES = 512 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000
"""Values in one document, with every alias counted at its full size: the bound on a YAML bomb."""

Scalar = str | int | float | bool | None
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Entry(NamedTuple):
    """A key's place and its value."""

    mark: Mark
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value, where it starts, and how many values it holds with itself."""

    value: Scalar | tuple[Node, ...] | dict[str, Entry]
    mark: Mark
    size: int = 1

    def entries(self) -> dict[str, Entry]:
        """The entries of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def find(self, keys: Keys) -> Node | None:
        """The value at `keys`, or None."""
        node: Node | None = self
        for key in keys:
            if node is None:
                return None
            if isinstance(key, str):
                entry = node.entries().get(key)
                node = entry.node if entry else None
            else:
                items = node.value if isinstance(node.value, tuple) else ()
                node = items[key] if key < len(items) else None
        return node

    def locate(self, keys: Keys) -> Mark:
        """Where `keys` stand: the key itself, or the nearest enclosing value that exists."""
        mark, node = self.mark, self
        for key in keys:
            if isinstance(key, str):
                entry = node.entries().get(key)
                if entry is None:
                    break
                mark, node = entry
            else:
                if not isinstance(node.value, tuple) or key >= len(node.value):
                    break
                node = node.value[key]
                mark = node.mark
        return mark


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file should be, for the words of a refusal.

    Attributes:
        noun: with its article: ``a playbook``.
        instead: what may be named in place of a file; begins with ``or``.
        keys: what its top level holds.
        start: how a new one is begun.
        nearest: from a path that is no usable file to the one that was meant: ``Did you mean …?``, or nothing.
    """

    noun: str
    instead: str
    keys: str
    start: str
    nearest: Callable[[Path], str] = lambda _: ""


PLAYBOOK = Kind(
    "a playbook",
    "or the word hms for the shipped playbook",
    "a mapping of the playbook's keys",
    "Start with `extends: hms`.",
)


def refuse(mark: Mark, found: str, allowed: str, remedy: str = "", keys: Keys = ()) -> Never:
    """Raise a `PlaybookError` of one finding."""
    raise PlaybookError(mark.file, [Finding(keys, found, allowed, remedy, mark=mark)])


def read_text(path: Path, kind: Kind = PLAYBOOK) -> str:
    """The text of a regular file, which should be a `kind`.

    Raises:
        PlaybookError: missing, unreadable, not a regular file, too large or not UTF-8.
    """
    top = Mark(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            found = "a directory" if stat.S_ISDIR(mode) else "something that is not a regular file"
            refuse(top, found, f"a YAML file with {kind.noun}, {kind.instead}", kind.nearest(path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        refuse(top, "no such file", f"a YAML file with {kind.noun}, {kind.instead}", kind.nearest(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable file name"
        allowed = f"a readable YAML file with {kind.noun}, {kind.instead}"
        refuse(top, f"a file that cannot be read ({reason})", allowed, kind.nearest(path))
    if len(content) > MAX_BYTES:
        refuse(top, f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes")
    if b"\0" in content:
        refuse(top, "a binary file", f"a YAML file with {kind.noun}, {kind.instead}", kind.nearest(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        mark = Mark(path, before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        refuse(mark, f"the byte 0x{content[error.start]:02x}", "UTF-8 text", "Save the file as UTF-8.")


def read_document(path: Path, kind: Kind = PLAYBOOK) -> Node:
    """The one document of a file, as a mapping; `kind` is what it should be.

    Raises:
        PlaybookError: with every finding that could be collected.
    """
    return parse_document(read_text(path, kind), path, kind)


def parse_document(text: str, path: Path, kind: Kind = PLAYBOOK) -> Node:
    """As `read_document`, of `text` that came from `path`."""
    composer = _Composer(text, path)
    try:
        node = composer.document()
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(path, at.line + 1, at.column + 1) if at else Mark(path)
        found = error.problem or error.context or "malformed YAML"
        remedy = "Indent with spaces; YAML has no tabs." if "'\\t'" in found else ""
        refuse(mark, f"malformed YAML: {found}", "YAML", remedy)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(path, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        refuse(mark, "a character that cannot be printed", "printable text")
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
        # PyYAML's scanner lets a few of these through on odd escapes and directives.
        refuse(composer.last, "malformed YAML", "YAML")
    if composer.findings:
        raise PlaybookError(path, composer.findings)
    if node is None or node.value is None:
        refuse(Mark(path), "an empty file", kind.noun, kind.start)
    if not isinstance(node.value, dict):
        refuse(node.mark, "something that is not a mapping", kind.keys)
    return node


class _Composer:
    """Builds nodes from PyYAML's events. Not PyYAML's own composer: that one takes the last of two equal keys."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.last = Mark(path)
        self.findings: list[Finding] = []
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def document(self) -> Node | None:
        """The one document; None when there is none."""
        node: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    refuse(self._mark(event), "a second document", "one document in a file")
                self._anchors.clear()
                node = self._node(next(self._events), (), 0)
        return node

    def _mark(self, event: yaml.Event) -> Mark:
        at = event.start_mark
        self.last = Mark(self.path, at.line + 1, at.column + 1) if at else self.last
        return self.last

    def _node(self, event: yaml.Event, keys: Keys, depth: int) -> Node:
        mark = self._mark(event)
        if depth > MAX_DEPTH:
            refuse(mark, f"values nested deeper than {MAX_DEPTH}", f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                refuse(mark, f"the alias *{event.anchor}", "an alias of an anchor above it", keys=keys)
            self._spend(node.size, mark)
            return node
        self._spend(1, mark)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, keys, mark), mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._no_tag(event.tag, keys, mark)
            node = self._sequence(mark, keys, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            self._no_tag(event.tag, keys, mark)
            node = self._mapping(mark, keys, depth)
        else:
            refuse(mark, "malformed YAML", "a value")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _spend(self, nodes: int, mark: Mark) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            refuse(mark, f"more than {MAX_NODES} values, aliases expanded", f"at most {MAX_NODES} values")

    def _no_tag(self, tag: str | None, keys: Keys, mark: Mark) -> None:
        if tag is not None and tag != "!":
            self.findings.append(Finding(keys, f"the tag {tag}", "values without tags", mark=mark))

    def _scalar(self, event: yaml.ScalarEvent, keys: Keys, mark: Mark) -> Scalar:
        text: str = event.value
        if event.tag != "tag:yaml.org,2002:str":
            self._no_tag(event.tag, keys, mark)
        if _FORBIDDEN.search(text):
            self.findings.append(Finding(keys, "a control character", "printable text", mark=mark))
            return ""
        if event.implicit[0]:
            return _plain(text)
        return text

    def _sequence(self, mark: Mark, keys: Keys, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*keys, len(items)), depth + 1))
        return Node(tuple(items), mark, 1 + sum(item.size for item in items))

    def _mapping(self, mark: Mark, keys: Keys, depth: int) -> Node:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            at = self._mark(event)
            if not isinstance(event, yaml.ScalarEvent):
                refuse(at, "a key that is not a text", "texts as keys", keys=keys)
            self._scalar(event, keys, at)
            key: str = _FORBIDDEN.sub("?", event.value)
            node = self._node(next(self._events), (*keys, key), depth + 1)
            if key == "<<" and event.implicit[0]:
                self._merge_key(merged, node, (*keys, key))
            elif key in entries:
                first = entries[key].mark.line
                self.findings.append(
                    Finding(
                        (*keys, key),
                        f"the key a second time (first on line {first})",
                        "each key once",
                        "Remove one of the two.",
                        mark=at,
                    )
                )
            else:
                entries[key] = Entry(at, node)
        whole = {**merged, **entries}
        return Node(whole, mark, 1 + sum(entry.node.size for entry in whole.values()))

    def _merge_key(self, merged: dict[str, Entry], node: Node, keys: Keys) -> None:
        for part in node.value if isinstance(node.value, tuple) else (node,):
            if not isinstance(part.value, dict):
                self.findings.append(
                    Finding(
                        keys,
                        "a value that is not a mapping",
                        "a mapping or a list of mappings",
                        mark=part.mark,
                    )
                )
                continue
            for key, entry in part.value.items():
                merged.setdefault(key, entry)


def _plain(text: str) -> Scalar:
    """An unquoted scalar by the core rules of YAML 1.2."""
    if text in _WORDS or text.lower() in ("null", "true", "false"):
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
