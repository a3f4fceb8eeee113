"""etcd's JSON interface, as much of it as the store needs: range, transaction, token; several members, one deadline.

A request that certainly did not reach a member goes to the next one; a *read* does so after silence too. A write that was
sent and not answered is unclear, and said to be: it is never sent again. Nothing here knows what the keys mean.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hmsdr.errors import RefusedError
from hmsdr.log.store import StoreError, StoreFullError

_NO_SPACE = 8
_UNAUTHENTICATED = 16
_FAILED_PRECONDITION = 9
_PERMISSION = 7
_INVALID = 3
CLEAR = frozenset({_PERMISSION, _FAILED_PRECONDITION, _UNAUTHENTICATED, _INVALID})
"""gRPC codes after which nothing was done; after any other one it is not known.

Not among them is "no space": the transaction that reaches the quota is done, and answered so all the same (seen with 3.4).
"""


@dataclass(frozen=True, slots=True)
class Etcd:
    """Where it is and how to be let in.

    ``endpoints`` are client URLs of members, ``deadline`` is for one question to one member, in seconds. ``ca`` is the
    file of the authority that signed the members' certificates; ``password`` goes with ``user``, None without
    authentication.
    """

    endpoints: tuple[str, ...]
    deadline: float = 1.0
    ca: Path | None = None
    user: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One key and its value. ``version`` counts its changes (etcd's mod_revision)."""

    key: str
    value: str
    version: int


class EtcdApi:
    """One client of an etcd cluster."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self._first = 0
        """The endpoint that answered last."""
        self._token = ""
        context = None
        if etcd.ca is not None:
            try:
                context = ssl.create_default_context(cafile=str(etcd.ca))
            except (OSError, ssl.SSLError) as error:
                raise RefusedError(
                    "connecting to etcd",
                    f"no certificate can be read from {etcd.ca}: {error}",
                    "Name the CA's file",
                ) from error
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context if context is not None else True),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        """Close connections."""
        await self._session.close()

    async def ranges(self, doing: str, wanted: Sequence[tuple[str, str | None, int]]) -> list[list[Found]]:
        """Several reads as of one moment, linearizable: (key, end of the range or None, at most so many)."""
        body = {"success": [{"request_range": _range(*each)} for each in wanted]}
        answer = await self._ask(doing, "/v3/kv/txn", body, again=True)
        return [_found(each.get("response_range", {})) for each in answer.get("responses", [])]

    async def transaction(
        self,
        doing: str,
        compare: Sequence[Mapping[str, Any]],
        puts: Mapping[str, str],
        otherwise: Sequence[str],
    ) -> tuple[bool, list[list[Found]]]:
        """Put all of `puts` if every comparison holds; else read `otherwise`.

        Raises:
            StoreError: refused, or not known to be done.
        """
        body = {
            "compare": list(compare),
            "success": [
                {"request_put": {"key": encode(key), "value": encode(value)}} for key, value in puts.items()
            ],
            "failure": [{"request_range": _range(key, None, 1)} for key in otherwise],
        }
        answer = await self._ask(doing, "/v3/kv/txn", body, again=False)
        done = bool(answer.get("succeeded", False))
        found = (
            [] if done else [_found(each.get("response_range", {})) for each in answer.get("responses", [])]
        )
        return done, found

    async def _ask(self, doing: str, path: str, body: Mapping[str, Any], *, again: bool) -> dict[str, Any]:
        silent = []
        endpoints, first = self._etcd.endpoints, self._first  # who is first changes below: each is asked once
        for position in range(len(endpoints)):
            number = (first + position) % len(endpoints)
            try:
                answer = await self._one(doing, endpoints[number], path, body)
            except aiohttp.ClientConnectorError as error:
                silent.append(f"{endpoints[number]}: {error.strerror or error}")  # certainly not sent
                continue
            except (TimeoutError, aiohttp.ClientError, _Unclear) as error:
                silent.append(f"{endpoints[number]}: {str(error) or 'no answer in time'}")
                self._first = (number + 1) % len(endpoints)  # whoever is silent is not asked first again
                if again:
                    continue
                raise StoreError(
                    doing,
                    f"not known to be done: {silent[-1]}",
                    "Read what is there now, then go on from that",
                ) from error
            self._first = number
            return answer
        raise StoreError(
            doing,
            "; ".join(silent),
            "Are a majority of etcd's members up and joined? `etcdctl endpoint status --cluster` tells",
        )

    async def _one(self, doing: str, endpoint: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        for attempt in (1, 2):
            if self._etcd.user is not None and not self._token:
                self._token = await self._authenticate(doing, endpoint)
            status, answer = await self._post(endpoint, path, body)
            if status < 300:  # noqa: PLR2004 - HTTP
                return answer
            code, message = int(answer.get("code", 0)), str(answer.get("error", answer.get("message", "")))
            stale = code == _UNAUTHENTICATED or "invalid auth token" in message
            if stale and self._token and attempt == 1:
                self._token = ""  # it ran out, or the member began anew: nothing was done
                continue
            if code in CLEAR:
                raise StoreError(doing, f"{endpoint}: {message}", _remedy(code))
            if code == _NO_SPACE:
                raise StoreFullError(
                    doing,
                    f"not known to be done: {endpoint}: {message}",
                    "etcd is full: compact, `etcdctl defrag`, then `etcdctl alarm disarm` (docs/etcd.md)",
                )
            raise _Unclear(message or f"HTTP {status}")
        raise _Unclear("its token is refused again and again")

    async def _authenticate(self, doing: str, endpoint: str) -> str:
        credentials = {"name": self._etcd.user, "password": self._etcd.password}
        status, answer = await self._post(endpoint, "/v3/auth/authenticate", credentials)
        if status < 300:  # noqa: PLR2004 - HTTP
            return str(answer["token"])
        message = str(answer.get("error", f"HTTP {status}"))
        if int(answer.get("code", 0)) in CLEAR:
            raise StoreError(
                doing,
                f"{endpoint} does not let {self._etcd.user} in: {message}",
                "Check user and password of etcd",
            )
        raise _Unclear(message)

    async def _post(self, endpoint: str, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": self._token} if self._token else {}
        async with asyncio.timeout(self._etcd.deadline):
            async with self._session.post(endpoint + path, json=body, headers=headers) as response:
                text = await response.text()
                try:
                    answer = json.loads(text)
                except ValueError:
                    raise _Unclear(f"HTTP {response.status}, and no JSON: is this etcd?") from None
                if not isinstance(answer, dict):
                    raise _Unclear("JSON, and not etcd's")
                return response.status, answer


class _Unclear(Exception):  # noqa: N818 - it is no error of ours: nobody knows
    """The member answered, and it is not known what became of it."""


def encode(text: str) -> str:
    """As etcd's JSON has its bytes."""
    return base64.b64encode(text.encode()).decode()


def value_is(key: str, value: str) -> dict[str, Any]:
    """The comparison that `key` has exactly this value."""
    return {"key": encode(key), "target": "VALUE", "result": "EQUAL", "value": encode(value)}


def is_absent(key: str) -> dict[str, Any]:
    """The comparison that there is no `key`."""
    return {"key": encode(key), "target": "VERSION", "result": "EQUAL", "version": "0"}


def _range(key: str, end: str | None, limit: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {"key": encode(key), "limit": str(limit)}
    if end is not None:
        wanted["range_end"] = encode(end)
    return wanted


def _found(answer: Mapping[str, Any]) -> list[Found]:
    return [
        Found(_decode(each["key"]), _decode(each.get("value", "")), int(each["mod_revision"]))
        for each in answer.get("kvs", [])
    ]


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _remedy(code: int) -> str:
    if code in (_UNAUTHENTICATED, _PERMISSION):
        return "Check the user's role in etcd: it needs to read and write the hospital's prefix"
    return "`etcdctl endpoint status --cluster` tells more"
