"""One of the five services as a pod's program. `main` is what the lab's kubelet calls in a forked child."""

from hmsdr.lab.hms.service.process import main

__all__ = ["main"]
