"""The playbook's further endpoints, as one site's controller sees them. Shown, measured, changes in the log; it triggers nothing.

Each look is the prober's; what is news is `hmsdr.decide.steady`'s. A site that sees nothing of the hospital either believes nothing
about the endpoints: blind is not down. Whatever goes wrong here ends no controller.
"""

from __future__ import annotations

import asyncio
import math
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hmsdr.control.logs import log
from hmsdr.control.prober import Prober, Seen, Verdict, Watched
from hmsdr.control.proctable import boottime
from hmsdr.decide.steady import Steady, look
from hmsdr.drivers.http import HttpProbe
from hmsdr.errors import HmsdrError
from hmsdr.playbook.endpoints import Endpoint

SEEN = "endpoints.seen"
"""The event: its subject is the site, its data the changes."""
_TELL_SECONDS = 1.0
"""Changes within it are one event: a thousand endpoints that go away together are no thousand events."""
_MOST = 500
"""Changes in one event."""
_AGAIN_SECONDS = 60.0
_OTHER_FILES = 256
"""Open files that the controller needs besides."""
_SILENT = frozenset({Verdict.HALF_OPEN, Verdict.SILENT, Verdict.NONE})
_WELL = frozenset({Verdict.WELL, Verdict.SLOW})


class EndpointsWatch:
    """The eyes for the playbook's `watch`.

    Args:
        endpoints: by name.
        probe: makes what asks; closed when `run` ends.
        sees: whether this site sees anything at all just now.
        on_changes: told of what changed, together, as JSON for the log.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        probe: Callable[[], HttpProbe],
        sees: Callable[[], bool],
        on_changes: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self._endpoints = dict(endpoints)
        self._make_probe = probe
        self._sees = sees
        self._on_changes = on_changes
        self._known: dict[str, Steady] = {}
        self._last: dict[str, Seen] = {}
        self._probers: list[Prober] = []
        self._changed: dict[str, tuple[str | None, Seen, float]] = {}
        """By endpoint: from, what is seen now, since when. Not told yet."""
        self._asked = self._skipped = 0
        self.why = ""
        """Why nothing can be asked at all."""

    async def run(self) -> None:
        """Look, for ever."""
        while self._endpoints:
            probe = self._make_probe()
            # A task of its own: what fails in it is looked at here, and an end that is asked for is ours alone.
            looking = asyncio.create_task(self._look(probe))
            try:
                await asyncio.wait({looking})
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
                self._retire()
                await probe.close()
            if not looking.cancelled() and (error := looking.exception()) is not None:
                self.why = _words(error)
                log("endpoints.not_watched", level="error", found=self.why)
            await asyncio.sleep(_AGAIN_SECONDS)
        await asyncio.Event().wait()  # nothing is to be watched: as long as the others do their work

    async def _look(self, probe: HttpProbe) -> None:
        keep = _room_for(len(self._endpoints))
        groups: dict[tuple[float, float], list[Watched]] = {}
        for name, each in self._endpoints.items():
            pace = each.interval.total_seconds(), each.timeout.total_seconds()
            watched = (
                Watched(name, each.url, good=frozenset(each.expect))
                if each.expect
                else Watched(name, each.url)
            )
            groups.setdefault(pace, []).append(watched)
        self._probers = [
            Prober(
                probe,
                group,
                interval=interval,
                timeout=timeout,
                slow=timeout / 2,
                on_look=self._looked,
                keep=keep,
            )
            for (interval, timeout), group in groups.items()
        ]
        async with asyncio.TaskGroup() as tasks:
            for prober in self._probers:
                tasks.create_task(prober.run())
            tasks.create_task(self._keep_telling())

    def _looked(self, endpoint: Watched, _: Seen | None, now: Seen) -> None:
        self.why = ""
        if now.verdict not in _WELL and not self._sees():
            return
        name = endpoint.name
        before = self._known.get(name, _NOTHING)
        group = "silent" if now.verdict in _SILENT else str(now.verdict)
        known = look(before, group, now.at, self._endpoints[name].confirm)
        self._known[name], self._last[name] = known, now
        if known.told != before.told and (before.told is not None or known.told != Verdict.WELL):
            first = self._changed.get(name)
            self._changed[name] = (before.told if first is None else first[0], now, known.since)

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Tell of what changed since the last time and still is so."""
        changed, self._changed = self._changed, {}
        changes = [
            {
                "endpoint": name,
                "region": self._endpoints[name].region,
                "seen": self._known[name].told,
                "before": before,
                "found": now.words,
                "after_seconds": round(now.at - since, 3),
            }
            for name, (before, now, since) in changed.items()
            if self._known[name].told != before
        ]
        for first in range(0, len(changes), _MOST):
            self._on_changes(changes[first : first + _MOST])

    def as_json(self) -> dict[str, Any]:
        """For `/v1/view`: each endpoint, and whether the looks keep up."""
        now = boottime()
        return {
            "asked": self.asked,
            "skipped": self.skipped,
            "unseen": len(self.unseen(now)),
            "why": self.why,
            "seen": [
                {
                    "endpoint": name,
                    "region": self._endpoints[name].region,
                    "verdict": str(last.verdict),
                    "told": known.told,
                    "found": last.words,
                    "seconds": round(last.seconds, 4),
                    "seconds_ago": round(now - last.at, 1),
                    "for_seconds": round(now - known.since, 1),
                }
                for name, known, last in self.rows()
            ],
        }

    def rows(self) -> Iterator[tuple[str, Steady, Seen]]:
        """Each endpoint that was looked at, in order: its name, what is believed, the last look."""
        for name in sorted(self._last):
            yield name, self._known[name], self._last[name]

    def region(self, name: str) -> str:
        """The region that the playbook says an endpoint is of; empty for none."""
        return self._endpoints[name].region or ""

    def verdicts(self) -> Counter[Verdict]:
        """How many endpoints were last seen how."""
        return Counter(last.verdict for last in self._last.values())

    @property
    def asked(self) -> int:
        """Questions since the beginning."""
        return self._asked + sum(prober.asked for prober in self._probers)

    @property
    def skipped(self) -> int:
        """Questions that were not asked in their turn."""
        return self._skipped + sum(prober.skipped for prober in self._probers)

    def unseen(self, now: float) -> list[str]:
        """Endpoints of which nothing was seen for two of their intervals, as of `now` (boot-time clock)."""
        return [
            name
            for name, each in self._endpoints.items()
            if now - (last.at if (last := self._last.get(name)) else -math.inf)
            > 2 * each.interval.total_seconds()
        ]

    def _retire(self) -> None:
        self._asked, self._skipped, self._probers = self.asked, self.skipped, []


def up(known: Steady) -> bool | None:
    """Whether an endpoint answers as it should, by what is believed; None when that is not known yet."""
    return None if known.told is None else known.told in _WELL


def _room_for(count: int) -> bool:
    """Whether a connection to each endpoint may be kept open; the process's bound on open files is raised for that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            log("endpoints.few_files", level="warning", endpoints=count, open_files=hard, wanted=wanted)
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, HmsdrError) else f"{type(error).__name__}: {error}"


_NOTHING = Steady()
