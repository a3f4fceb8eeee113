"""The agent beside a region's database, simulated at its edges: what it decides is the real code of `hmsdr.decide`.

It mirrors `hmsdr.control`: renew, publish to the guard, obey fence and promote under an epoch, remember before answering,
start nothing writable without a live lease; and asks its peer when the store is out of reach (rule 7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hmsdr.decide import promise as promising
from hmsdr.decide import tenure as holding
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, Phase, Receipt, may_promote, renew
from hmsdr.decide.promise import Promise, PromiseRefused
from hmsdr.decide.tenure import Delivery, Standing, Tenure
from hmsdr.sim.database import Database, Guard
from hmsdr.sim.store import Contents, Store, swap
from hmsdr.sim.world import SILENCE, Call, Machine, Process, Script, Sleep, World

_FENCE_SECONDS = 0.05
_SYNC_SECONDS = 0.003


@dataclass
class Disk:
    """What an agent does not forget."""

    accepted_epoch: int = 0
    promoted_epoch: int = 0
    receipt: Receipt | None = None
    promise: Promise | None = None
    stopped: bool = False

    @property
    def fenced_epoch(self) -> int | None:
        """Writing up to here is over."""
        return self.receipt.epoch if self.receipt is not None else None


class Agent(Process):
    """One region's agent.

    Args:
        world: where it lives.
        machine: its region's.
        database: what it keeps.
        guard: over that database.
        store: keeper of the authority record.
        lease: in seconds.
        drift_margin: largest difference of clock rates, as a fraction.
    """

    def __init__(
        self,
        world: World,
        machine: Machine,
        database: Database,
        guard: Guard,
        store: Store,
        lease: float,
        drift_margin: float,
    ) -> None:
        super().__init__(world, machine, f"agent@{machine.site}")
        self.database = database
        self.guard = guard
        self.store = store
        self.lease = lease
        self.drift_margin = drift_margin
        self.disk = Disk()
        self.peer: Agent | None = None
        self.tenure = Tenure(Holder(database.instance, "0"), drift_margin)
        self.mute = False
        """Whether its own interface does not answer: its port is blocked, say."""
        self.quorum = False
        """Whether the store answered the last question."""
        self._fencing = 0
        self._renewing = False
        self._started = 0.0

    def begin(self) -> None:
        """A new life: adopt what runs, or start a standby."""
        self._fencing, self._renewing = 0, False
        self.tenure = Tenure(
            Holder(self.database.instance, f"{self.machine.site}{self.life}"), self.drift_margin
        )
        self._started = self.machine.clock()
        if not self.database.running:
            self.database.kill()  # orphans of an earlier life must not go on
            self.guard.publish(None)
        self.guard.start()
        self.say(f"started, life {self.life}")
        self.spawn(self._keep_lease())
        self.spawn(self._keep_database())

    def status(self) -> dict[str, Any]:
        """What it tells whoever asks."""
        return {
            "holder": self.tenure.holder,
            "following": self.database.running and self.database.follows and not self.database.primary,
            "promoted_epoch": self.disk.promoted_epoch if self.database.primary else 0,
            "lsn": len(self.database.rows),
            "data_epoch": self.database.history[-1][0] if self.database.history else 0,
        }

    def _keep_lease(self) -> Script:
        while True:
            began = self.machine.clock()
            refused = yield from self._renew()
            if self.database.able:
                self._judge(refused)
            quarter = self.lease / 4
            pause = quarter if self.quorum else quarter / 4
            if self.database.able:
                pause = min(pause, max(0.01, self.tenure.seconds_left(self.machine.clock())))
            yield Sleep(max(0.01, pause - (self.machine.clock() - began) if self.quorum else pause))

    def _renew(self) -> Script:
        """One attempt; gives whether the record refuses us.

        One at a time, as in `hmsdr.control.lease`: an old refusal must not be judged after a newer grant.
        """
        while self._renewing:
            yield Sleep(0.005)
        self._renewing = True
        refused = yield from self._attempt()
        self._renewing = False
        return refused

    def _attempt(self) -> Script:
        asked = self.machine.clock()
        limit = self.lease / 8
        record = yield self.store.ask(self.machine.site, read_authority, limit, who=self.name)
        self.quorum = record is not SILENCE
        if record is SILENCE:
            if self.database.able:
                yield from self._ask_peer()
            return False
        self.tenure = replace(self.tenure, record=record)
        try:
            new = holding.asks(self.tenure, record, fenced_epoch=self.disk.fenced_epoch)
        except AuthorityRefused:
            return True
        taken = yield self.store.ask(self.machine.site, swap(record, new), limit, who=self.name)
        self.answered(taken, new, asked)
        return False

    def answered(self, taken: Any, new: Authority, asked: float) -> None:
        """An unclear answer is no renewal; a clear one counts from before the request (rule 1)."""
        if taken is True:
            self.tenure = holding.renewed(self.tenure, new, asked)

    def _ask_peer(self) -> Script:
        """Rule 7: the store is out of reach here. The peer relays the renewal, or promises."""
        peer, record, epoch = self.peer, self.tenure.record, self.tenure.epoch
        if peer is None or record is None or epoch is None or record.epoch != epoch:
            return
        asked = self.machine.clock()
        holder = self.tenure.holder
        answer = yield Call(peer.machine.site, lambda: peer.relay(epoch, holder), self.lease / 8, peer)
        if isinstance(answer, Authority):
            self.tenure = replace(self.tenure, record=answer)
            if answer.holder == holder and answer.phase is Phase.HELD and answer.epoch == epoch:
                self.tenure = holding.renewed(self.tenure, answer, asked)
        elif isinstance(answer, Promise):
            self.tenure = holding.promised(self.tenure, epoch, asked, answer.seconds)

    def relayed(self, new: Authority, swapped: Any) -> Authority | None:
        """A record that was not put in place is no renewal."""
        return new if swapped is True else None

    def relay(self, epoch: int, holder: Holder) -> Any:
        """The peer's side: renews in the holder's name and gives the record; without a quorum, promises or refuses."""
        site = self.machine.site
        record = self.store.at(site, read_authority, who=self.name)
        self.quorum = record is not SILENCE
        if record is not SILENCE:
            self.tenure = replace(self.tenure, record=record)
            try:
                new = renew(record, holder)
            except AuthorityRefused:
                return record
            return self.relayed(new, self.store.at(site, swap(record, new), who=self.name))
        try:
            given = promising.give(
                epoch,
                holder.instance,
                self.tenure.record,
                quorum=self.quorum,
                accepted_epoch=self.disk.accepted_epoch,
                now=self.machine.clock(),
                boot=self.machine.boot_id,
                seconds=self.lease,
                drift_margin=self.drift_margin,
            )
        except PromiseRefused:
            return None
        self.disk.promise = given
        if self.database.witness is not None:
            self.database.witness.promise(self.tenure.record, epoch)
        return given

    def _judge(self, refused: bool) -> None:
        now = self.machine.clock()
        found = holding.standing(self.tenure, now, refused=refused, published=self.guard.deadline)
        if found is Standing.GO_ON:
            self.guard.publish(self.tenure.deadline)
            self.guard.start()
        elif found is Standing.EXPIRED:
            self.say("the lease has run out")
            self.database.kill()
            self.guard.publish(None)
        else:
            self.say(f"has no right any more: {found}")
            self.spawn(self.fence(self.disk.accepted_epoch, clean=found is Standing.STOP_CLEANLY))

    def fence(self, epoch: int, *, clean: bool) -> Script:
        """Fence under `epoch`; gives the receipt. The same epoch again gives the same one."""
        if (receipt := self._receipt(epoch)) is not None:
            return receipt
        if epoch < self.disk.accepted_epoch:
            return None
        self._fencing += 1
        was_able, lsn, unused = self.database.able, None, self.disk.accepted_epoch < epoch
        if clean and self.database.primary and self.database.running:
            yield Sleep(_FENCE_SECONDS * 4)
            if self.database.primary and self.database.running:
                lsn = self.database.stop_cleanly()
        if lsn is None:
            self.kill_database()
            yield Sleep(_FENCE_SECONDS)
        if (receipt := self._receipt(epoch)) is None:
            receipt = Receipt(
                self.database.instance, self.tenure.holder.incarnation, epoch, lsn, lsn is not None, 0, unused
            )
            yield Sleep(_SYNC_SECONDS)
            self.disk.receipt, self.disk.stopped = receipt, True
            self.disk.accepted_epoch = max(self.disk.accepted_epoch, epoch)
            self.guard.publish(None)
            self.tenure = replace(self.tenure, deadline=None, epoch=None)
            self.say(
                f"fenced under epoch {epoch}{' cleanly' if lsn is not None else ''}{'' if was_able else ', did not write'}"
            )
        self._fencing -= 1
        return receipt

    def kill_database(self) -> None:
        """Every process of it (rule 3)."""
        self.database.kill()

    def _receipt(self, epoch: int) -> Receipt | None:
        receipt = self.disk.receipt
        return receipt if receipt is not None and receipt.epoch >= epoch else None

    def promote(self, epoch: int, least_lsn: int) -> Script:
        """Promote under `epoch`; gives True when it is the primary under it, now or since before."""
        disk, database = self.disk, self.database
        if self.delivery(epoch) is not Delivery.NEW or self.bound():
            return self.delivery(epoch) is Delivery.DONE_BEFORE
        refused = yield from self._renew()
        if refused or not self._may_promote(epoch, least_lsn):
            return False
        # On disk before PostgreSQL is asked (rule 5), and the guard has its deadline (rule 2).
        disk.accepted_epoch, disk.stopped = epoch, False
        self.guard.publish(self.tenure.deadline)
        self.guard.start()
        database.start_standby()
        database.promote(epoch)
        disk.promoted_epoch = epoch
        self.put_back_standby_signal()
        return True

    def _may_promote(self, epoch: int, least_lsn: int) -> bool:
        record = self.tenure.record
        if record is None or self._fencing or not self.tenure.live(epoch, self.machine.clock()):
            return False
        if self.delivery(epoch) is not Delivery.NEW or self.bound() or len(self.database.rows) < least_lsn:
            return False
        try:
            may_promote(record, self.tenure.holder, epoch, len(self.database.rows))
        except AuthorityRefused as refusal:
            self.say(f"does not promote: {refusal}")
            return False
        return True

    def put_back_standby_signal(self) -> None:
        """Right after a promotion: a restart outside this agent is a standby (rule 6)."""
        self.database.standby_signal = True

    def delivery(self, epoch: int) -> Delivery:
        """What an order to promote is, by what is on disk."""
        disk = self.disk
        return holding.delivery(
            epoch,
            accepted_epoch=disk.accepted_epoch,
            promoted_epoch=disk.promoted_epoch,
            fenced_epoch=disk.fenced_epoch,
        )

    def bound(self) -> bool:
        """Whether a promise forbids to accept a grant now."""
        until = promising.bound_until(
            self.disk.promise,
            boot=self.machine.boot_id,
            started=self._started,
            drift_margin=self.drift_margin,
        )
        return self.machine.clock() < until

    def follow(self, epoch: int) -> bool:
        """Become a standby of the holder of `epoch`: rewound, never writable."""
        other = self.database.other
        if other is None or not (other.running and other.primary) or other.epoch != epoch:
            return False
        if (
            self.database.able
            or self.tenure.seconds_left(self.machine.clock()) > 0
            or self.disk.accepted_epoch > epoch
        ):
            return False
        self.guard.publish(None)
        self.disk.accepted_epoch, self.disk.stopped = epoch, False
        self.database.rewind()
        self.say(f"follows epoch {epoch}")
        return True

    def _keep_database(self) -> Script:
        """Reconcile what runs with what may run."""
        while True:
            yield Sleep(0.5)
            database, disk = self.database, self.disk
            if not self.guard.alive:
                self.guard.start()
            if (database.running and database.primary) or disk.stopped or self._fencing:
                continue
            now = self.machine.clock()
            if holding.may_start_writable(
                self.tenure, now, promoted_epoch=disk.promoted_epoch, fenced_epoch=disk.fenced_epoch
            ):
                database.kill()
                self.guard.publish(self.tenure.deadline)
                self.guard.start()
                self.say(f"starts it as the primary of epoch {disk.promoted_epoch} again")
                database.start_primary()
            elif database.standby_signal:
                database.start_standby()
            else:
                database.start_primary()


def read_authority(contents: Contents) -> Authority:
    """A linearizable read of the record."""
    return contents.authority
