"""What is said when a program of PostgreSQL fails: the reason, which is seldom the last line."""

from __future__ import annotations

import pytest

from hmsdr.control.bootstrap import why

FULL = """2026-11-25 09:22:59.631 UTC [29742] FATAL:  could not extend file "base/1/2691": No space left on device
2026-11-25 09:22:59.631 UTC [29742] HINT:  Check free disk space.
2026-11-25 09:22:59.631 UTC [29742] PANIC:  cannot abort transaction 1, it was already committed
Aborted
child process exited with exit code 134
initdb: removing data directory "/lab/data"
"""
"""Said by initdb 18.6 on a disk of 20 MB."""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (FULL, 'could not extend file "base/1/2691": No space left on device'),
        ('initdb: error: could not create directory "/x": Permission denied\nbye\n', "Permission denied"),
        ("something\nelse\n\n", "else"),
        ("", ""),
    ],
)
def test_the_line_with_the_reason_is_said(output: str, said: str) -> None:
    assert why(output).endswith(said)
