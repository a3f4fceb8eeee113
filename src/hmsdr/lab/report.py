"""What a lab looks like now, asked of its real systems, and the source playbook's own lines with its hosts. Reads only."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from hmsdr.drivers.agent import AgentClient, AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.route53 import Route53
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import lab_processes, usage
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

_ASK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Status:
    """A lab. `whole` is False when a part of it does not run."""

    directory: str
    whole: bool
    regions: dict[str, str]
    authority: str
    record: str
    processes: list[dict[str, Any]]
    commands: list[str]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


async def inspect(layout: Layout, *, patience: float = 0.0) -> Status:
    """Ask everything; with `patience`, wait that many seconds for agents to answer."""
    playbook = load(layout.playbook)
    answers = await asyncio.gather(*(_agent(playbook, name, patience) for name in playbook.regions))
    agents = dict(zip(playbook.regions, answers, strict=True))
    store = await SqliteStore.open(layout.store)
    record = await store.read_authority()
    await store.close()
    processes = [
        {
            "pid": process.pid,
            "region": process.region,
            "memory_mb": used.memory // 1_048_576,
            "uptime": round(used.uptime, 1),
            "command": process.command[:100],
        }
        for process in sorted(lab_processes(layout.lab_id, layout.directory), key=lambda item: item.start)
        if (used := usage(process.pid)) is not None
    ]
    holder = record.holder.instance if record.holder else "nobody"
    return Status(
        directory=str(layout.directory),
        whole=all(answer is not None and answer.database.pid is not None for answer in agents.values()),
        regions={name: _words(answer) for name, answer in agents.items()},
        authority=f"epoch {record.epoch}, {record.phase}, {holder}",
        record=await _record(playbook),
        processes=processes,
        commands=_commands(layout),
    )


async def _agent(playbook: Playbook, region: str, patience: float) -> AgentStatus | None:
    client = AgentClient(playbook.regions[region].agent)
    ends = asyncio.get_running_loop().time() + patience
    try:
        while True:
            try:
                return await client.status(deadline=_ASK_SECONDS)
            except DriverError:
                if asyncio.get_running_loop().time() >= ends:
                    return None
                await asyncio.sleep(0.2)
    finally:
        await client.close()


def _words(answer: AgentStatus | None) -> str:
    if answer is None:
        return "down: its agent does not answer"
    lag = answer.replication
    follows = (
        f", {lag.lag_bytes} bytes behind" if answer.database.state == "standby" and lag.streaming else ""
    )
    return f"database {answer.database.state}{follows}, accepted epoch {answer.accepted_epoch}"


async def _record(playbook: Playbook) -> str:
    driver = Route53(playbook.aws, playbook.traffic)
    try:
        weights = await driver.weights(deadline=_ASK_SECONDS)
    except DriverError as error:
        return error.found
    finally:
        await driver.close()
    return ", ".join(f"{name} {item.weight}" for name, item in weights.items())


def _commands(layout: Layout) -> list[str]:
    lines = []
    for region in layout.regions.values():
        port = "" if region.postgres.port == 5432 else f" -p {region.postgres.port}"  # noqa: PLR2004 - its default
        psql = f"psql -h {region.postgres.host}{port} -U postgres -c"
        lines.append(psql + " 'SELECT * FROM pg_stat_replication;'")
        lines.append(f"redis-cli -h {region.redis.host} -p {region.redis.port} INFO replication")
    lines.append(f"aws --endpoint-url http://{layout.aws} s3 ls s3://hms-backups-us-east-1/databases/")
    return lines
