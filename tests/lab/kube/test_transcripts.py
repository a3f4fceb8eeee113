"""Real kubectl against a whole lab, word for word: each file in ``transcripts/`` is typed, and what it answers compared."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmsdr.lab.layout import Layout

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


def exchanges(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command line, and the lines that are expected."""
    for part in re.split(r"(?m)^\$ ", re.sub(r"(?m)^#.*\n", "", text))[1:]:
        line, *expected = part.rstrip("\n").split("\n")
        yield line, expected


def pattern(expected: list[str]) -> str:
    """Blanks between columns may differ: kubectl pads to the longest."""
    found = []
    for line in expected:
        if line == "...":
            found.append(r"(?:.*\n)*?")
            continue
        words = []
        for word in re.split(r"(\s+)", line.rstrip()):
            if word.isspace():
                words.append(r"[ \t]+")
                continue
            parts = re.split(r"(<\.\.\.>|<(?!none>)[a-z]+>)", word)
            words.append(
                "".join(
                    ".*"
                    if part == "<...>"
                    else r"\S+?"
                    if part.startswith("<") and part != "<none>"
                    else re.escape(part)
                    for part in parts
                )
            )
        found.append("".join(words) + r"[ \t]*\n")
    return "".join(found)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_kubectl_answers_as_written(lab: Layout, file: Path) -> None:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "make setup brings it"
    for line, expected in exchanges(file.read_text()):
        program, *words = shlex.split(line.replace('"', '\\"'))
        assert program == "kubectl"
        done = subprocess.run(
            [kubectl, *words],
            env={**os.environ, "KUBECONFIG": str(lab.kubeconfig)},
            cwd=lab.directory,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        said = (done.stdout + done.stderr).rstrip() + "\n"
        assert re.fullmatch(pattern(expected).rstrip(), said), f"$ {line}\n{said}\nexpected:\n" + "\n".join(
            expected
        )
