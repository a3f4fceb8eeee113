"""Whatever the file: a playbook or a refusal with findings, never another exception."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from books import SECRETS, SHIPPED_TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from hmsdr.check.playbook import lint, load_checked
from hmsdr.playbook.findings import Finding, PlaybookError
from hmsdr.playbook.load import load

CONTENT = SHIPPED_TEXT.encode()
SMALL = b"extends: hms\nname: &n X\nregions:\n  us-east-1:\n    postgres: {port: 5432, password: '${env:P}'}\npeople: []\n"
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, float("inf"), "", " ", "x", "${env:X}", "${file:/}", "-5m", "9" * 400 + "d", "\x00",
    "\ud800", "SEV-0", [], {}, [[]], {"": ""}, {"a": {"b": []}}, "http://[::1", "https://x:99999", ".", "~/x",
]  # fmt: skip
PIECES = st.sampled_from(
    [b"", b"\t", b"\x00", b"\xff", b"&a ", b"*a", b"<<: *a\n", b"!!set ", b"%YAML 1.1\n", b"---\n", b"...\n", b"[", b"}",
     b"? ", b"- ", b": ", b"|\n", b">-\n", b'"\\U99999999"', b"'", b"#", b"@", b"`", b"${", b"\n", b"\r", b"\xe2\x80\xa8"]
) | st.binary(max_size=4)  # fmt: skip


def outcome(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "book.yaml"
        path.write_bytes(content)
        findings: Iterable[Finding]
        try:
            book = load(path, environ={**SECRETS, "P": "Geheimnis"})
        except PlaybookError as error:
            findings, text = error.findings, str(error)
            assert findings
        else:
            findings, text = lint(book), repr(book)
    assert "Geheimnis" not in text
    "".join([text, *map(str, findings)]).encode()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([CONTENT, SMALL]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), PIECES), min_size=1, max_size=4),
)
def test_bytes_changed_anywhere(content: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    for place, removed, piece in edits:
        at = int(place * len(content))
        content = content[:at] + piece + content[at + removed :]
    outcome(content)


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_bytes_of_any_kind(content: bytes) -> None:
    outcome(content)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_values_changed_anywhere(data: st.DataObject) -> None:
    values: Any = yaml.safe_load(SHIPPED_TEXT)
    place, key = values, None
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        below = place[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.integers(0, 5)) == 0:
            break
        place = below
    place[key] = data.draw(st.sampled_from(ODD))
    outcome(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass"))


def test_files_found_on_this_machine_are_refused() -> None:
    for path in (Path(__file__), Path("/etc/hostname"), Path("/etc/passwd"), Path("/bin/sh")):
        with pytest.raises(PlaybookError):
            load_checked(path)
