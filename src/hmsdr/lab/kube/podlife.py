"""The life of one pod: its container's process is started, probed, restarted and ended here, one after the other.

How many pods there are is decided elsewhere; what the lab holds down is left down until it is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from hmsdr.lab import ports
from hmsdr.lab.kube import containers, images, kinds, logtimes, podstatus
from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.store import Object, key_of, now

if TYPE_CHECKING:
    from hmsdr.lab.kube.kubelet import Kubelet

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.2, 10.0
_CALM_SECONDS = 30.0
"""A container that ran this long starts with the first backoff again."""
_STARTING_PROBE_SECONDS = 0.2
_HELD = "held down by `hmsdr lab break` until `hmsdr lab heal`"


class PodLife:
    """One pod: its process, one after the other."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        self._kubelet = kubelet
        self._pod = pod
        self._key = key_of(pod)
        self._address = kubelet.address_for(pod)
        self._ending = asyncio.Event()
        self._kill = asyncio.Event()
        self._woken = asyncio.Event()
        self._released = self._ready = False
        self._process: containers.Container | None = None
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
        self._woken.set()

    def look(self, *, released: bool) -> None:
        """What the lab holds down has changed; `released`: it holds less, or was healed, and nobody waits any longer.

        What serves is killed by whoever breaks it, who counts; what was on its way up, here.
        """
        if not self._ready:
            self._kill_if_held()
        self._released = self._released or released
        self._woken.set()

    async def run(self) -> None:
        """Keep the container running until the pod's deletion, then remove the pod."""
        backoff = FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        if self._kubelet.holds(self._pod):
            await self._rest(0.0)
        while not self._ending.is_set():
            began = loop.time()
            await self._once()
            if self._ending.is_set():
                break
            if loop.time() - began > _CALM_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._write({"waiting": self._waiting(backoff)}, ready=False)
            backoff = await self._rest(backoff)
            self._restarts += 1
        current = self._kubelet.store.find(kinds.PODS, *self._key)
        if current is not None and current["metadata"]["uid"] == self._pod["metadata"]["uid"]:
            self._kubelet.store.remove(kinds.PODS, *self._key)

    async def _rest(self, backoff: float) -> float:
        """Wait till the container may start again, or the pod ends; the next back-off in seconds."""
        loop = asyncio.get_running_loop()
        until, told, self._released = loop.time() + backoff, False, False
        while not self._ending.is_set():
            self._woken.clear()
            stays, left = self._kubelet.holds(self._pod), until - loop.time()
            if not stays and (self._released or left <= 0):
                break
            if stays and not told:
                told = True
                self._event("BackOff", _HELD, warning=True)
                self._write({"waiting": {"reason": "CrashLoopBackOff", "message": _HELD}}, ready=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), None if stays else left)
        return FIRST_BACKOFF_SECONDS if self._released else min(backoff * 2, LONGEST_BACKOFF_SECONDS)

    def _kill_if_held(self) -> None:
        if self._process is not None and self._kubelet.holds(self._pod):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

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
        since, self._process = now(), process
        self._kill_if_held()  # while it was started
        self._event("Started", f"Started container {self._container['name']} as process {process.pid}")
        self._write({"running": {"startedAt": since}}, ready=False)
        probing = asyncio.create_task(self._probe(since))
        clock = logtimes.Clock(self._kubelet.log_file(self._pod))
        stamping = asyncio.create_task(self._stamp(clock))
        try:
            code = await self._wait(process)
        finally:
            self._process = None
            probing.cancel()
            stamping.cancel()
            clock.look()
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
            previous = self._kubelet.log_file(self._pod, previous=True)
            log.replace(previous)
            with contextlib.suppress(FileNotFoundError):
                logtimes.index(log).replace(logtimes.index(previous))
        return log

    async def _stamp(self, clock: logtimes.Clock) -> None:
        while True:
            clock.look()
            await asyncio.sleep(logtimes.LOOK_SECONDS)

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
            return await self._listens()
        get = probe["httpGet"]
        url = f"http://{get.get('host') or self._address}:{self._port(get['port'])}{get.get('path', '/')}"
        try:
            async with self._kubelet.session.get(
                url, timeout=aiohttp.ClientTimeout(total=seconds), allow_redirects=False
            ) as answer:
                return None if answer.ok else f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    async def _listens(self) -> str | None:
        """None, or what is wrong with a store: it shares its region's address, so its own process must be the one there."""
        image = self._container.get("image", "")
        if self._ready or not images.host_network(image) or self._process is None:
            return None
        where = self._kubelet.region.agent if image == images.POSTGRES else self._kubelet.region.redis
        if await asyncio.to_thread(ports.listens, self._process.pid, where):
            return None
        return f"process {self._process.pid} does not listen on {where}"

    def _port(self, wanted: int | str) -> int:
        named = {port.get("name"): port["containerPort"] for port in self._container.get("ports") or []}
        return int(named.get(wanted, wanted))

    @property
    def _container(self) -> dict[str, Any]:
        found: dict[str, Any] = self._pod["spec"]["containers"][0]
        return found

    def _write(self, state: dict[str, Any], *, ready: bool) -> None:
        last = self._last if "terminated" in self._last else {}
        self._ready = ready

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
