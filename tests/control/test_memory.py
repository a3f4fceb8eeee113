"""What an agent remembers, the database it is first given, and a lease whose store answers badly."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from hmsdr.control import bootstrap, pgconf
from hmsdr.control.lease import Lease, Renewal
from hmsdr.control.locks import lock_directories
from hmsdr.control.proctable import boottime
from hmsdr.control.programs import postgres_bin
from hmsdr.control.state import FenceReceipt, Promotion, StateFile, Upstream
from hmsdr.control.unprivileged import choose
from hmsdr.decide.authority import Authority, Holder, grant, initial, revoke
from hmsdr.errors import RefusedError
from hmsdr.log.store import StoreError

US = Holder("db@here", "life-1")


def test_everything_remembered_comes_back(tmp_path: Path) -> None:
    memory = StateFile(tmp_path / "agent.json", "db@here")
    changed = memory.change(
        accepted_epoch=4,
        fence=FenceReceipt("db@here", "life-1", 4, "2026-01-01T00:00:00+00:00", 12, 2, clean=True, killed=0),
        promotion=Promotion(3, "2026-01-01T00:00:00+00:00", 11, 2, 0.05),
        upstream=Upstream("127.0.0.1", 5432, "slot"),
        stopped=True,
        system_identifier=7,
    )
    assert StateFile(tmp_path / "agent.json", "db@here").state == changed
    assert changed.fenced(4)
    assert not changed.fenced(5)
    with pytest.raises(RefusedError, match="belongs to db@here"):
        StateFile(tmp_path / "agent.json", "db@there")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "instance": "db@here"}'])
def test_damaged_memory_is_refused_not_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "agent.json").write_text(text)
    with pytest.raises(RefusedError, match="reading the agent's state"):
        StateFile(tmp_path / "agent.json", "db@here")


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    first = lock_directories(tmp_path / "data", tmp_path / "s1")
    with pytest.raises(RefusedError, match="another agent"):
        lock_directories(tmp_path / "data", tmp_path / "s2")
    import os

    for descriptor in first:
        os.close(descriptor)
    for descriptor in lock_directories(tmp_path / "data", tmp_path / "s2"):
        os.close(descriptor)


def test_a_new_database_and_its_copy_come_out_as_standbys(template: Path, tmp_path: Path) -> None:
    assert pgconf.is_standby(template)
    bootstrap.clone(template, tmp_path / "copy", choose())
    assert pgconf.is_standby(tmp_path / "copy")
    with pytest.raises(RefusedError, match="not empty"):
        bootstrap.clone(template, tmp_path / "copy", choose())
    with pytest.raises(RefusedError, match="not empty"):
        bootstrap.initialise(tmp_path / "copy", postgres_bin(), choose())


def test_settings_cannot_be_undone_by_alter_system(tmp_path: Path) -> None:
    (tmp_path / "postgresql.conf").write_text("port = 1\n")
    (tmp_path / "postgresql.auto.conf").write_text("restart_after_crash = 'on'\nwork_mem = '8MB'\n")
    for _ in range(2):
        pgconf.write_settings(tmp_path, {"restart_after_crash": "off", "primary_conninfo": "password='o''x'"})
    assert (tmp_path / "postgresql.auto.conf").read_text() == "work_mem = '8MB'\n"
    assert (tmp_path / "postgresql.conf").read_text().count("include_if_exists") == 1
    assert "primary_conninfo = 'password=''o''''x'''" in (tmp_path / "hmsdr.conf").read_text()


class Store:
    """A working store in memory, whose next answers can be lost, late or refused."""

    def __init__(self, record: Authority) -> None:
        self.record = record
        self.faults: list[str] = []

    async def read_authority(self) -> Authority:
        return self.record

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "late":
            await asyncio.sleep(60)
        if fault == "lost":
            self.record = new
            raise StoreError("swapping", "the answer was lost", "look")
        if self.record != expected or fault == "raced":
            return False
        self.record = new
        return True


def held() -> Store:
    return Store(grant(initial(10.0), US))


async def test_the_deadline_counts_from_before_the_request() -> None:
    lease = Lease(held(), US, 0.05)
    before = boottime()
    assert await lease.renew(1) is Renewal.HELD
    assert lease.deadline is not None
    assert before + 9.5 <= lease.deadline <= boottime() + 9.5
    assert lease.live(1)
    assert not lease.live(2)


@pytest.mark.parametrize("fault", ["late", "lost", "raced"])
async def test_an_unclear_answer_is_no_renewal(fault: str) -> None:
    store = held()
    lease = Lease(store, US, 0.05)
    assert await lease.renew(1) is Renewal.HELD
    first = lease.deadline
    store.faults = [fault]
    assert await lease.renew(0.2) is Renewal.UNCLEAR
    assert lease.deadline == first
    assert await lease.renew(1) is Renewal.HELD
    assert lease.deadline is not None
    assert first is not None
    assert lease.deadline > first


async def test_a_new_life_of_the_agent_takes_the_lease_over_and_no_other_instance_does() -> None:
    store = held()
    old, new = Lease(store, US, 0.05), Lease(store, Holder("db@here", "life-2"), 0.05)
    assert await old.renew(1) is Renewal.HELD
    assert await new.renew(1) is Renewal.HELD
    assert store.record.holder == Holder("db@here", "life-2")
    assert store.record.epoch == 1
    other = Lease(store, Holder("db@there", "life-1"), 0.05)
    assert await other.renew(1) is Renewal.NOT_OURS
    assert other.deadline is None


async def test_a_revoked_or_unwanted_lease_is_not_renewed() -> None:
    store = held()
    lease = Lease(store, US, 0.05, fenced_epoch=lambda: 1)
    assert await lease.renew(1) is Renewal.NOT_OURS
    lease = Lease(store, US, 0.05)
    assert await lease.renew(1) is Renewal.HELD
    first = lease.deadline
    store.record = revoke(store.record, 1)
    assert await lease.renew(1) is Renewal.NOT_OURS
    assert lease.deadline == first
    assert dataclasses.replace(store.record, renewal=0).phase == "revoking"
