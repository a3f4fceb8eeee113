"""One tree out of several files: `extends` and overlays. Merges values that know their file; judges none."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from hmsdr.playbook.document import Entry, Node, read_document, refuse
from hmsdr.playbook.findings import nearest

MAX_EXTENDS = 8
_DATA = Path(str(resources.files("hmsdr.playbook"))) / "data"
SHIPPED = {"hms": _DATA / "hms.yaml"}
"""The playbooks that come with the product, by the name that `extends` and the command line use."""


def resolve_name(name: str | Path) -> Path:
    """The file that a user means: a shipped playbook's name, or a path."""
    return SHIPPED.get(str(name)) or Path(name)


def compose(path: Path, overlay: Path | None = None) -> Node:
    """The whole tree of `path`, everything that it extends, and `overlay` over it.

    The overlay's name, when it does not say one itself, is its file's.

    Raises:
        PlaybookError: a file cannot be read, or extends something that it cannot.
    """
    tree = _chain(path, ())
    if overlay is None:
        return tree
    over = read_document(overlay)
    if (entry := over.entries().get("extends")) is not None:
        refuse(
            entry.mark,
            "an overlay that extends a playbook",
            "an overlay without extends",
            "What it lies over is named where it is used.",
            keys=("extends",),
        )
    tree = merge(tree, over)
    if "overlay" in over.entries():
        return tree
    return replace(tree, value={**tree.entries(), "overlay": Entry(over.mark, Node(overlay.stem, over.mark))})


def _chain(path: Path, seen: tuple[Path, ...]) -> Node:
    tree = read_document(path)
    entry = tree.entries().get("extends")
    if entry is None:
        return tree
    base = _base_of(entry, path)
    line = (*seen, _real(path))
    if _real(base) in line:
        refuse(entry.mark, "a playbook that extends itself", "another playbook", keys=("extends",))
    if len(line) >= MAX_EXTENDS:
        refuse(entry.mark, f"more than {MAX_EXTENDS} playbooks in a row", "fewer", keys=("extends",))
    own = {key: value for key, value in tree.entries().items() if key != "extends"}
    return merge(_chain(base, line), replace(tree, value=own))


def _base_of(entry: Entry, path: Path) -> Path:
    name = entry.node.value
    allowed = f"{', '.join(SHIPPED)} (shipped), or a path such as ./other.yaml"
    if not isinstance(name, str):
        refuse(entry.mark, "something that is not a text", allowed, keys=("extends",))
    if name in SHIPPED:
        return SHIPPED[name]
    base = path.parent / name
    if "/" not in name and not name.endswith((".yaml", ".yml")):
        refuse(
            entry.mark, f"the unknown playbook '{name}'", allowed, nearest(name, SHIPPED), keys=("extends",)
        )
    if found := _no_file(base):
        refuse(entry.mark, f"{found} ({base})", allowed, keys=("extends",))
    return base


def _no_file(path: Path) -> str:
    """Why nothing can be read there, empty when there is no reason; a name that is too long names no file either."""
    try:
        if path.is_dir():
            return "a directory"
        return "" if path.exists() else "a file that does not exist"
    except OSError:
        return "a file that does not exist"


def _real(path: Path) -> Path:
    return path.resolve(strict=False)


def merge(base: Node, over: Node) -> Node:
    """`over` laid over `base`: mappings key by key, null removes a key that `base` has, all else is replaced.

    A key that both have keeps the place of the upper one, so that errors name the file that said it last.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, entry in over.value.items():
        below = merged.get(key)
        if below is None:
            merged[key] = entry
        elif entry.node.value is None:
            del merged[key]
        else:
            merged[key] = Entry(entry.mark, merge(below.node, entry.node))
    return Node(merged, over.mark, 1 + sum(entry.node.size for entry in merged.values()))
