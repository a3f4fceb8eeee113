"""Prometheus: instant queries and alert rules, typed. That nothing matches is an answer; that it cannot be asked is an error."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hmsdr.drivers.errors import DriverError, PermanentError, TemporaryError

_OK = 200
_UNAVAILABLE = 500
_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector; ``at`` in unix seconds. A scalar has no labels."""

    labels: Mapping[str, str]
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alert rule; ``state`` is inactive, pending or firing, ``health`` ok, unknown or err."""

    name: str
    state: str
    health: str


class Prometheus:
    """One Prometheus server.

    Args:
        url: scheme, name and port; a path prefix is allowed.
        ca_file: certificate authority to trust; None means the system's store.
    """

    def __init__(self, url: str, ca_file: str | Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def query(self, expression: str, deadline: float) -> tuple[Sample, ...]:
        """The value of `expression` now; empty when nothing matches.

        Args:
            expression: PromQL that gives an instant vector or a scalar.
            deadline: seconds.

        Raises:
            PermanentError: the expression is wrong, or gives something else.
            TemporaryError: it does not answer, or cannot now.
        """
        doing = f"asking Prometheus at {self._url} for {expression!r}"
        # Plain seconds: with a unit, Prometheus takes whole numbers only.
        data = {"query": expression, "timeout": f"{max(deadline, 0.001):.3f}"}
        return _samples(doing, await self._ask(doing, "POST", "query", data, deadline))

    async def alert_rules(self, deadline: float) -> tuple[AlertRule, ...]:
        """All alert rules that are loaded; empty when there are none.

        Args:
            deadline: seconds.

        Raises:
            PermanentError: it refuses to be asked: the URL is not Prometheus's own.
            TemporaryError: it does not answer, or cannot now.
        """
        doing = f"asking Prometheus at {self._url} for its alert rules"
        found = await self._ask(doing, "GET", "rules?type=alert", None, deadline)
        try:
            return tuple(
                AlertRule(str(rule["name"]), str(rule["state"]), str(rule["health"]))
                for group in found["groups"]
                for rule in group["rules"]
            )
        except (LookupError, TypeError) as error:
            raise TemporaryError(
                doing, f"an answer that cannot be read: {error}", "Check its version"
            ) from error

    async def _ask(
        self, doing: str, method: str, path: str, data: Mapping[str, str] | None, deadline: float
    ) -> Mapping[str, Any]:
        """The data of a successful answer."""
        session = self._opened(doing)
        try:
            async with asyncio.timeout(deadline):
                async with session.request(method, f"{self._url}/api/v1/{path}", data=data) as answer:
                    status, body = answer.status, await answer.read()
        except TimeoutError as error:
            raise TemporaryError(
                doing, f"no answer within {deadline:g} s", "Check that it is up, then try again"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TemporaryError(
                doing, str(error) or type(error).__name__, "Check that it is up, then try again"
            ) from error
        return _checked(doing, status, body)

    def _opened(self, doing: str) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                secure = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                found = f"{self._ca_file}: {error.strerror or error}"
                raise PermanentError(
                    doing, found, "Name a readable PEM file as certificate authority"
                ) from error
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=secure), timeout=aiohttp.ClientTimeout(total=None)
            )
        return self._session


def _checked(doing: str, status: int, body: bytes) -> Mapping[str, Any]:
    """The data of a successful answer.

    Raises:
        DriverError: it is none.
    """
    try:
        answer = json.loads(body)
        if status == _OK and answer["status"] == "success":
            data: Mapping[str, Any] = answer["data"]
            return data
        found = f"{answer['errorType']}: {answer['error']}"
    except (ValueError, LookupError, TypeError):
        found = f"HTTP {status} and no answer of its API"
    raise _refused(doing, status, found)


def _refused(doing: str, status: int, found: str) -> DriverError:
    if status >= _UNAVAILABLE or status in (_TOO_MANY, _OK):
        return TemporaryError(doing, found, "Try again; if it stays, check that the URL is Prometheus's own")
    return PermanentError(doing, found, "Correct the expression or the URL")


def _samples(doing: str, data: Mapping[str, Any]) -> tuple[Sample, ...]:
    kind, result = data.get("resultType"), data.get("result")
    try:
        if kind == "vector" and isinstance(result, list):
            return tuple(_sample(dict(each["metric"]), each["value"]) for each in result)
        if kind == "scalar":
            return (_sample({}, result),)
    except (ValueError, LookupError, TypeError) as error:
        raise TemporaryError(doing, f"an answer that cannot be read: {error}", "Check its version") from error
    raise PermanentError(doing, f"the result is a {kind}", "Ask for an instant vector or a scalar")


def _sample(labels: Mapping[str, str], pair: Any) -> Sample:
    at, value = pair
    return Sample(labels, float(value), float(at))
