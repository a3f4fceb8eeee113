"""``python -m bench.reaping COMMAND``: runs it and buries whatever it leaves, as the first process of a machine does.

Patroni takes a dead server that nobody has buried for a live one, and waits a second longer: a container whose first process is slow
to do so would have told against it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

from hmsdr.lab.processes import DIE_WITH_PARENT

_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Until the command ends; SIGTERM is handed on to it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen([*DIE_WITH_PARENT, *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
