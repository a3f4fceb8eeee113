"""The kubelet: follows the pods of the region, gives each its address, environment and log, and a life of its own.

Pods die with this process (PR_SET_PDEATHSIG), as containers die with their machine. It runs one container
of each pod, and decides nothing about how many pods there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import aiohttp

from hmsdr.lab import held
from hmsdr.lab.kube import containers, heartbeat, images, kinds, podstatus
from hmsdr.lab.kube.podlife import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, PodLife
from hmsdr.lab.kube.status import ApiError
from hmsdr.lab.kube.store import Object, Store, key_of
from hmsdr.lab.kube.troubles import Troubles
from hmsdr.lab.layout import LAB_ENV, NAMESPACE, REGION_ENV, Layout, RegionLayout
from hmsdr.lab.processes import kill, lab_processes

_FIRST_ADDRESS, _LAST_ADDRESS = 100, 250
EXEC_ENV = "HMSDR_LAB_EXEC"
"""Mark of what `kubectl exec` started: the pod's uid, a slash, and a number of the command's own."""
_KILL_LOOKS = 50
_HELD_SECONDS = 0.1
"""Between two looks at what the lab holds down."""
_INHERITED = ("PATH", "PYTHONPATH", "LANG", "HOME", "TMPDIR", "VIRTUAL_ENV")


class Kubelet:
    """The pods of one region."""

    def __init__(self, store: Store, layout: Layout, region: RegionLayout) -> None:
        self.store = store
        self.layout = layout
        self.region = region
        self.session = aiohttp.ClientSession()
        self.forks = containers.ForkServer(self._base(), region.directory, region.logs / "forkserver.log")
        self.entered: set[str] = set()
        """Uids of the pods in which a command was run."""
        self._node = f"node-{region.name}"
        self._troubles = Troubles(store, "kubelet")
        self._pods: dict[str, PodLife] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._next_address = _FIRST_ADDRESS

    async def run(self) -> None:
        """Follow the pods of the store, till cancelled; then end them all."""
        self.region.logs.mkdir(parents=True, exist_ok=True)
        own = [
            asyncio.create_task(self._follow_held(), name="held"),
            asyncio.create_task(heartbeat.beat(self.store, self._node), name="heartbeat"),
        ]
        try:
            with self.store.watching() as queue:
                while True:
                    self._follow()
                    await queue.get()
                    while not queue.empty():
                        queue.get_nowait()
        finally:
            tasks = [*own, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.forks.stop()
            await self.session.close()

    def log_file(self, pod: Object, *, previous: bool = False) -> Path:
        """Where the output of the pod's container goes, or went before it was started again."""
        namespace, name = key_of(
            pod
        )  # a pod's name is its own within its namespace alone; neither has an underscore
        return self.region.pod_log(namespace, name, previous=previous)

    def holds(self, pod: Object) -> bool:
        """Was it broken on purpose, to stay down?"""
        namespace, name = key_of(pod)
        return namespace == NAMESPACE and any(name.startswith(f"{each}-") for each in held.read(self.region))

    async def end_commands(self, mark: str) -> None:
        """SIGKILL what `kubectl exec` started and all that came of it: `mark` is a pod's uid, or one command's whole mark."""
        if mark.partition("/")[0] in self.entered:
            await asyncio.to_thread(_kill_marked, self.layout, mark)

    def address_for(self, pod: Object) -> str:
        """The pod's address: what it had, its region's for a store, else the next free one."""
        image = pod["spec"]["containers"][0].get("image", "")
        if images.host_network(image):
            return (self.region.postgres if image == images.POSTGRES else self.region.redis).host
        if had := pod.get("status", {}).get("podIP"):
            return str(had)
        taken = {item.get("status", {}).get("podIP") for item in self.store.all(kinds.PODS)}
        for _ in range(_FIRST_ADDRESS, _LAST_ADDRESS + 1):
            address = f"{self.region.pod_network}.{self._next_address}"
            self._next_address += 1
            if self._next_address > _LAST_ADDRESS:
                self._next_address = _FIRST_ADDRESS
            if address not in taken:
                return address
        raise OSError(f"no free pod address in {self.region.pod_network}.0/24")

    def environment(self, pod: Object, address: str) -> dict[str, str]:
        """The pod's environment: its own variables on top of the little that every process of a lab has."""
        namespace, name = key_of(pod)
        fields = {"status.podIP": address, "metadata.name": name, "metadata.namespace": namespace}
        env = self._base() | {"POD_IP": address, "POD_NAME": name}
        for entry in pod["spec"]["containers"][0].get("env") or []:
            path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[entry["name"]] = fields.get(path, "") if path else str(entry.get("value", ""))
        return env

    def _base(self) -> dict[str, str]:
        env = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        return env | {LAB_ENV: self.layout.lab_id, REGION_ENV: self.region.name, "PYTHONUNBUFFERED": "1"}

    async def _follow_held(self) -> None:
        """Tell the pods when the lab holds some down, or lets them go."""
        written, before = held.written(self.region), held.read(self.region)
        while True:
            await asyncio.sleep(_HELD_SECONDS)
            if (now_ := held.written(self.region)) == written:
                continue
            written, names = now_, held.read(self.region)
            for pod in list(self._pods.values()):
                pod.look(released=names <= before)
            before = names

    def _follow(self) -> None:
        for pod in self.store.all(kinds.PODS):
            uid = pod["metadata"]["uid"]
            if pod["spec"].get("nodeName") != self._node:
                continue
            if uid not in self._tasks:
                self._tasks[uid] = asyncio.create_task(self._live(pod), name=f"pod {key_of(pod)[1]}")
            elif uid in self._pods and podstatus.is_ending(pod):
                self._pods[uid].end(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        for uid in [uid for uid, task in self._tasks.items() if task.done()]:
            del self._tasks[uid]

    async def _live(self, pod: Object) -> None:
        """A pod till its end. What goes wrong with it is told and tried again: it is no other pod's trouble."""
        uid, key = pod["metadata"]["uid"], key_of(pod)
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            current = self.store.find(kinds.PODS, *key)
            if current is None or current["metadata"]["uid"] != uid:
                return
            try:
                self._pods[uid] = PodLife(self, current)
                await self._pods[uid].run()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other pods must not suffer for it
                self._troubles.tell(current, error)
                if podstatus.is_ending(self.store.find(kinds.PODS, *key) or current):
                    with contextlib.suppress(ApiError):
                        self.store.remove(kinds.PODS, *key)
                    return
            else:
                return
            finally:
                self._pods.pop(uid, None)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)


def _kill_marked(layout: Layout, mark: str) -> None:
    """Until a look finds none: what is killed may have started another one meanwhile."""
    for _ in range(_KILL_LOOKS):
        found = [
            process
            for process in lab_processes(layout.lab_id, layout.directory)
            if (process.environment.get(EXEC_ENV, "") + "/").startswith(mark + "/")
        ]
        if not found:
            return
        for process in found:
            kill(process)
