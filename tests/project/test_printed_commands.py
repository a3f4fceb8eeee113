"""Commands that messages tell people to run: whoever types one as it stands is not told that an option is missing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hmsdr.cli.main import COMMANDS

SOURCE = Path(__file__).parents[2] / "src" / "hmsdr"
_PRINTED = re.compile(r"`hmsdr ([^`\n\"]+)")


def _printed() -> Iterator[tuple[str, list[str]]]:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        for found in _PRINTED.finditer(text):
            words = found[1].split()
            if words[0] in COMMANDS:
                line = text.count("\n", 0, found.start()) + 1
                yield f"{path.relative_to(SOURCE)}:{line} hmsdr {found[1]}", words


def _wrong(words: list[str]) -> list[str]:
    """What the command line would say no to; a command that is only named, without any argument, is fine."""
    module, _, attribute = COMMANDS[words[0]][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    rest = words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if isinstance(command, click.Group) or not rest:
        return []
    options = [each for each in command.params if isinstance(each, click.Option)]
    known = {name for each in options for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    missing = [each.opts[0] for each in options if each.required and not set(each.opts) & set(given)]
    return [f"{name} is missing" for name in missing] + [
        f"there is no {name}" for name in given if name not in known
    ]


PRINTED = list(_printed())


def test_messages_do_print_commands() -> None:
    assert len(PRINTED) > 50


@pytest.mark.parametrize("words", [words for _, words in PRINTED], ids=[where for where, _ in PRINTED])
def test_a_command_in_a_message_is_complete(words: list[str]) -> None:
    assert not _wrong(words)
