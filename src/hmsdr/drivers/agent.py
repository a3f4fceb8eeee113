"""The agent beside a region's database, over HTTP: ask how it is, order a fence, a promotion, a following.

It carries orders and answers. Whether an order is allowed is the agent's to say; a refusal comes back with the
agent's own words.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import aiohttp

from hmsdr.decide.authority import Holder
from hmsdr.drivers.agent_answers import (
    AgentStatus,
    DamageAnswer,
    DataAnswer,
    FenceAnswer,
    FollowAnswer,
    LostAnswer,
    PromoteAnswer,
    RecoveryAnswer,
    RelayAnswer,
    damage_of,
    data_of,
    fence_of,
    status_of,
)
from hmsdr.drivers.agent_auth import (
    LIFE,
    NONCE,
    OTHER_LIFE,
    SCHEME,
    SIGNATURE,
    new_nonce,
    same,
    sign_answer,
    sign_request,
)
from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.log.records import decode_authority
from hmsdr.playbook.topology import AgentEndpoint

_KEY_REFUSED = 401
_TEMPORARY = 503


class AgentClient:
    """One region's agent. The HTTP session is opened at the first call and reused."""

    def __init__(self, endpoint: AgentEndpoint) -> None:
        self.endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._life = ""
        """Of the agent, as it said last."""

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def status(self, *, deadline: float) -> AgentStatus:
        """How agent and database are.

        Raises:
            TemporaryError: no answer.
            PermanentError: it does not take our key.
        """
        doing = "asking the agent"
        raw = await self._call("GET", "/v1/status", None, deadline, doing, changes=False)
        with _Understood(doing, self.endpoint.url):
            return status_of(raw)

    async def fence(self, *, epoch: int, reason: str, run: str, clean: bool, deadline: float) -> FenceAnswer:
        """Have the database fenced under `epoch`; the same epoch again gives the same receipt.

        Raises:
            PermanentError: refused, with the agent's remedy.
            TemporaryError: not done.
            OutcomeUnknownError: the answer was lost; ask again.
        """
        doing = f"fencing under epoch {epoch}"
        body = {"epoch": epoch, "reason": reason, "run": run, "clean": clean}
        raw = await self._call("POST", "/v1/fence", body, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            return fence_of(raw)

    async def promote(self, *, epoch: int, min_lsn: int | None, deadline: float) -> PromoteAnswer:
        """Have the database promoted under `epoch`, not below `min_lsn` (bytes of WAL). Errors as for `fence`."""
        doing = f"promoting under epoch {epoch}"
        body = {"epoch": epoch, "min_lsn": min_lsn}
        raw = await self._call("POST", "/v1/promote", body, deadline, doing, changes=True)
        return self._promotion(raw, doing)

    async def follow(
        self,
        *,
        epoch: int,
        primary_host: str,
        primary_port: int,
        slot: str,
        deadline: float,
        without_lost_rows: tuple[str, str] | None = None,
    ) -> FollowAnswer:
        """Have the database follow that primary through its `slot`. Errors as for `fence`.

        With `without_lost_rows` (who says so, and why) also when rows that it committed alone cannot be extracted.
        """
        doing = f"following {primary_host}:{primary_port} under epoch {epoch}"
        body: dict[str, Any] = {
            "epoch": epoch,
            "primary_host": primary_host,
            "primary_port": primary_port,
            "slot": slot,
        }
        if without_lost_rows is not None:
            body["without_lost_rows"] = dict(zip(("by", "reason"), without_lost_rows, strict=True))
        raw = await self._call("POST", "/v1/follow", body, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            return FollowAnswer(**raw)

    async def data(self, *, deadline: float) -> DataAnswer:
        """What lies in its data directory, and how fast its disk and its way to the primary are. Errors as for `status`."""
        doing = "asking what its data directory holds"
        raw = await self._call("GET", "/v1/data", None, deadline, doing, changes=False)
        with _Understood(doing, self.endpoint.url):
            return data_of(raw)

    async def recover(
        self,
        *,
        run: str,
        epoch: int,
        path: str,
        primary: tuple[str, int],
        slot: str,
        deadline: float,
        backup: str | None = None,
        without_lost_rows: tuple[str, str] | None = None,
    ) -> RecoveryAnswer:
        """Have the database brought back by `path`, behind `primary` (host, port); `status` tells how far it is.

        The same order of the same run is carried out once. Errors as for `fence`.
        """
        doing = f"recovering by {path} under epoch {epoch}"
        body: dict[str, Any] = {
            "run": run,
            "epoch": epoch,
            "path": path,
            "backup": backup,
            "primary_host": primary[0],
            "primary_port": primary[1],
            "slot": slot,
        }
        if without_lost_rows is not None:
            body["without_lost_rows"] = dict(zip(("by", "reason"), without_lost_rows, strict=True))
        raw = await self._call("POST", "/v1/recover", body, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            return RecoveryAnswer(**raw)

    async def reconcile(
        self, *, epoch: int, primary_host: str, primary_port: int, deadline: float
    ) -> Mapping[str, Any] | None:
        """Have it find out what it committed that the primary never saw; None when they did not part. Errors as for `fence`."""
        doing = f"reconciling with {primary_host}:{primary_port}"
        body = {"epoch": epoch, "primary_host": primary_host, "primary_port": primary_port}
        raw = await self._call("POST", "/v1/reconcile", body, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            lost: Mapping[str, Any] | None = raw["lost"]
            return lost

    async def lost(self, *, deadline: float) -> LostAnswer:
        """What was found so far. Errors as for `status`."""
        doing = "asking what was lost"
        raw = await self._call("GET", "/v1/lost", None, deadline, doing, changes=False)
        with _Understood(doing, self.endpoint.url):
            return LostAnswer(raw["directory"], tuple(raw["lost"]))

    async def lost_part(self, file: str, offset: int, *, deadline: float) -> tuple[bytes, int]:
        """A part of a file of lost rows, and the size of all of it. Errors as for `status`."""
        doing = f"reading {file}"
        raw = await self._call("GET", f"/v1/lost/{file}/{offset}", None, deadline, doing, changes=False)
        with _Understood(doing, self.endpoint.url):
            return base64.b64decode(raw["content"]), int(raw["size"])

    async def damage(self, *, deadline: float) -> DamageAnswer:
        """What it tells of damage at its database. Errors as for `status`."""
        doing = "asking for damage"
        raw = await self._call("GET", "/v1/damage", None, deadline, doing, changes=False)
        with _Understood(doing, self.endpoint.url):
            return damage_of(raw)

    async def clear_damage(self, *, by: str, reason: str, deadline: float) -> DamageAnswer:
        """Have it check everything, then clear its signs of damage; `damage` tells how far it is. Errors as for `fence`."""
        doing = "having damage cleared"
        raw = await self._call(
            "POST", "/v1/damage/clear", {"by": by, "reason": reason}, deadline, doing, changes=True
        )
        with _Understood(doing, self.endpoint.url):
            return damage_of(raw)

    async def relay(self, *, epoch: int, holder: Holder, deadline: float) -> RelayAnswer:
        """Ask for a renewal in `holder`'s name, or for a promise, while the store is out of reach. Errors as for `fence`."""
        doing = f"asking the peer to renew epoch {epoch}"
        body = {"epoch": epoch, **asdict(holder)}
        raw = await self._call("POST", "/v1/relay", body, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            record = raw["record"]
            return RelayAnswer(
                None if record is None else decode_authority(record), raw["promised"], str(raw["why"])
            )

    async def manual_stop(self, *, deadline: float) -> FenceAnswer:
        """Stop the database by hand, through the whole protocol. Errors as for `fence`."""
        doing = "stopping by hand"
        raw = await self._call("POST", "/v1/manual/stop", {}, deadline, doing, changes=True)
        with _Understood(doing, self.endpoint.url):
            return fence_of(raw)

    async def manual_promote(self, *, deadline: float) -> PromoteAnswer:
        """Promote the database by hand, through the whole protocol. Errors as for `fence`."""
        doing = "promoting by hand"
        raw = await self._call("POST", "/v1/manual/promote", {}, deadline, doing, changes=True)
        return self._promotion(raw, doing)

    def _promotion(self, raw: dict[str, Any], doing: str) -> PromoteAnswer:
        with _Understood(doing, self.endpoint.url):
            return PromoteAnswer(**{**raw, "promoted_at": datetime.fromisoformat(raw["promoted_at"])})

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        deadline: float,
        doing: str,
        *,
        changes: bool,
    ) -> dict[str, Any]:
        what = f"{doing} at {self.endpoint.url}"
        content = b"" if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(deadline):
                if changes and not self._life:
                    await self._exchange("GET", "/v1/status", b"", what)
                status, answer = await self._exchange(method, path, content, what)
                if status == OTHER_LIFE:  # it began anew since we asked it last; now we know its life
                    status, answer = await self._exchange(method, path, content, what)
        except aiohttp.ClientConnectorError as error:
            raise TemporaryError(what, str(error), "Check that the agent runs and can be reached") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            found = (
                f"no answer within {deadline:g} s"
                if isinstance(error, TimeoutError)
                else f"the answer was lost: {error}"
            )
            if changes:
                raise OutcomeUnknownError(
                    what, found, "Ask again: the same order is not carried out twice"
                ) from error
            raise TemporaryError(what, found, "Check that the agent runs and can be reached") from error
        if status == 200 and isinstance(answer, dict):  # noqa: PLR2004
            return answer
        raise _refusal(what, status, answer)

    async def _exchange(self, method: str, path: str, content: bytes, what: str) -> tuple[int, Any]:
        """One question and its answer, each signed; nobody else can have said it, nor at another time.

        Raises:
            PermanentError: the answer is not signed with this agent's key.
        """
        key, nonce = self.endpoint.key.get_secret_value(), new_nonce()
        life = "" if method == "GET" else self._life
        headers = {
            "Authorization": SCHEME + sign_request(key, method, path, nonce, life, content),
            NONCE: nonce,
            LIFE: life,
            "Content-Type": "application/json",
        }
        url = self.endpoint.url.rstrip("/") + path
        async with self._opened().request(method, url, data=content, headers=headers) as response:
            said = await response.read()
            status, life = response.status, response.headers.get(LIFE, "")
            signature = response.headers.get(SIGNATURE, "")
        # Whoever does not know our key cannot sign for us to believe: its refusal is all there is, and changes nothing.
        if status != _KEY_REFUSED and not same(sign_answer(key, nonce, life, status, said), signature):
            raise PermanentError(
                what,
                f"the answer (status {status}) is not signed with the key of that agent",
                "Check `agent.url` and `agent.key`, and who answers there",
            )
        self._life = life or self._life
        return status, json.loads(said)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self._session


class _Understood:
    """Turns an answer that is not what an agent answers into a permanent error."""

    def __init__(self, doing: str, url: str) -> None:
        self._what = f"{doing} at {url}"

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError):
            raise PermanentError(
                self._what,
                f"the answer is not an agent's: {error!r}",
                "Check `agent.url`, and the agent's version",
            ) from error


def _refusal(what: str, status: int, answer: Any) -> DriverError:
    error = answer.get("error", {}) if isinstance(answer, dict) else {}
    if not isinstance(error, dict):
        error = {}
    found = f"{error.get('found', f'status {status}')}"
    if error.get("doing"):
        found = f"{error['doing']}: {found}"
    remedy = str(error.get("remedy", "See the agent's log"))
    kind = TemporaryError if status in (_TEMPORARY, 502, 504) else PermanentError
    return kind(what, found, remedy)
