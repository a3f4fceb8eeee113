"""Three controllers on real etcd: one leads, the others take over, and a dead region is left whatever of it all dies with it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import pytest_asyncio

from commands import COMMAND, command_environment, hmsdr
from hmsdr.control.chronicle import DECIDED, DECLARED
from hmsdr.lab import control
from hmsdr.lab.hms.ledger import Ledger, dual_writers, lost_writes, present_ids, tables
from hmsdr.lab.layout import DATABASE, REGIONS, WITNESS, Layout
from hmsdr.lab.processes import LabProcess, kill, lab_processes
from hmsdr.log.events import Event
from hmsdr.log.opening import open_store
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import Store, StoreError
from hmsdr.playbook.load import load
from hmsdr.runbook.launch import runs
from hmsdr.runbook.state import RunStatus

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
EAST, WEST = REGIONS
SITES = (EAST, WEST, WITNESS)
_T = TypeVar("_T")


async def until(what: str, ask: Callable[[], Awaitable[_T | None]], seconds: float = 30) -> _T:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if (found := await ask()) is not None:
                return found
        except (StoreError, aiohttp.ClientError, OSError):
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


async def told(layout: Layout, site: str) -> dict[str, Any]:
    where = layout.sites[site]["controller"]
    async with aiohttp.ClientSession() as session, session.get(f"http://{where}/readyz") as response:
        return {"status": response.status, **await response.json()}


async def leader(layout: Layout, but: str = "") -> str | None:
    """The one site whose controller says that it leads, when the others are ready and do not."""
    found = [await told(layout, site) for site in SITES]
    leads = [each["site"] for each in found if each["leads"]]
    return leads[0] if len(leads) == 1 and leads[0] != but and all(each["ready"] for each in found) else None


def controller_process(layout: Layout, site: str) -> LabProcess | None:
    """The controller of `site`; None while it is being started again."""
    for process in lab_processes(layout.lab_id, layout.directory):
        if "hmsdr controller --playbook" in process.command and f"--site {site} " in process.command:
            return process
    return None


def end(layout: Layout, site: str, number: signal.Signals) -> LabProcess:
    found = controller_process(layout, site)
    assert found is not None
    assert kill(found, number)
    return found


@pytest.fixture(scope="module")
def council_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    layout = asyncio.run(control.up(tmp_path_factory.mktemp("council") / "lab", ha=True))
    yield layout
    asyncio.run(control.down(layout))


@pytest_asyncio.fixture
async def fresh_council(tmp_path: Path) -> AsyncIterator[Layout]:
    layout = await control.up(tmp_path / "lab", ha=True)
    yield layout
    await control.down(layout)
    assert not lab_processes(layout.lab_id, layout.directory)


@pytest_asyncio.fixture
async def store(council_lab: Layout) -> AsyncIterator[Store]:
    opened = await open_store(load(council_lab.playbook))
    yield opened
    await opened.close()


@pytest.mark.req("FA-5")
async def test_one_leads_and_when_it_dies_another_does(council_lab: Layout, store: Store) -> None:
    lab = council_lab
    first = await until("one leads", lambda: leader(lab))
    term = (await store.leadership()).term
    began = time.monotonic()
    end(lab, first, signal.SIGKILL)
    second = await until("another leads", lambda: leader(lab, but=first))
    print(f"{second} led {time.monotonic() - began:.1f} s after {first} died")  # noqa: T201
    leadership = await store.leadership()
    assert leadership.term == term + 1
    assert leadership.leader.startswith(f"controller {second}/")
    # It was started again, and follows.
    assert (await told(lab, first))["leads"] is False


async def test_every_site_has_the_log_word_for_word(council_lab: Layout, store: Store) -> None:
    lab = council_lab

    async def copied() -> int | None:
        head = await store.head()
        found = [(await told(lab, site))["log_followed_to"] for site in SITES]
        return head.seq if set(found) == {head.seq} else None

    seq = await until("copies", copied)
    events = (await store.read())[:seq]  # the hospital lives on: more may be written at any moment
    assert len(events) == seq
    for directory in (*(region.directory for region in lab.regions.values()), lab.directory / "witness"):
        copy = await SqliteStore.open(directory / "controller" / lab.store.name)
        assert (await copy.read())[:seq] == events
        await copy.close()


@pytest.mark.req("FA-1")
async def test_every_site_sees_everything_that_the_hospital_stands_on(council_lab: Layout) -> None:
    lab = council_lab
    wanted = {
        (EAST, name) for name in ("database", "slots", "redis", "kubernetes", "agent", "backup", "alerts")
    } | {(WEST, name) for name in ("database", "redis", "kubernetes", "agent")}

    async def all_well(site: str) -> bool | None:
        where = lab.sites[site]["controller"]
        async with aiohttp.ClientSession() as session, session.get(f"http://{where}/v1/view") as response:
            found = await response.json()
        last.update({site: found})
        answers = {(each["region"], each["system"]): each["answer"] for each in found["systems"]}
        served = {name for name, each in found["services"].items() if each["sight"] == "reachable"}
        well = {key for key, answer in answers.items() if answer in ("well", "slow")}
        return True if well == wanted and len(served) == 5 and found["active"] == EAST else None

    last: dict[str, Any] = {}
    for site in SITES:
        try:
            await until(f"{site} sees all well", lambda site=site: all_well(site), 60)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{error}: {last.get(site)}") from None


async def test_a_controller_stops_cleanly_and_tells_its_figures(council_lab: Layout) -> None:
    lab = council_lab
    where = lab.sites[WITNESS]["controller"]

    async def figures() -> str | None:
        async with aiohttp.ClientSession() as session, session.get(f"http://{where}/metrics") as response:
            said = await response.text()
        watched = [f'hmsdr_endpoint_up{{endpoint="{name}",region=""}} 1.0' for name in ("chat", "monitoring")]
        return said if all(line in said for line in watched) else None

    said = await until("the playbook's further endpoints are seen", figures)
    async with aiohttp.ClientSession() as session, session.get(f"http://{where}/healthz") as response:
        assert response.status == 200
    assert f'hmsdr_region_sight{{region="{EAST}",sight="reachable"}} 1.0' in said
    assert "hmsdr_controller_leads" in said
    assert f'hmsdr_system_answer{{answer="well",region="{EAST}",system="database"}} 1.0' in said
    assert 'hmsdr_service_sight{service="patient",sight="reachable"} 1.0' in said
    assert f'hmsdr_site_word_age_seconds{{site="{EAST}"}}' in said
    ours = end(lab, WITNESS, signal.SIGTERM)

    async def back() -> bool | None:
        found = controller_process(lab, WITNESS)
        return True if found is not None and found.pid != ours.pid else None

    await until("started again", back)
    log = (lab.directory / "witness" / "logs" / "controller.log").read_text()
    assert '"event": "controller.stopped"' in log
    assert "Traceback" not in log
    await until("one leads", lambda: leader(lab))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--site", "us-east-3"), "the playbook has no such site"),
        (("--site", WITNESS, "--state-directory", "{witness}"), "another controller (process"),
        (("--site", WITNESS, "--state-directory", "{tmp}", "--listen", "nowhere"), "is no HOST:PORT"),
        (("--site", WITNESS, "--state-directory", "{tmp}"), "serving the controller on"),
    ],
)
def test_what_cannot_be_a_controller_is_refused(
    council_lab: Layout, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    places = {"witness": council_lab.directory / "witness" / "controller", "tmp": tmp_path}
    done = hmsdr("controller", *(word.format(**places) for word in words), lab=council_lab, seconds=30)
    assert done.status == 2, done
    assert why in done.err


def test_two_controllers_of_one_site_do_not_both_go_on(council_lab: Layout, tmp_path: Path) -> None:
    """One of both ends; the supervisor's own is started again, so the stranger is the one to look at."""
    command = [*COMMAND, "controller", "--site", WITNESS, "--state-directory", str(tmp_path)]
    stranger = subprocess.Popen(
        [*command, "--listen", f"{council_lab.sites[WITNESS]['controller'].host}:7999"],
        env=command_environment(council_lab),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = council_lab.directory / "witness" / "logs" / "controller.log"
    ends = time.monotonic() + 30
    while stranger.poll() is None and "speaks for it too" not in log.read_text():
        assert time.monotonic() < ends
        time.sleep(0.1)
    stranger.send_signal(signal.SIGTERM)
    said = stranger.communicate(timeout=20)[1]
    assert "speaks for it too" in said + log.read_text()
    assert "Traceback" not in said


@pytest.mark.req("FA-4", "DB-1")
async def test_a_persons_switchover_takes_the_lead_for_its_time(council_lab: Layout, store: Store) -> None:
    lab = council_lab
    await until("one leads", lambda: leader(lab))
    done = await asyncio.to_thread(hmsdr, "failover", EAST, WEST, lab=lab, seconds=120)
    assert done.status == 0, done
    await until("one leads", lambda: leader(lab))
    events = await store.read()
    assert [event for event in events if event.kind == DECIDED] == []
    (run,) = runs(events)
    assert (run.status, run.plan.mode) == (RunStatus.SUCCEEDED, "planned")
    record = await store.read_authority()
    assert (record.epoch, record.holder and record.holder.instance) == (
        2,
        load(lab.playbook).regions[WEST].postgres.instance,
    )


@pytest.mark.req("FA-1")
async def test_a_declared_disaster_takes_effect_at_once_and_a_veto_stops_what_would_be_automatic(
    council_lab: Layout, store: Store
) -> None:
    lab = council_lab
    words = ("--reason", "the river rises", "--by", "Ada Quill")
    refused = await asyncio.to_thread(hmsdr, "declare", "disaster", EAST, *words, lab=lab)
    assert (refused.status, "does not hold the right to write" in refused.err) == (2, True), refused
    assert f"`hmsdr failover {EAST} {WEST}` moves them" in refused.err
    unnamed = await asyncio.to_thread(hmsdr, "declare", "disaster", WEST, "--by", "Ada", lab=lab)
    assert (unnamed.status, "It takes a named person and a reason" in unnamed.err) == (2, True)

    done = await asyncio.to_thread(hmsdr, "declare", "disaster", WEST, *words, lab=lab)
    assert done.status == 0, done
    declared = [event for event in await store.read() if event.kind == DECLARED]
    assert [(each.subject, each.actor, each.data["reason"]) for each in declared] == [
        (WEST, "Ada Quill", "the river rises")
    ]
    run = runs(await store.read())[-1]
    assert run.by.startswith("controller "), "whoever leads carries it out"
    assert (run.status, run.plan.mode) == (RunStatus.SUCCEEDED, "planned"), "what can hand over hands over"

    assert (await asyncio.to_thread(hmsdr, "veto", EAST, *words, lab=lab)).status == 0
    before = len(runs(await store.read()))
    await control.break_(lab, "region-down", region=EAST)
    await asyncio.sleep(10)  # twice the hold-down
    assert len(runs(await store.read())) == before
    assert [event for event in await store.read() if event.kind == DECIDED and event.subject == EAST] == []
    again = await asyncio.to_thread(hmsdr, "declare", "disaster", EAST, *words, lab=lab)
    assert again.status == 0, again
    record = await store.read_authority()
    assert (record.epoch, record.phase) == (4, "held")


async def newest(events: Callable[[], Awaitable[list[Event]]], step: str) -> str | None:
    """Who wrote the start of `step`, once it was."""
    started = [each for each in await events() if each.kind == "step.started" and each.data["step"] == step]
    return started[0].subject if started else None


@pytest.mark.req("FA-1", "FA-3", "FA-4", "FA-5")
@pytest.mark.parametrize("point", ["fencing/free-authority", "promotion/grant"])
async def test_the_region_dies_and_then_the_leader_and_another_one_finishes(
    fresh_council: Layout, tmp_path: Path, point: str
) -> None:
    lab = fresh_council
    ledger = tmp_path / "ledger.jsonl"
    clinics = await control.start_clinics(lab, ledger)
    store = await open_store(load(lab.playbook), site=WITNESS)
    try:
        await asyncio.sleep(2)
        await control.break_(lab, "region-down", region=EAST)
        run = await until(point, lambda: newest(store.read, point))
        name = (await store.leadership()).leader
        site = name.removeprefix("controller ").partition("/")[0]
        end(lab, site, signal.SIGKILL)

        async def ended() -> RunStatus | None:
            (state,) = runs(await store.read())
            return state.status if state.status is not RunStatus.RUNNING else None

        status = await until("the run ended", ended, 90)
        await asyncio.sleep(3)
        finisher = (await store.leadership()).leader
    finally:
        await clinics.stop()
        await store.close()
    assert status is RunStatus.SUCCEEDED, run
    assert finisher != name
    entries = Ledger.read(ledger)
    assert dual_writers(entries) == 0
    assert any(entry.ok and entry.region == WEST for entry in entries)
    where = lab.regions[WEST].postgres
    conninfo = f"host={where.host} port={where.port} user=postgres dbname={DATABASE}"
    lost = lost_writes(entries, await present_ids(conninfo, tables(entries), deadline=15))
    print(f"{len(lost)} lost")  # noqa: T201
