"""The kubelet: every pod of the region is a local process, started, probed, restarted and ended here.

Pods die with this process (PR_SET_PDEATHSIG), as containers die with their machine. It runs one container
of each pod, and decides nothing about how many pods there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hmsdr.lab.kube import containers, images, kinds, podstatus
from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.status import ApiError
from hmsdr.lab.kube.store import Object, Store, key_of, now
from hmsdr.lab.kube.troubles import Troubles
from hmsdr.lab.layout import LAB_ENV, REGION_ENV, Layout, RegionLayout
from hmsdr.lab.processes import kill, lab_processes

_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 0.2, 10.0
_CALM_SECONDS = 30.0
"""A container that ran this long starts with the first backoff again."""
_STARTING_PROBE_SECONDS = 0.2
_FIRST_ADDRESS, _LAST_ADDRESS = 100, 250
EXEC_ENV = "HMSDR_LAB_EXEC"
"""Mark of what `kubectl exec` started: the pod's uid, a slash, and a number of the command's own."""
_KILL_LOOKS = 50
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
        self._pods: dict[str, _Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._next_address = _FIRST_ADDRESS

    async def run(self) -> None:
        """Follow the pods of the store, till cancelled; then end them all."""
        self.region.logs.mkdir(parents=True, exist_ok=True)
        try:
            with self.store.watching() as queue:
                while True:
                    self._follow()
                    await queue.get()
                    while not queue.empty():
                        queue.get_nowait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self.forks.stop()
            await self.session.close()

    def log_file(self, pod: Object, *, previous: bool = False) -> Path:
        """Where the output of the pod's container goes, or went before it was started again."""
        namespace, name = key_of(
            pod
        )  # a pod's name is its own within its namespace alone; neither has an underscore
        return self.region.logs / f"{namespace}_{name}{'.previous' if previous else ''}.log"

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
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            current = self.store.find(kinds.PODS, *key)
            if current is None or current["metadata"]["uid"] != uid:
                return
            try:
                self._pods[uid] = _Pod(self, current)
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
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)


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


class _Pod:
    """One pod: its process, one after the other."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        self._kubelet = kubelet
        self._pod = pod
        self._key = key_of(pod)
        self._address = kubelet.address_for(pod)
        self._ending = asyncio.Event()
        self._kill = asyncio.Event()
        self._restarts = podstatus.restarts(pod) + bool(pod.get("status", {}).get("containerStatuses"))
        self._last: dict[str, Any] = {}
        if podstatus.is_ending(pod):
            self.end(0)
        else:
            self._write({"waiting": {"reason": "ContainerCreating"}}, ready=False)

    def end(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL after `grace_seconds`."""
        if grace_seconds <= 0:
            self._kill.set()
        elif not self._ending.is_set():
            asyncio.get_running_loop().call_later(grace_seconds, self._kill.set)
        self._ending.set()

    async def run(self) -> None:
        """Keep the container running until the pod's deletion, then remove the pod."""
        backoff = _FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        while not self._ending.is_set():
            began = loop.time()
            await self._once()
            if self._ending.is_set():
                break
            if loop.time() - began > _CALM_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            self._write({"waiting": self._waiting(backoff)}, ready=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
            self._restarts += 1
        current = self._kubelet.store.find(kinds.PODS, *self._key)
        if current is not None and current["metadata"]["uid"] == self._pod["metadata"]["uid"]:
            self._kubelet.store.remove(kinds.PODS, *self._key)

    def _waiting(self, backoff: float) -> dict[str, str]:
        message = self._last.get("waiting", {}).get("message")
        if message:
            self._event("Failed", message, warning=True)
            return {"reason": "ErrImagePull", "message": message}
        self._event("BackOff", "Back-off restarting failed container", warning=True)
        return {"reason": "CrashLoopBackOff", "message": f"back-off {backoff:g}s restarting failed container"}

    async def _once(self) -> None:
        """One life of the container."""
        env = self._kubelet.environment(self._pod, self._address)
        try:
            process = await self._start(env)
        except (images.UnknownImageError, OSError) as error:
            self._last = {"waiting": {"message": str(error)}}
            return
        since = now()
        self._event("Started", f"Started container {self._container['name']} as process {process.pid}")
        self._write({"running": {"startedAt": since}}, ready=False)
        probing = asyncio.create_task(self._probe(since))
        try:
            code = await self._wait(process)
        finally:
            probing.cancel()
            # What the container's process left behind dies with it, as in a container of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await self._kubelet.end_commands(self._pod["metadata"]["uid"])
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        ended = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
        }
        self._last = {"terminated": ended | {"startedAt": since, "finishedAt": now()}}

    async def _start(self, env: Mapping[str, str]) -> containers.Container:
        container, kubelet = self._container, self._kubelet
        image, directory, log = container.get("image", ""), kubelet.region.directory, self._log()
        argv = [*(container.get("command") or []), *(container.get("args") or [])]
        if not argv and images.is_service(image):
            return await kubelet.forks.fork(container["name"], env, directory, log)
        if not container.get("command"):
            argv = images.command(image, env, kubelet.layout, kubelet.region) + argv
        if image == images.REDIS:
            kubelet.region.redis_data.mkdir(parents=True, exist_ok=True)
        return await containers.run(argv, env, directory, log)

    def _log(self) -> Path:
        """A log of its own for each life of the container; of earlier ones the last is kept."""
        log = self._kubelet.log_file(self._pod)
        if log.exists():
            log.replace(self._kubelet.log_file(self._pod, previous=True))
        return log

    async def _wait(self, process: containers.Container) -> int:
        """Wait for the exit; forward SIGTERM and SIGKILL when the pod's deletion is asked for."""
        exited = asyncio.create_task(process.wait())
        try:
            for event, number in ((self._ending, signal.SIGTERM), (self._kill, signal.SIGKILL)):
                asked = asyncio.create_task(event.wait())
                await asyncio.wait({exited, asked}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if exited.done():
                    break
                if number == signal.SIGTERM:
                    self._event("Killing", f"Stopping container {self._container['name']}")
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            return await exited
        finally:
            exited.cancel()

    async def _probe(self, since: str) -> None:
        """Write the pod's readiness whenever it changes; without a probe it is ready at once."""
        probe = self._container.get("readinessProbe") or {}
        state = {"running": {"startedAt": since}}
        period = float(probe.get("periodSeconds", 1))
        limit, failures, ready = int(probe.get("failureThreshold", 3)), 0, False
        while not self._ending.is_set():
            found = await self._healthy(probe, float(probe.get("timeoutSeconds", 1)))
            failures = 0 if found is None else failures + 1
            if found is not None and ready:
                self._event("Unhealthy", f"Readiness probe failed: {found}", warning=True)
            if ready != (found is None) and (found is None or failures >= limit):
                ready = found is None
                self._write(state, ready=ready)
            await asyncio.sleep(period if ready else min(period, _STARTING_PROBE_SECONDS))

    async def _healthy(self, probe: Mapping[str, Any], seconds: float) -> str | None:
        """None, or what is wrong."""
        if "httpGet" not in probe:
            return None
        get = probe["httpGet"]
        url = f"http://{get.get('host') or self._address}:{self._port(get['port'])}{get.get('path', '/')}"
        try:
            async with self._kubelet.session.get(
                url, timeout=aiohttp.ClientTimeout(total=seconds), allow_redirects=False
            ) as answer:
                return None if answer.ok else f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    def _port(self, wanted: int | str) -> int:
        named = {port.get("name"): port["containerPort"] for port in self._container.get("ports") or []}
        return int(named.get(wanted, wanted))

    @property
    def _container(self) -> dict[str, Any]:
        found: dict[str, Any] = self._pod["spec"]["containers"][0]
        return found

    def _write(self, state: dict[str, Any], *, ready: bool) -> None:
        last = self._last if "terminated" in self._last else {}

        def change(pod: Object) -> None:
            podstatus.write(
                pod,
                address=self._address,
                state=state,
                ready=ready and not podstatus.is_ending(pod),
                restart_count=self._restarts,
                last=last,
            )

        self._kubelet.store.update(kinds.PODS, *self._key, change)

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        record(self._kubelet.store, self._pod, reason, message, warning=warning)
