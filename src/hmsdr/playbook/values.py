"""A tree of nodes as plain values: references resolved, secrets wrapped, relative paths made absolute.

The only place that reads an environment variable or a secret's file. A secret's value never enters a finding.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from hmsdr.playbook import fields
from hmsdr.playbook.base import REFERENCE_PATTERN
from hmsdr.playbook.document import Node
from hmsdr.playbook.findings import Finding, Keys

MAX_SECRET_BYTES = 64 * 1024
_REFERENCE = re.compile(REFERENCE_PATTERN)
_UNDECODED = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in an environment variable that are not UTF-8."""
_ALLOWED = "${env:NAME} or ${file:path}, as the whole value"


class Values:
    """Turns one tree into plain values and collects what is wrong with its references.

    Args:
        environ: where `${env:NAME}` looks.
        secrets: False leaves secrets out (an empty one stands in), for checks without the secrets at hand.
    """

    def __init__(self, environ: Mapping[str, str], *, secrets: bool) -> None:
        self.findings: list[Finding] = []
        self._environ = environ
        self._secrets = secrets

    def of(self, node: Node, annotation: type[BaseModel] | Any, keys: Keys = ()) -> Any:
        """The plain value of `node`, which should be of type `annotation`."""
        if fields.is_secret(annotation) and node.value is not None:
            return self._secret(node, keys)
        if isinstance(node.value, dict):
            return {
                key: self.of(entry.node, fields.descend(annotation, key), (*keys, key))
                for key, entry in node.value.items()
            }
        if isinstance(node.value, tuple):
            return [
                self.of(item, fields.descend(annotation, index), (*keys, index))
                for index, item in enumerate(node.value)
            ]
        if not isinstance(node.value, str):
            return node.value
        text = self._text(node, keys) if "${" in node.value else node.value
        return self._absolute(text, node) if text.strip() and fields.is_path(annotation) else text

    def _text(self, node: Node, keys: Keys) -> str:
        text = str(node.value)
        if not _REFERENCE.fullmatch(text):
            self._report(node, keys, "a malformed reference", _ALLOWED)
            return text
        value = self._resolve(node, keys, text)
        return text if value is None else value

    def _secret(self, node: Node, keys: Keys) -> SecretStr:
        text = node.value
        if not isinstance(text, str) or not _REFERENCE.fullmatch(text):
            remedy = "Secrets never stand in the playbook: keep the value elsewhere, and change it now if it was real."
            self._report(node, keys, "a literal value in place of a secret", _ALLOWED, remedy)
            return SecretStr("")
        if not self._secrets:
            return SecretStr("")
        return SecretStr(self._resolve(node, keys, text) or "")

    def _resolve(self, node: Node, keys: Keys, text: str) -> str | None:
        kind, _, name = text[2:-1].partition(":")
        value = self._environ.get(name) if kind == "env" else self._read(node, keys, text, name)
        if value is not None and _UNDECODED.search(value):
            self._report(node, keys, f"{text}, and its value is not UTF-8 text", "UTF-8 text")
            return None
        if value is not None and "\0" in value:
            self._report(node, keys, f"{text}, and its value has a NUL character in it", "text without one")
            return None
        if value is not None and value.strip():
            return value.strip()
        if kind == "env":
            what = "not set" if value is None else "empty"
            remedy = f"Set the environment variable {name}."
            self._report(node, keys, f"{text}, and {name} is {what}", "a variable that is set", remedy)
        elif value is not None:
            self._report(node, keys, f"{text}, and that file is empty", "a file with the value in it")
        return None

    def _read(self, node: Node, keys: Keys, text: str, name: str) -> str | None:
        path = Path(self._absolute(name, node))
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                problem = "is not a regular file"
            else:
                with path.open("rb") as file:
                    content = file.read(MAX_SECRET_BYTES + 1)
                if len(content) <= MAX_SECRET_BYTES:
                    return content.decode()
                problem = f"is larger than {MAX_SECRET_BYTES} bytes"
        except UnicodeDecodeError:
            problem = "is not UTF-8 text"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        self._report(node, keys, f"{text}, and {path} {problem}", "a readable text file")
        return None

    def _absolute(self, text: str, node: Node) -> str:
        if text.startswith("~/") and (home := self._environ.get("HOME")):
            return str(Path(home) / text[2:])
        return str((node.mark.file.parent / text).absolute())

    def _report(self, node: Node, keys: Keys, found: str, allowed: str, remedy: str = "") -> None:
        self.findings.append(Finding(keys, found, allowed, remedy, mark=node.mark))
