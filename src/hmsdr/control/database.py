"""The database that an agent keeps: its server, its role, the guard over it, and what must be remembered.

Every way in which it starts stands here, and each begins as a standby unless a live lease is shown (SAFETY
rule 6). When it may be promoted or must be fenced is decided in `promote` and `fence`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from hmsdr.control import pgconf
from hmsdr.control.archive import prepare
from hmsdr.control.config import AgentConfig
from hmsdr.control.guarding import Guarding
from hmsdr.control.lease import Lease, Renewal
from hmsdr.control.logs import log
from hmsdr.control.measure import Meter
from hmsdr.control.proctable import boottime
from hmsdr.control.server import PostgresServer
from hmsdr.control.state import StateFile, Upstream
from hmsdr.control.surroundings import Surroundings
from hmsdr.drivers.errors import DriverError, TemporaryError
from hmsdr.errors import FailedError, RefusedError

_ASK_SECONDS = 2.0
_ADOPT_SECONDS = 5.0
_OTHER_TIMELINE = "FATAL:  requested timeline"


class Role(StrEnum):
    """What the server is now, as far as the agent made or saw it."""

    STOPPED = "stopped"
    STANDBY = "standby"
    PRIMARY = "primary"


class Database:
    """One server with everything around it. Its methods are called under the agent's lock, one at a time.

    Args:
        config: the agent's configuration.
        server: the server of the data directory.
        guarding: the guard over it.
        lease: our lease.
        memory: the durable state.
        died: called, with the role it had, when the server ends by itself.
        around: where connections come from.
    """

    def __init__(
        self,
        config: AgentConfig,
        server: PostgresServer,
        guarding: Guarding,
        lease: Lease,
        memory: StateFile,
        died: Callable[[Role], None],
        around: Surroundings,
    ) -> None:
        self.config = config
        self.server = server
        self.guarding = guarding
        self.lease = lease
        self.memory = memory
        self.around = around
        self.sql = around.sql()
        self.meter = Meter(self.sql)
        self.role = Role.STOPPED
        self.writable = False
        """Whether the server is, or may just be becoming, writable: then the guard has its deadline."""
        self.held = ""
        """Why it is left stopped although it might run; empty when it is not."""
        self._died = died
        self._watch: asyncio.Task[None] | None = None

    @property
    def upstream(self) -> Upstream:
        """Whom it follows as a standby."""
        return self.memory.state.upstream or self.config.upstream

    def arm(self) -> None:
        """From here on it may become writable, until the lease's deadline and no longer (rule 2).

        Raises:
            TemporaryError: there is no live lease.
        """
        if self.lease.seconds_left() <= 0:
            raise TemporaryError(
                f"making {self.config.instance.instance} writable",
                "the lease is not live",
                "The store must answer first",
            )
        self.writable = True
        self.guarding.publish(self.lease.deadline)

    def disarm(self) -> None:
        """It is proven dead, or a standby that never became writable: nothing to guard."""
        self.writable = False
        self.guarding.publish(None)

    async def start_standby(self) -> None:
        """Start it as a standby of `upstream`.

        Raises:
            FailedError: it does not come up.
        """
        await self._start(writable=False, upstream=self.upstream)
        self.role = Role.STANDBY
        log("database.started", role=self.role, upstream=f"{self.upstream.host}:{self.upstream.port}")

    async def start_alone(self) -> None:
        """Start it as a standby that follows nobody: it only replays what it has."""
        await self._start(writable=False, upstream=None)
        self.role = Role.STANDBY

    async def start_primary(self) -> None:
        """Start it writable: the entry point with a live lease under the epoch that was promoted here (rule 6).

        Raises:
            RefusedError: it was not promoted under the lease's epoch, was fenced under it, or is other data.
            TemporaryError: the lease is not live.
            FailedError: it does not come up.
        """
        state = self.memory.state
        doing = f"starting {self.config.instance.instance} as the primary"
        epoch = self.lease.epoch
        if (
            epoch is None
            or epoch != state.promoted_epoch
            or state.fenced(epoch)
            or not self.lease.live(epoch)
        ):
            raise RefusedError(doing, f"it has no live right under epoch {epoch}", "It starts as a standby")
        await self.check_data(doing)
        await self.guarding.ensure()
        self.arm()
        await self._start(writable=True, upstream=self.upstream)
        self.role = Role.PRIMARY
        log("database.started", role=self.role, epoch=epoch)

    async def check_data(self, doing: str) -> None:
        """What lies in the data directory must be what was promoted here.

        Raises:
            RefusedError: it is another system's.
        """
        known = self.memory.state.system_identifier
        if known is None or not self.server.exists:
            return
        found = (await self.server.control()).system_identifier
        if found != known:
            raise RefusedError(
                doing,
                f"{self.config.data_directory} is of system {found}, promoted was {known}",
                "Put the right data back, or name the right directory. To begin with other data on purpose: stop the agent, "
                "and give it an empty --state-directory",
            )

    async def _start(self, *, writable: bool, upstream: Upstream | None) -> None:
        if not self.server.exists:
            raise FailedError(
                f"starting PostgreSQL in {self.config.data_directory}",
                "there is no database",
                "Make one with hmsdr.control.bootstrap, or clone the primary",
            )
        if self.memory.state.rewinding:
            raise FailedError(
                f"starting PostgreSQL in {self.config.data_directory}",
                "a rewind of it began and did not end: its files are of two histories",
                f"`hmsdr recover {self.config.region}` goes on with it, or restores it",
            )
        await self.forget_server()
        if self.role is Role.STOPPED and self.server.processes():
            # Whoever started it around us had no right to, and what it became is not known: it must not keep us from our work.
            log("database.started_by_others", level="error", directory=str(self.config.data_directory))
            await self.kill()
        archive = self.config.archive
        chosen = pgconf.settings(
            self.config.instance,
            listen=self.config.listen,
            sockets=self.config.sockets,
            upstream=upstream,
            archive_command=self._archive_command(),
            archive_every=0.0 if archive is None else archive.every,
        )
        self.server.clear_socket(self.config.sockets, self.config.instance.port)
        self.server.own()
        seconds = self.config.start_deadline
        try:
            try:
                await self.server.start(writable=writable, settings=chosen, deadline=seconds)
            except FailedError:
                if writable or _OTHER_TIMELINE not in self.server.last_words(12):
                    raise
                # It went its own way and has heard of a later timeline, which it is no part of: as far as its own goes.
                chosen["recovery_target_timeline"] = "current"
                await self.server.start(writable=False, settings=chosen, deadline=seconds)
        finally:
            self.watch()
        with suppress(DriverError):
            await self.sql.connect(deadline=_ASK_SECONDS)

    def _archive_command(self) -> str:
        """Without Barman the hospital's database runs all the same: an archive that stands still is seen by `backup verify`."""
        if self.config.archive is None:
            return ""
        try:
            return prepare(self.config.archive, self.config.state_directory, self.server.unprivileged)
        except (RefusedError, OSError) as error:
            log("archive.not_possible", level="error", found=str(error))
            return "false"

    async def adopt(self) -> bool:
        """Take over a server that runs from an earlier life of the agent; False when it must not live on.

        Nothing does that was started from half-rewound files. A primary lives on only if the store confirms the lease before the deadline that the earlier life
        published; a standby always does.
        """
        pid = self.server.pid()
        if pid is None or self.memory.state.rewinding:
            return False
        pgconf.allow_archiving(self.config.data_directory)  # the earlier life may have begun to stop it
        self._archive_command()  # keys of the object store may be others by now
        try:
            async with asyncio.timeout(_ADOPT_SECONDS):
                standby = await self._ask_role()
        except TimeoutError:
            return False
        if standby:
            self.disarm()
            self.role = Role.STANDBY
            self.watch()
            return True
        published = self.guarding.file.deadline()
        if published is None or not await self._confirm(published):
            return False
        self.role = Role.PRIMARY
        self.arm()
        self.server.make_standby()
        self.watch()
        return True

    async def _ask_role(self) -> bool:
        while True:
            try:
                return await self.sql.in_recovery(deadline=_ASK_SECONDS)
            except TemporaryError:
                await asyncio.sleep(0.05)

    async def _confirm(self, published: float) -> bool:
        while (left := published - boottime()) > 0:
            outcome = await self.lease.renew(min(left, _ASK_SECONDS))
            if outcome is Renewal.NOT_OURS:
                return False
            if outcome is Renewal.HELD:
                same = self.lease.epoch == self.memory.state.accepted_epoch
                return same and boottime() < published
            await asyncio.sleep(min(0.05, left))
        return False

    def watch(self) -> None:
        """Report when the server that runs now ends by itself."""
        pid = self.server.pid()
        if pid is not None and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._watching(pid))

    async def _watching(self, pid: int) -> None:
        await self.server.wait_exit(pid, None)
        had, self.role = self.role, Role.STOPPED
        self.meter.stream_gone()
        log("database.died", level="error", role=had, last_words=self.server.last_words())
        self._died(had)

    async def forget_server(self) -> None:
        """Its end from here on is meant: no longer watch it, and drop the connection to it."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await self.sql.close()

    async def kill(self) -> int:
        """Kill every process of it and prove it; gives how many.

        Raises:
            TemporaryError: some survive (they are stuck in the kernel): nothing is confirmed.
        """
        killed, survivors = await self.server.kill(self.config.kill_deadline)
        if survivors:
            raise TemporaryError(
                f"killing {self.config.instance.instance}",
                f"{survivors} processes survive after {self.config.kill_deadline:g} s",
                "They wait for a disk or a network file system; ask again, or cut the machine's power",
            )
        await self.forget_server()
        self.role = Role.STOPPED
        self.meter.stream_gone()
        return killed

    async def stop(self, deadline: float) -> None:
        """Stop it cleanly within `deadline` seconds, then kill what is left."""
        await self.forget_server()
        if self.server.pid() is not None:
            await self.server.stop_fast(deadline)
        await self.kill()
