"""The agent beside a region's database: the only thing that starts it, promotes it and fences it.

It keeps the lease, reconciles what runs with what may run, and obeys orders under an epoch, one at a time. It never
takes the right to write from another instance and never decides on a failover: controllers and people do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from hmsdr.control import promote as promoting
from hmsdr.control.clearing import Clearing
from hmsdr.control.config import AgentConfig, OnCrash
from hmsdr.control.database import Database, Role
from hmsdr.control.fence import earlier_receipt, fence
from hmsdr.control.lease import Lease, Renewal
from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.control.relaying import Peer, ask_peer
from hmsdr.control.server import PostgresServer
from hmsdr.control.state import FenceReceipt, Promotion
from hmsdr.control.surroundings import Surroundings
from hmsdr.decide.authority import Holder, Phase
from hmsdr.decide.tenure import Standing, may_start_writable, standing
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.log.store import AuthorityStore, EventLog

_MEASURE_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 0.5
_CRASHES, _CRASH_WINDOW = 3, 60.0
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
_BOOT_SECONDS = 3.0


class Agent:
    """One life of the agent of one instance.

    Args:
        config: what it keeps.
        store: keeper of the write authority.
        server: the server of the data directory, on which the caller holds the lock of `locks`.
        journal: the log, where it tells what was lost.
        around: its disk, its guard, its peer and its connections; None: those that `config` names.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: AuthorityStore,
        server: PostgresServer,
        journal: EventLog | None = None,
        around: Surroundings | None = None,
    ) -> None:
        self.config = config
        self.store = store
        around = around or Surroundings(config)
        self.memory = around.memory()
        self.holder = Holder(config.instance.instance, around.life())
        self.lease = Lease(
            store,
            self.holder,
            config.drift_margin,
            lambda: self.memory.state.fenced_epoch,
            lambda epoch: self.memory.state.accepted_epoch == epoch,
        )
        self.as_peer = Peer(store, self.lease, self.memory, config.lease, config.drift_margin, around.boot())
        self._peer = around.peer()
        guarding = around.guarding(server.unprivileged.owner)
        self.database = Database(config, server, guarding, self.lease, self.memory, self._died, around)
        self.inspection = around.inspection(self.database, self._peer)
        self.clearing = Clearing(self.inspection, journal)
        self.lock = asyncio.Lock()
        self._fencing = 0
        self._hurry = asyncio.Event()
        self.booted = asyncio.Event()
        self._wake = asyncio.Event()
        self._renew_now = asyncio.Event()
        self._crashes: deque[float] = deque(maxlen=_CRASHES)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.lost_slot = around.lost_slot(self.database)
        self.primary = around.sightings(self.database, self._peer)
        self.rejoining = around.rejoining(self.database, self.lock, self._wake.set, self._spawn, journal)
        self.recovering = around.recovering(self.database, self.lock, self.rejoining, self._spawn)

    async def run(self, stop: asyncio.Event) -> None:
        """Take over what runs, then keep lease and database until `stop` is set; then stop the database cleanly.

        The right to write stays ours in the store: who is back within a failover's patience goes on under its epoch.
        """
        log("agent.started", instance=self.holder.instance, incarnation=self.holder.incarnation)
        await self._boot()
        self.booted.set()
        loops = [
            asyncio.create_task(self._keep_lease()),
            asyncio.create_task(self._keep_database()),
            asyncio.create_task(self._keep_measuring()),
            asyncio.create_task(self._keep_standby()),
            asyncio.create_task(self.lost_slot.run()),
            asyncio.create_task(self.primary.run()),
            asyncio.create_task(self.inspection.run()),
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a loop ends by an error only: let it be seen, the guard watches the database
        finally:
            for task in (stopping, *loops, *self._tasks):
                task.cancel()
            await asyncio.gather(stopping, *loops, *self._tasks, return_exceptions=True)
            await self._peer.close()
        async with self.lock:
            await self.database.stop(self.config.stop_deadline)
            self.database.guarding.release()
        log("agent.stopped")

    async def fence(self, epoch: int, *, clean: bool, reason: str) -> FenceReceipt:
        """Fence the database under `epoch`, see `hmsdr.control.fence`; the same epoch again gives the same receipt."""
        if (receipt := earlier_receipt(self.database, epoch)) is not None:
            return receipt
        log("fence.ordered", epoch=epoch, clean=clean, reason=reason)
        self._fencing += 1  # from here on nothing starts it again
        try:
            if not clean:
                self._hurry.set()
                await self.database.server.kill(self.config.kill_deadline)  # at once, whatever holds the lock
            async with self.lock:
                if (receipt := earlier_receipt(self.database, epoch)) is not None:
                    return receipt
                if clean:
                    self._hurry.clear()
                self.database.held = ""
                return await fence(self.database, epoch, clean=clean, hurry=self._hurry)
        finally:
            self._fencing -= 1
            self._wake.set()

    async def promote(self, epoch: int, min_lsn: int | None) -> tuple[Promotion, bool]:
        """Promote the database under `epoch`, see `hmsdr.control.promote`; not before a promise is over (rule 7)."""
        await self._until_unbound(epoch)
        await self.recovering.end(epoch)
        await self.inspection.give_way()
        async with self.lock:
            promotion, already = await promoting.promote(
                self.database, epoch, min_lsn, bound_for=self.as_peer.bound_for
            )
            if not already:
                self.database.held = ""
                self.lost_slot.soon()
                self._spawn(promoting.settle(self.database))
            return promotion, already

    async def _until_unbound(self, epoch: int) -> None:
        """What was promised is kept: at most one lease, and the order is carried out."""
        if epoch <= self.memory.state.promoted_epoch:
            return
        if (left := self.as_peer.bound_for()) > 0:
            log("promote.bound", level="warning", epoch=epoch, seconds=round(left, 3))
            await asyncio.sleep(left)

    async def relay(self, epoch: int, holder: Holder) -> dict[str, Any]:
        """Help the other side, which cannot reach the store, see `hmsdr.control.relaying`."""
        return await self.as_peer.relay(epoch, holder)

    async def _boot(self) -> None:
        """Adopt what an earlier life left running, or make sure that nothing of it runs."""
        database = self.database
        async with self.lock:
            if database.server.processes():
                await database.guarding.ensure()
                if not await database.adopt():
                    log("agent.not_adopted", level="warning")
                    await database.kill()
                    database.disarm()
                else:
                    log("agent.adopted", role=database.role)
            else:
                with suppress(FailedError, TimeoutError):  # what cannot be read is not started either
                    await database.check_data(f"taking {self.holder.instance} over")
                database.disarm()  # also clears a deadline of before a reboot, when the clock began anew
                await database.guarding.ensure()
            until = boottime() + min(_BOOT_SECONDS, self.config.lease)
            while self.lease.record is None and boottime() < until:
                await self.lease.renew(_ASK_SECONDS)
        if database.role is Role.PRIMARY:
            self._spawn(promoting.settle(database))
        self.recovering.begin_life()

    async def _keep_lease(self) -> None:
        """Renew each quarter of the lease, sooner after an unclear answer; act when it is lost."""
        quarter = self.config.lease / 4
        while True:
            # A silent store must leave time to ask the peer, and to ask it again when that answer is lost.
            outcome = await self.lease.renew(max(0.05, quarter / 2 if self.database.writable else quarter))
            self._refuse_double()
            if outcome is Renewal.UNCLEAR and self.database.writable:
                await ask_peer(self._peer, self.lease, self.config.lease)
                outcome = self._as_told(outcome)
            if self.database.writable:
                await self._guarded(outcome)
            self._wake.set()
            pause = quarter if outcome is not Renewal.UNCLEAR else quarter / 4
            if self.database.writable:
                pause = min(pause, max(0.001, self.lease.seconds_left()))
            self._renew_now.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._renew_now.wait(), pause)

    def _refuse_double(self) -> None:
        """Another agent, with a database that may write, has our name: whoever does not know its epoch goes.

        Raises:
            RefusedError: there is one.
        """
        if (other := self.lease.rival) is not None:
            raise RefusedError(
                f"keeping {self.holder.instance}",
                f"another agent (life {other.incarnation}) renews the right to write in its name",
                "Run one agent for each region, beside its database; stop this one, or give it its own --region",
            )

    def _as_told(self, outcome: Renewal) -> Renewal:
        """What the peer relayed may be a refusal as good as the store's own."""
        record, epoch = self.lease.record, self.lease.epoch
        if record is None or epoch is None:
            return outcome
        taken = record.epoch > epoch or (record.epoch == epoch and record.phase is not Phase.HELD)
        return Renewal.NOT_OURS if taken else outcome

    async def _guarded(self, outcome: Renewal) -> None:
        """What the last renewal means for a database that may be writable."""
        database = self.database
        now = standing(
            self.lease.tenure,
            boottime(),
            refused=outcome is Renewal.NOT_OURS,
            published=database.guarding.file.deadline(),
        )
        if now in (Standing.STOP_CLEANLY, Standing.STOP_NOW):
            record, clean = self.lease.record, now is Standing.STOP_CLEANLY
            log("lease.lost", level="warning", phase=record.phase if record else None, clean=clean)
            await self._report(self.fence(self.memory.state.accepted_epoch, clean=clean, reason="lease lost"))
            return
        if now is Standing.GO_ON:
            database.guarding.publish(self.lease.deadline)
            if not database.guarding.alive:
                await self._report(database.guarding.ensure())
            return
        log("lease.expired", level="error", epoch=self.memory.state.accepted_epoch)
        self._fencing += 1  # what is started meanwhile, under a new lease, would be killed with it
        try:
            await database.server.kill(self.config.kill_deadline)
            async with self.lock:
                if database.writable and database.guarding.ran_out():
                    await self._report(self._put_down())
        finally:
            self._fencing -= 1

    async def _put_down(self) -> None:
        await self.database.kill()
        self.database.disarm()

    async def _keep_database(self) -> None:
        """Reconcile what runs with what may run, on every sign of change and after failures with patience."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                async with self.lock:
                    await self.reconcile()
                failures = 0
            except (HmsdrError, OSError) as error:
                log("database.not_started", level="error", found=str(error))
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1
                continue
            await self._wake.wait()

    async def reconcile(self) -> None:
        """Start what may run and does not; the caller holds the lock."""
        database, state = self.database, self.memory.state
        if not database.guarding.alive:
            await database.guarding.ensure()
        if self._fencing or state.stopped or self.database.held or not database.server.exists:
            return
        if database.role is Role.PRIMARY:
            return
        entitled = may_start_writable(
            self.lease.tenure,
            boottime(),
            promoted_epoch=state.promoted_epoch,
            fenced_epoch=state.fenced_epoch,
        )
        if entitled:
            if database.role is Role.STANDBY:
                await database.stop(self.config.stop_deadline)
            await database.start_primary()
            with suppress(DriverError):
                await database.sql.claim_epoch(
                    state.promoted_epoch, self.holder.instance, deadline=_ASK_SECONDS
                )
            self.lost_slot.soon()
            self._spawn(promoting.settle(database))
        elif database.role is Role.STOPPED:
            await database.start_standby()

    def _died(self, role: Role) -> None:
        self._spawn(self._after_death(crashed=role is Role.PRIMARY and not self.database.guarding.ran_out()))

    async def _after_death(self, *, crashed: bool) -> None:
        """The server ended by itself: its orphans must not go on committing, then the policy decides."""
        async with self.lock:
            database = self.database
            if database.role is not Role.STOPPED:
                return
            await self._report(self._put_down())
            if crashed and not self._fencing and not self.memory.state.stopped:
                now = boottime()
                many = len(self._crashes) == _CRASHES and now - self._crashes[0] < _CRASH_WINDOW
                self._crashes.append(now)
                if self.config.on_crash is OnCrash.HOLD:
                    self.database.held = "the primary died, and --on-crash is hold"
                elif many:
                    self.database.held = (
                        f"the primary died more than {_CRASHES} times within {_CRASH_WINDOW:g} s"
                    )
                if self.database.held:
                    log("database.held", level="error", why=self.database.held)
        self._wake.set()

    async def _keep_measuring(self) -> None:
        while True:
            database = self.database
            if database.role is not Role.STOPPED and not self.lock.locked():
                primary = database.role is Role.PRIMARY
                if primary:
                    await database.meter.beat(self.holder.instance, _MEASURE_SECONDS)
                seen = await database.meter.measure(primary=primary, deadline=_MEASURE_SECONDS)
                if seen.in_recovery is False and database.role is Role.STANDBY:
                    await self._report(self._end_what_others_promoted())
            await asyncio.sleep(_MEASURE_SECONDS)

    async def _keep_standby(self) -> None:
        """See soon that a standby was promoted around the agent: `_keep_measuring` would, too, up to a second later.

        A missing signal only says where to look; what the server says of itself decides.
        """
        while True:
            await self.database.server.left_standby(_LOOK_SECONDS)
            if self.database.role is Role.STANDBY and not (self.database.writable or self.lock.locked()):
                await self._report(self._end_what_others_promoted())

    async def _end_what_others_promoted(self) -> None:
        """Kill a standby that somebody promoted around the agent (SAFETY rule 5): it has no right to write.

        It stays down: it went its own way, and promoted later it would lose what the holder wrote meanwhile.
        """
        async with self.lock:
            database = self.database
            ours = database.role is not Role.STANDBY or database.writable
            if ours or await database.sql.in_recovery(deadline=_ASK_SECONDS):
                return
            database.held = (
                "it was promoted without its agent, and has no right to write; `follow` rewinds it"
            )
            log("database.promoted_by_others", level="error", why=self.database.held)
            await self._put_down()
            self.memory.change(stopped=True)

    def renew_soon(self) -> None:
        """Look at the record now instead of at the next quarter of the lease."""
        self._renew_now.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(self._report(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _report(work: Any) -> None:
        """Background work must not end the agent: what it says is logged."""
        try:
            await work
        except (RefusedError, HmsdrError, OSError) as error:
            log("agent.background_failed", level="error", found=str(error))
