"""`python -m hmsdr.lab.kube.forkserver FD`: a process with the services' code loaded, of which the kubelet's pods are forks.

Starting an interpreter and importing takes half a second of a processor for each pod; a fork takes milliseconds. Each pod is
still a process of its own with its own session, environment and log. It has one thread, opens no connection, and dies
with the kubelet, as its pods die with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

Pod = Callable[[Mapping[str, str]], int]
"""What a fork runs with its environment; gives the exit status."""
LARGEST_MESSAGE = 256 * 1024
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_NAME_BYTES = 15


def serve(orders: socket.socket, pod: Pod) -> None:
    """Fork a `pod` for each order, tell of each end, until the kubelet is gone.

    An order is ``{"order", "name", "environment", "directory"}`` with the log as a file descriptor beside it; the answers are
    ``{"order", "pid"}`` and, when that pod has ended, ``{"pid", "code"}`` with minus the signal's number if it was killed.
    """
    ended, wake = socket.socketpair()
    for end in (ended, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ours = (orders, ended, wake)
    with selectors.DefaultSelector() as selector:
        for each in (orders, ended):
            selector.register(each, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if orders in ready:
                data, handles, _, _ = socket.recv_fds(orders, LARGEST_MESSAGE, 1)
                if not data:
                    return
                order = json.loads(data)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    _become(pod, order, handles[0], ours)
                os.close(handles[0])
                _say(orders, order=order["order"], pid=pid)
            if ended in ready:
                with suppress(BlockingIOError):
                    ended.recv(4096)
            _reap(orders)


def _reap(orders: socket.socket) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say(orders, pid=pid, code=os.waitstatus_to_exitcode(status))


def _say(orders: socket.socket, **answer: Any) -> None:
    with suppress(ConnectionError):
        orders.send(json.dumps(answer).encode())


def _become(pod: Pod, order: dict[str, Any], log: int, inherited: tuple[socket.socket, ...]) -> NoReturn:
    """Be the pod of `order`; never returns, whatever happens."""
    code = 1
    try:
        parent = os.getppid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in inherited:
            each.close()
        os.setsid()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NAME, order["name"].encode()[:_NAME_BYTES], 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above took hold
            os._exit(1)
        null = os.open(os.devnull, os.O_RDONLY)
        for ours, standard in ((null, 0), (log, 1), (log, 2)):
            os.dup2(ours, standard)
        os.close(null)
        os.close(log)
        os.chdir(order["directory"])
        os.environ.clear()
        os.environ.update(order["environment"])
        code = pod(os.environ)
    except BaseException as error:  # noqa: BLE001 - the last line of a pod's log, as an interpreter would write it
        os.write(1, f"{type(error).__name__}: {error}\n".encode())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    # Here, since the kubelet imports this module and needs none of that.
    from hmsdr.lab.hms.service import main

    gc.collect()
    gc.freeze()  # what is loaded is shared by every pod: no collection shall touch its pages
    serve(socket.socket(fileno=int(sys.argv[1])), main)
