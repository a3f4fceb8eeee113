"""Project-wide test settings. The tests of a file run in their order on one worker (`--dist loadfile`): some share a lab."""

from __future__ import annotations

pytest_plugins = ["lab_fixture"]
