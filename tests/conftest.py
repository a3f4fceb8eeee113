"""Project-wide test settings. The tests of a file run in their order on one worker (`--dist loadfile`): some share a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["lab_fixture"]

_DEAR = ("sim", "lab", "backup", "control")
"""Directories whose files take long, the dearest first: begun last, one of them would run alone in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, every file's tests stay in their order."""
    here = Path(__file__).parent
    ranks = {name: rank for rank, name in enumerate(_DEAR)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(here).parts[0], len(_DEAR)))
