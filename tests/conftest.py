"""Project-wide test settings: whole-lab tests share one worker, so that two labs never starve each other."""

from __future__ import annotations

import pytest

pytest_plugins = ["lab_fixture"]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``lab`` go to one group of the parallel run."""
    for item in items:
        if item.get_closest_marker("lab") is not None:
            item.add_marker(pytest.mark.xdist_group("lab"))
