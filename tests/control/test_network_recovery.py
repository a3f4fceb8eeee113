"""After a partition: who may write, a stray writer fenced, dead clients' sessions ended, both sides seen; real servers and agents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hospital import EAST, WEST, Hospital, Open, until

from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.drivers.postgres_sessions import end_sessions, stuck_sessions
from hmsdr.playbook.topology import ControllerEndpoint
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.following import FollowArgs, FollowPrimary
from hmsdr.runbook.actions.network import (
    AuthorityHeld,
    EndDeadArgs,
    EndDeadSessions,
    FenceArgs,
    FenceStray,
    HeldArgs,
)
from hmsdr.runbook.actions.reaching import MutualArgs, SidesSeeEachOther
from hmsdr.runbook.systems import Systems


def view() -> dict[str, Any]:
    """What a controller tells that sees everything: the parts of `/v1/view` that are read."""
    systems = [
        {"region": region, "system": system, "answer": "well", "seconds_ago": 1.0}
        for region in (EAST, WEST)
        for system in ("agent", "database", "redis")
    ]
    return {"regions": {name: {"sight": "reachable"} for name in (EAST, WEST)}, "systems": systems}


@contextlib.asynccontextmanager
async def controllers(told: dict[str, Any]) -> AsyncIterator[ControllerEndpoint]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(told)

    app = web.Application()
    app.router.add_get("/v1/view", answer)
    async with TestServer(app) as server:
        yield ControllerEndpoint(url=str(server.make_url("")).rstrip("/"))


@contextlib.asynccontextmanager
async def looking(
    found: Hospital, controller: ControllerEndpoint | None = None
) -> AsyncIterator[StepContext]:
    here = {"controller": controller}
    regions = {name: each.model_copy(update=here) for name, each in found.book.regions.items()}
    book = found.book.model_copy(
        update={"regions": regions, "witness": found.book.witness.model_copy(update=here)}
    )
    systems = Systems(book, found.store)
    ends = asyncio.get_running_loop().time() + 60
    try:
        yield StepContext(systems, "run-test", ends, progress=lambda _: None)
    finally:
        await systems.close()


async def every_sight_counts(context: StepContext, told: dict[str, Any]) -> None:
    """What one controller does not see, or saw long ago, is missing."""
    args = MutualArgs(standby=WEST, primary=EAST)
    before = told["systems"][0]
    for rest in ({"answer": "refused"}, {"seconds_ago": 300.0}):
        told["systems"][0] = before | rest
        seen = await SidesSeeEachOther().check(context, args)
        assert not seen.holds
        assert f"to see agent of {EAST}" in str(seen.waiting_for)
    told["systems"][0] = before
    told["regions"][WEST] = {"sight": "unreachable"}
    assert not (await SidesSeeEachOther().check(context, args)).holds
    told["regions"] = []
    with pytest.raises(PermanentError, match="is no view"):
        await SidesSeeEachOther().check(context, args)
    told.update(view())
    assert (await SidesSeeEachOther().check(context, args)).holds


@pytest.mark.req("AP-3")
async def test_a_stray_writer_is_fenced_and_follows_again_and_the_holder_never(hospital: Open) -> None:
    found = await hospital()
    await found.east_is_primary()
    told = view()
    async with controllers(told) as controller, looking(found, controller) as context:
        held = await AuthorityHeld().check(context, HeldArgs(holder=EAST, epoch=1))
        assert held.holds
        assert held.observed["agents"][EAST]["lease_held"]
        assert not held.observed["agents"][WEST]["lease_held"]
        for action in (FenceStray().check, FenceStray().act):
            with pytest.raises(PermanentError, match="held by"):
                await action(context, FenceArgs(region=EAST, epoch=1))
        with pytest.raises(PermanentError, match="epoch 1 is held by"):
            await AuthorityHeld().check(context, HeldArgs(holder=EAST, epoch=2))
        assert (await found.east.status()).database.state == "primary"

        args = FenceArgs(region=WEST, epoch=1)
        assert (await FenceStray().check(context, args)).holds
        # Its agent is dead, and somebody promotes it past it, which is the worst that a person can do by hand.
        found.west.kill_agent()
        await found.west.ask("SELECT pg_promote()")
        stray = await FenceStray().check(context, args)
        assert (stray.holds, stray.observed["takes_writes"]) == (False, True)
        assert "silent" in stray.observed["agent"]
        with pytest.raises(DriverError):
            await FenceStray().act(context, args)
        found.west.start()
        await until("the agent answers", found.west.status)
        done = await FenceStray().act(context, args)
        assert done["instance"] == found.book.regions[WEST].postgres.instance
        with pytest.raises(psycopg.OperationalError):
            await found.west.ask("SELECT 1")

        async def quiet() -> bool:
            return (await FenceStray().check(context, args)).holds

        await until("the stray does not write", quiet)
        again = await FenceStray().act(context, args)
        assert again["fenced_at"] == done["fenced_at"]

        follow = FollowArgs(
            region=WEST, primary=EAST, epoch=1, accepted_by="Ada", accepted_because="a test's stray writer"
        )
        await FollowPrimary().act(context, follow)

        async def mutual() -> bool:
            seen = await SidesSeeEachOther().check(context, MutualArgs(standby=WEST, primary=EAST))
            return seen.holds

        await until("both see each other", mutual, 15)
        await every_sight_counts(context, told)
        assert (await AuthorityHeld().check(context, HeldArgs(holder=EAST, epoch=1))).holds

        found.west.kill_agent()
        blind = await SidesSeeEachOther().check(context, MutualArgs(standby=WEST, primary=EAST))
        assert not blind.holds
        assert blind.observed[f"{EAST}_sees_{WEST}"] is False or f"agent of {WEST}" in str(blind.waiting_for)


@pytest.mark.req("AP-3")
async def test_sessions_of_dead_clients_are_ended_and_those_of_the_living_are_left(
    hospital: Open,
) -> None:
    found = await hospital()
    await found.east_is_primary()
    living, dying = await found.east.connect(), await found.east.connect()
    await living.execute("INSERT INTO patients (id, name) VALUES (1, 'x')")
    await living.execute("BEGIN")
    await living.execute("UPDATE patients SET name = 'y' WHERE id = 1")
    pid = dying.info.backend_pid
    await dying.execute("BEGIN")
    # It waits for a lock when its client goes: a server that computes or waits does not look at its client.
    dying.pgconn.send_query(b"UPDATE patients SET name = 'z' WHERE id = 1")
    dying.pgconn.flush()
    args = EndDeadArgs(region=EAST, older_than=0.2)
    async with looking(found) as context:
        action = EndDeadSessions()

        async def both_listed() -> bool:
            return len((await action.check(context, args)).observed["stuck"]) == 2

        await until("both wait", both_listed)
        assert (await action.check(context, args)).holds
        dying.pgconn.finish()

        async def dead() -> bool:
            return not (await action.check(context, args)).holds

        await until("the client is gone", dead)
        verdicts = {
            each["pid"]: each["client_is"] for each in (await action.check(context, args)).observed["stuck"]
        }
        assert verdicts == {pid: "dead", living.info.backend_pid: "alive"}
        ended = (await action.act(context, args))["ended"]
        assert [each["pid"] for each in ended] == [pid]

        async def gone() -> bool:
            listed = (await action.check(context, args)).observed["stuck"]
            return [each["pid"] for each in listed] == [living.info.backend_pid]

        await until("it has ended", gone)
        assert (await action.act(context, args))["ended"] == []
        await living.execute("COMMIT")
        with pytest.raises(PermanentError, match="does not hold the right"):
            await action.act(context, EndDeadArgs(region=WEST))
    await living.close()


@pytest.mark.req("AP-3")
async def test_another_process_of_the_same_number_is_not_ended_and_without_the_right_to_read_nothing_is_known(
    hospital: Open,
) -> None:
    found = await hospital()
    await found.east_is_primary()
    instance = found.book.regions[EAST].postgres
    waiting = await found.east.connect()
    await waiting.execute("CREATE ROLE humble LOGIN")
    await waiting.execute("BEGIN")
    await asyncio.sleep(0.1)
    sessions, known = await stuck_sessions(instance, older=0.05, deadline=5)
    assert known
    assert [each.pid for each in sessions] == [waiting.info.backend_pid]
    earlier = replace(sessions[0], began="2020-01-01 00:00:00+00")
    assert await end_sessions(instance, [earlier], deadline=5) == ()
    await waiting.execute("SELECT 1")

    _, unknown = await stuck_sessions(instance.model_copy(update={"user": "humble"}), older=0.05, deadline=5)
    assert unknown is None
    with pytest.raises(DriverError, match="reading the sessions"):
        await stuck_sessions(instance.model_copy(update={"port": 1}), older=1, deadline=2)
    await waiting.close()
