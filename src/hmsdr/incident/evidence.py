"""Evidence of an incident, gathered by the system: what the log has, and what each outside system shows now, as files with hashes (IR-2, PR-6).

Sources are asked side by side, each within a deadline; one that does not answer is evidence, too, and is in the manifest with what was
found. Values of secrets and environments are not asked for. A folder is never written over: it has the time in its name.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmsdr.decide.clusterbackup import Resource
from hmsdr.errors import FailedError, HmsdrError
from hmsdr.incident.desk import Desk
from hmsdr.incident.view import as_json, timeline
from hmsdr.log.events import Event
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

SOURCE_SECONDS = 10.0
"""For each source."""
_EVENTS = Resource("events", "Event")
_CHANGES = (
    "run.",
    "stage.",
    "step.",
    "failover.",
    "handover.",
    "disaster.",
    "damage.",
    "recovery.",
    "switchback.",
)
"""Beginnings of what changed the hospital: what was deployed or moved before and during an incident."""
_BEFORE = 200
"""Events of the log before the incident that go into the folder: what led to it."""

Source = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A folder: where, which files, and what could not be had, with the reason."""

    directory: Path
    files: Mapping[str, str]
    """SHA-256 by name."""
    missing: Mapping[str, str]

    @property
    def words(self) -> str:
        """For the record."""
        without = f"; without {', '.join(self.missing)}" if self.missing else ""
        return f"{len(self.files)} files in {self.directory}{without}; SHA-256 of the manifest {self.files['manifest.json']}"


async def gather(desk: Desk, store: Store, playbook: Playbook, name: str, below: Path) -> Gathered:
    """Gather everything that can be had into a new folder below `below`.

    Raises:
        RefusedError: there is no such incident.
        FailedError: the folder cannot be written.
    """
    doing = f"gathering evidence of {name}"
    incident = await desk.incident(name, doing)
    now = datetime.now(UTC)
    events = await store.read()
    contents: dict[str, Any] = {
        "incident.json": as_json(incident, playbook, now),
        "timeline.json": timeline([each for each in events if each.subject == name]),
        "messages.json": timeline([each for each in events if each.subject.startswith(f"{name}/")]),
        "changes.json": timeline(_changes(events, incident.opened_seq)),
    }
    missing: dict[str, str] = {}
    systems = Systems(playbook, store)
    try:
        sources = _sources(systems, playbook)
        found = await asyncio.gather(*(_asked(source) for source in sources.values()))
    finally:
        await systems.close()
    for file, (value, trouble) in zip(sources, found, strict=True):
        if trouble:
            missing[file] = trouble
        else:
            contents[file] = value
    directory = below / f"{name}-{now:%Y%m%dT%H%M%SZ}"
    try:
        return await asyncio.to_thread(_written, directory, name, now, contents, missing)
    except OSError as error:
        found_there = f"{error.filename or directory}: {error.strerror or error}"
        raise FailedError(doing, found_there, "Name a directory that can be written with --out") from error


def _changes(events: list[Event], opened: int) -> list[Event]:
    """What moved in the hospital, from shortly before the incident."""
    changed = [each for each in events if each.kind.startswith(_CHANGES)]
    before = [each for each in changed if each.seq < opened][-_BEFORE:]
    return before + [each for each in changed if each.seq >= opened]


def _sources(systems: Systems, playbook: Playbook) -> dict[str, Source]:
    """File to what it is filled from."""
    found: dict[str, Source] = {
        "monitoring/alert-rules.json": lambda: systems.prometheus().alert_rules(SOURCE_SECONDS),
        "monitoring/up.json": lambda: systems.prometheus().query("up", SOURCE_SECONDS),
    }
    for region, settings in playbook.regions.items():
        found |= _region(systems, region, settings.kubernetes.namespace)
    return found


def _region(systems: Systems, region: str, namespace: str) -> dict[str, Source]:
    database, cache, cluster = systems.postgres(region), systems.redis(region), systems.kubernetes(region)
    wait = SOURCE_SECONDS
    return {
        f"{region}/database.json": lambda: database.status(deadline=wait),
        f"{region}/replication.json": lambda: database.replication(deadline=wait),
        f"{region}/slots.json": lambda: database.slots(deadline=wait),
        f"{region}/cache.json": lambda: cache.info_replication(deadline=wait),
        f"{region}/deployments.json": lambda: cluster.deployments(deadline=wait),
        f"{region}/pods.json": lambda: cluster.pods(deadline=wait),
        f"{region}/nodes.json": lambda: cluster.nodes(deadline=wait),
        f"{region}/events.json": lambda: cluster.raw_objects(_EVENTS, namespace=namespace, deadline=wait),
    }


async def _asked(source: Source) -> tuple[Any, str]:
    """What it gave, or why it gave nothing."""
    try:
        async with asyncio.timeout(2 * SOURCE_SECONDS):
            return _plain(await source()), ""
    except HmsdrError as error:
        return None, str(error)
    except TimeoutError:
        return None, f"no answer within {2 * SOURCE_SECONDS:g} s"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        found = asdict(value)
        # Variables may be secrets: their names are enough to see what an application is told.
        return {**found, "env": sorted(found["env"])} if isinstance(found.get("env"), dict) else found
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def _written(
    directory: Path, name: str, now: datetime, contents: Mapping[str, Any], missing: Mapping[str, str]
) -> Gathered:
    """All files, then the manifest with their hashes: a folder without one is not whole."""
    directory.mkdir(parents=True, mode=0o700)
    hashes = {file: _file(directory / file, value) for file, value in sorted(contents.items())}
    manifest = {"incident": name, "gathered_at": now.isoformat(), "sha256": hashes, "missing": dict(missing)}
    hashes["manifest.json"] = _file(directory / "manifest.json", manifest)
    return Gathered(directory, hashes, missing)


def _file(path: Path, value: Any) -> str:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    data = json.dumps(value, ensure_ascii=False, indent=1, default=str).encode() + b"\n"
    path.touch(mode=0o600)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
