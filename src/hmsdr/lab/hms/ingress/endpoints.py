"""Which pods are ready, and which service a path is for: learned from the region's Kubernetes API by a list and a watch. Changes nothing there.

What was learned last stays in force while the API is away: a control plane that fails must not stop the traffic.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from hmsdr.lab.hms.ingress.routes import Routes
from hmsdr.lab.layout import NAMESPACE, Endpoint

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_LIST_SECONDS = 5.0
_WATCH_SECONDS = 300
_LARGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod behind a service; only ready ones are given traffic."""

    pod: str
    address: Endpoint
    ready: bool


class WatchLostError(Exception):
    """The API ended the watch, or said what we did not expect: list again."""


class Backends:
    """Pods by service name (``patient-service``), with a turn for each."""

    def __init__(self) -> None:
        self._pods: dict[str, tuple[Backend, ...]] = {}
        self._turns: dict[str, Iterator[int]] = {}
        self.learned = False
        """Whether the API has ever been heard."""

    def replace(self, items: Sequence[Mapping[str, Any]]) -> None:
        """All that there is, after a list."""
        self._pods = dict(map(read, items))
        self.learned = True

    def change(self, deleted: bool, item: Mapping[str, Any]) -> None:
        """The Endpoints of one service are there, or have gone."""
        if deleted:
            self._pods.pop(str(item["metadata"]["name"]), None)
        else:
            self._pods.update([read(item)])

    def ready(self, service: str) -> list[Backend]:
        """Ready pods of `service`, the one whose turn it is first."""
        pods = [pod for pod in self._pods.get(service, ()) if pod.ready]
        if len(pods) > 1:
            first = next(self._turns.setdefault(service, itertools.count())) % len(pods)
            pods = pods[first:] + pods[:first]
        return pods

    def all(self) -> dict[str, tuple[Backend, ...]]:
        """All pods, ready or not."""
        return dict(self._pods)


def read(item: Mapping[str, Any]) -> tuple[str, tuple[Backend, ...]]:
    """Service name and pods of one Endpoints object."""
    pods: list[Backend] = []
    for subset in item.get("subsets") or ():
        port = int(subset["ports"][0]["port"])
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(field) or ():
                name = (address.get("targetRef") or {}).get("name", address["ip"])
                pods.append(Backend(str(name), Endpoint(str(address["ip"]), port), ready))
    return str(item["metadata"]["name"]), tuple(pods)


class Learner(Protocol):
    """What is kept as the API says: told of all objects of a kind after a list, then of each change."""

    def replace(self, items: Sequence[Mapping[str, Any]]) -> None:
        """All that there is."""

    def change(self, deleted: bool, item: Mapping[str, Any]) -> None:
        """One of them."""


async def follow_all(api: Endpoint, backends: Backends, routes: Routes, note: Callable[[str], None]) -> None:
    """Keep `backends` and `routes` as the API says, until cancelled."""
    core, network = f"http://{api}/api/v1", f"http://{api}/apis/networking.k8s.io/v1"
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(api, f"{core}/namespaces/{NAMESPACE}/endpoints", backends, note))
        group.create_task(follow(api, f"{network}/namespaces/{NAMESPACE}/ingresses", routes, note))


async def follow(api: Endpoint, url: str, learner: Learner, note: Callable[[str], None]) -> None:
    """Keep `learner` as the list at `url` says, until cancelled."""
    pause = _FIRST_PAUSE
    said = ""
    async with aiohttp.ClientSession(read_bufsize=_LARGEST_LINE) as session:
        while True:
            try:
                version = await _list(session, url, learner)
                if said:
                    note("the Kubernetes API answers again")
                pause, said = _FIRST_PAUSE, ""
                await _watch(session, url, version, learner)
            except (
                aiohttp.ClientError,
                OSError,
                TimeoutError,
                WatchLostError,
                ValueError,
                LookupError,
            ) as error:
                found = str(error) or type(error).__name__
                if found != said:
                    note(f"the Kubernetes API at {api}: {found}; what is known stays in force")
                    said = found
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


async def _list(session: aiohttp.ClientSession, url: str, learner: Learner) -> str:
    timeout = aiohttp.ClientTimeout(total=_LIST_SECONDS)
    async with session.get(url, timeout=timeout, raise_for_status=True) as answer:
        body = json.loads(await answer.read())
    learner.replace(body["items"])
    return str(body["metadata"]["resourceVersion"])


async def _watch(session: aiohttp.ClientSession, url: str, version: str, learner: Learner) -> None:
    """Follow changes; returns when the API ends the watch in good order.

    Raises:
        WatchLostError: an event says that the watch is over.
    """
    parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS)}
    timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + _LIST_SECONDS, sock_connect=_LIST_SECONDS)
    async with session.get(url, params=parameters, timeout=timeout, raise_for_status=True) as answer:
        async for line in answer.content:
            event = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                learner.change(kind == "DELETED", item)
            elif kind != "BOOKMARK":
                raise WatchLostError(str(item.get("message", kind)))
