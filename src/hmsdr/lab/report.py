"""What a lab looks like now, asked of its real systems: supervisor, kernel, agents, Redis, record, authority. Reads only."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres
from hmsdr.errors import HmsdrError
from hmsdr.lab import control, probe
from hmsdr.lab.layout import PUBLIC_NAME, REGIONS, SERVICES, Endpoint, Layout
from hmsdr.lab.lines import source_lines
from hmsdr.lab.processes import LabProcess, lab_processes, usage
from hmsdr.lab.regions import Agents
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.topology import PostgresInstance

_ASK_SECONDS = 2.0
_MEGABYTE = 1_048_576


@dataclass(slots=True)
class Status:
    """A lab. ``problems`` is empty when all of it works; then, and only then, it is `whole`."""

    directory: str
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)
    authority: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    epoch_record: str = ""
    faults: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    writable_databases: list[str] = field(default_factory=list)
    """Regions whose PostgreSQL would take a write now, asked of itself: never two."""
    redis_masters: list[str] = field(default_factory=list)
    """Regions whose Redis is a master."""
    problems: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    endpoints: dict[str, dict[str, str]] = field(default_factory=dict)
    """What listens where, by region and for what is shared."""

    @property
    def whole(self) -> bool:
        """Whether everything works."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"whole": self.whole, **asdict(self)}


async def inspect(layout: Layout) -> Status:
    """Ask everything at once, each within its deadline."""
    found = Status(str(layout.directory))
    found.environment = {"KUBECONFIG": str(layout.kubeconfig), "HMSDR_PLAYBOOK": str(layout.playbook)}
    found.commands = source_lines(layout)
    found.endpoints = _endpoints(layout)
    await asyncio.gather(
        _supervisor(layout, found),
        _regions(layout, found),
        _authority(layout, found),
        _records(layout, found),
        _prometheus(layout, found),
    )
    found.processes = await asyncio.to_thread(_processes, layout)
    judge_writers(found)
    # The database may be in the other region, as database-failover leaves it; but somewhere it must be.
    if not any(region.get("database") == "primary" for region in found.regions.values()):
        found.problems.append("no region's database is the primary: nobody can write")
    return found


def judge_writers(found: Status) -> None:
    """Two that take writes are two histories, however well each of them works."""
    if len(found.writable_databases) > 1:
        found.problems.append(
            f"the databases of {' and '.join(found.writable_databases)} are both writable: two histories of the same "
            "patients. `hmsdr authority show` says who may write; fence the other one"
        )
    if len(found.redis_masters) > 1:
        found.problems.append(
            f"Redis is a master in {' and '.join(found.redis_masters)}: what one region caches, the other never sees"
        )


def _endpoints(layout: Layout) -> dict[str, dict[str, str]]:
    kinds = ("ingress_http", "ingress_https", "kubernetes", "postgres", "redis", "agent")
    found = {
        name: {"context": name, **{kind: str(getattr(region, kind)) for kind in kinds}}
        for name, region in layout.regions.items()
    }
    shared = ("aws", "dns", "prometheus", "channels")
    return {**found, "shared": {kind: str(getattr(layout, kind)) for kind in shared}}


async def _supervisor(layout: Layout, found: Status) -> None:
    said = await control.supervisor_status(layout)
    if said is None:
        found.problems.append("the supervisor does not run: `hmsdr lab down`, then `hmsdr lab up`")
        return
    found.faults = said["faults"]
    found.problems += [
        f"{item['name']} does not run{' (broken on purpose)' if item['held'] else ''}"
        for item in said["components"]
        if item["pid"] is None
    ]


async def _regions(layout: Layout, found: Status) -> None:
    try:
        playbook = load(layout.playbook)
        agents = Agents(layout)
    except HmsdrError as error:
        found.problems.append(str(error))
        return
    async with agents:
        answers, writable = await asyncio.gather(
            asyncio.gather(*(_region(layout, agents, name) for name in layout.regions)),
            asyncio.gather(*(_writable(region.postgres) for region in playbook.regions.values())),
        )
    found.writable_databases = [name for name, yes in zip(layout.regions, writable, strict=True) if yes]
    for name, (region, problems) in zip(layout.regions, answers, strict=True):
        found.regions[name] = region
        if region["redis"] == "master":
            found.redis_masters.append(name)
        found.problems += [f"{name}: {problem}" for problem in problems]


async def _region(layout: Layout, agents: Agents, name: str) -> tuple[dict[str, Any], list[str]]:
    here = layout.regions[name]
    status, redis, answers = await asyncio.gather(
        agents.status(name, deadline=_ASK_SECONDS), _redis_role(here.redis), _services(layout, name)
    )
    region: dict[str, Any] = {"redis": redis, "services": answers}
    problems = [f"the {service} service does not answer" for service, well in answers.items() if not well]
    if redis is None:
        problems.append("Redis does not answer")
    if status is None:
        return {**region, "database": None}, [*problems, "its agent does not answer"]
    replication = status.replication
    region |= {
        "database": status.database.state,
        "held": status.database.held,
        "epoch": status.accepted_epoch,
        "streaming": replication.streaming,
        "lag_seconds": replication.lag_seconds,
        "lag_bytes": replication.lag_bytes,
    }
    if status.database.state not in ("primary", "standby"):
        problems.append(f"its database is {status.database.state}{_why(status.database.held)}")
    elif status.database.state == "standby" and not replication.streaming:
        problems.append("its standby does not follow anybody")
    return region, problems


def _why(held: str | None) -> str:
    return f" ({held})" if held else ""


async def _services(layout: Layout, name: str) -> dict[str, bool]:
    where = layout.regions[name].ingress_http
    asked = [
        probe.answers(where, f"/{service}-service/health", deadline=_ASK_SECONDS) for service in SERVICES
    ]
    return dict(zip(SERVICES, await asyncio.gather(*asked), strict=True))


async def _writable(instance: PostgresInstance) -> bool:
    """Whether this database takes writes, in its own words: an agent that hangs would not know."""
    driver = Postgres(instance)
    try:
        return (await driver.status(deadline=_ASK_SECONDS)).in_recovery is False
    except DriverError:
        return False
    finally:
        await driver.close()


async def _redis_role(endpoint: Endpoint) -> str | None:
    """``master`` or ``slave``, in Redis's own words; None without an answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.write(b"INFO replication\r\n")
            while line := await reader.readline():
                if line.startswith(b"role:"):
                    return line[5:].strip().decode()
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.close()
    return None


async def _authority(layout: Layout, found: Status) -> None:
    try:
        store = await open_store(load(layout.playbook))
        try:
            record = await store.read_authority()
        finally:
            await store.close()
    except HmsdrError as error:
        found.problems.append(str(error))
        return
    found.authority = {
        "epoch": record.epoch,
        "phase": str(record.phase),
        "holder": record.holder.instance if record.holder else None,
    }


async def _records(layout: Layout, found: Status) -> None:
    zone = await probe.get_json(layout.aws, "/__lab/zone?since=0", deadline=_ASK_SECONDS)
    if zone is None:
        found.problems.append("Route 53 does not answer")
        return
    addresses = {region.ingress_http.host: name for name, region in layout.regions.items()}
    for item in zone["records"]:
        if item["name"] == f"{PUBLIC_NAME}." and item["type"] == "A":
            found.weights[addresses.get(item["values"][0], item["values"][0])] = item["weight"]
        elif item["name"] == f"_epoch.{PUBLIC_NAME}.":
            found.epoch_record = item["values"][0].strip('"')
    if not any(await asyncio.gather(probe.resolves(layout.dns, PUBLIC_NAME, deadline=_ASK_SECONDS))):
        found.problems.append(f"DNS does not resolve {PUBLIC_NAME}")


async def _prometheus(layout: Layout, found: Status) -> None:
    if not await probe.answers(layout.prometheus, "/-/ready", deadline=_ASK_SECONDS, ca_file=layout.ca_file):
        found.problems.append("Prometheus does not answer")


def _processes(layout: Layout) -> list[dict[str, Any]]:
    rows = []
    for process in sorted(lab_processes(layout.lab_id, layout.directory), key=_order):
        used = usage(process.pid)
        if used is not None:
            rows.append(
                {
                    "pid": process.pid,
                    "region": process.region,
                    "name": short_name(process),
                    "memory_mb": round(used.memory / _MEGABYTE, 1),
                    "uptime_seconds": round(used.uptime, 1),
                    "cpu_seconds": round(used.cpu, 2),
                    "started_at": round(time.time() - used.uptime, 3),
                }
            )
    return rows


def _order(process: LabProcess) -> tuple[int, int]:
    region = REGIONS.index(process.region) + 1 if process.region in REGIONS else 0
    return region, process.start


def short_name(process: LabProcess) -> str:
    """What the process is, in a few words."""
    words = process.command.split()
    if process.executable.startswith("python") and "-m" in words:
        module = words[words.index("-m") + 1]
        if module == "hmsdr":
            return " ".join(["hmsdr", *words[words.index("-m") + 2 :][:1]])
        return module.removeprefix("hmsdr.lab.")
    if process.executable.startswith("python") and "hmsdr.control.guard" in process.command:
        return "guard"
    if process.executable == "postgres" and process.command.startswith("postgres:"):
        return process.command[:60]
    return process.executable if process.executable in ("postgres", "prometheus") else process.command[:60]
