"""The hospital's outside systems as a simulated process sees them: the real drivers' classes, their wires simulated.

HTTP, Kubernetes, Route 53 and the object store; the agents' client and SQL are `agent` and `edges`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from hmsdr.decide.backups import BackupRecord, StoredFile, record_text
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.errors import OutcomeUnknownError, TemporaryError
from hmsdr.drivers.http import HttpAnswer, HttpOutcome, HttpProbe
from hmsdr.drivers.kubernetes import Deployment, Kubernetes, Node, Pod
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.route53 import READ_SECONDS, Route53
from hmsdr.drivers.s3 import ObjectStore, StoredObject
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.topology import Traffic
from hmsdr.runbook.systems import Systems
from hmsdr.sim.agent import Client
from hmsdr.sim.edges import SYSTEM, THEN, Sql
from hmsdr.sim.loop import Life
from hmsdr.sim.process import NobodyThereError, asked
from hmsdr.sim.settings import HEALTH, PUBLIC, SERVICE, URLS
from hmsdr.sim.store import StorePort
from hmsdr.sim.world import SILENCE

if TYPE_CHECKING:
    from hmsdr.sim.hospital import Hospital

_T = TypeVar("_T")
CLOUD = "cloud"
"""Where the cloud's own APIs are: at none of the sites; wires there are never cut, and lose and delay as others do."""
_OK, _FAILING = 200, 503


class Dns:
    """Route 53's records of the public name: a batch is carried out whole or not at all."""

    def __init__(self, book: Playbook, active: str, epoch: int) -> None:
        traffic = book.traffic
        self.records: list[dict[str, Any]] = [
            {
                "Name": f"{traffic.record}.",
                "Type": traffic.record_type,
                "SetIdentifier": name,
                "Weight": 100 if name == active else 0,
                "TTL": traffic.ttl,
                "ResourceRecords": [{"Value": region.ingress.address}],
            }
            for name, region in book.regions.items()
        ]
        self.records.append(
            {
                "Name": f"{traffic.epoch_record}.",
                "Type": "TXT",
                "TTL": traffic.ttl,
                "ResourceRecords": [{"Value": f'"epoch={epoch}"'}],
            }
        )

    @property
    def traffic(self) -> tuple[str, int]:
        """Where the public record leads, and the epoch beside it (rule 12)."""
        leads = [each["SetIdentifier"] for each in self.records if each.get("Weight")]
        text = next(each for each in self.records if each["Type"] == "TXT")["ResourceRecords"][0]["Value"]
        return "".join(leads), int(text.strip('"').removeprefix("epoch="))

    def change(self, batch: list[dict[str, Any]]) -> bool:
        """Carry out `batch`, unless it deletes what is not exactly there."""
        records = list(self.records)
        for each in batch:
            record = each["ResourceRecordSet"]
            if each["Action"] == "DELETE":
                found = self.matching(records, record)
                if found is None:
                    return False
                records.remove(found)
            else:
                records.append(record)
        self.records = records
        return True

    def matching(self, records: list[dict[str, Any]], record: dict[str, Any]) -> dict[str, Any] | None:
        """The very record that is to be deleted."""
        return record if record in records else None


class SimulatedSystems(Systems):
    """The outside systems as the process of `loop` sees them."""

    def __init__(self, book: Playbook, store: StorePort, hospital: Hospital, loop: Life) -> None:
        super().__init__(book, store)
        self._hospital, self._loop = hospital, loop
        self._agents: dict[str, AgentClient] = {}
        self._http = Web(hospital, loop)
        self._dns: Route53 | None = None

    async def close(self) -> None:
        """There are no connections."""

    def run_name(self) -> str:
        """Counted: a seed tells the same story twice."""
        self._hospital.runs += 1
        return f"run-{self._hospital.runs}"

    def agent(self, region: str) -> AgentClient:
        """Over the wires."""
        if region not in self._agents:
            endpoint = self.playbook.regions[region].agent
            self._agents[region] = Client(self._hospital.agents[region], self._loop, endpoint)
        return self._agents[region]

    def postgres(self, region: str) -> Postgres:
        """Over the wires."""
        return Sql(self._hospital.databases[region], self._loop)

    def kubernetes(self, region: str) -> Kubernetes:
        """Over the wires."""
        return Cluster(self._hospital, region, self._loop)

    def dns(self) -> Route53:
        """Over the wires."""
        if self._dns is None:
            self._dns = Zone(self._hospital.dns, self.playbook.traffic, self._loop)
        return self._dns

    def objects(self) -> ObjectStore:
        """With a backup in it."""
        return Bucket()

    def http(self) -> HttpProbe:
        """Over the wires."""
        return self._http


class Web(HttpProbe):
    """HTTP: regions' ways in, services, the other controllers."""

    def __init__(self, hospital: Hospital, loop: Life) -> None:
        self._hospital, self._loop = hospital, loop

    async def get(
        self,
        url: str,
        deadline: float,
        *,
        via: str | None = None,
        headers: Mapping[str, str] | None = None,
        reuse: bool = False,
    ) -> HttpAnswer:
        """One request."""
        loop, hospital = self._loop, self._hospital
        here = loop.process.machine.site
        base, service = (url.removesuffix(HEALTH), True) if url.endswith(HEALTH) else (url, False)
        if base == PUBLIC:
            site = hospital.dns.traffic[0]
        else:
            base = base.removesuffix("/health").removesuffix("/healthz")
            site = URLS[base]
        to = hospital.controllers[site] if base.startswith("http://controller") else None
        machine = hospital.machines[site]

        def answer() -> Any:
            if to is not None:
                return _OK
            if service:
                said = hospital.services.asked(site, here)()
                return said if said is SILENCE else _OK if said else _FAILING
            return _OK if machine.up else SILENCE

        began = loop.time()
        try:
            status = await asked(loop, site, answer, within=deadline, to=to)
        except NobodyThereError:
            return HttpAnswer(HttpOutcome.REFUSED, loop.time() - began, found="refused")
        if status is SILENCE:
            return HttpAnswer(HttpOutcome.TIMEOUT, deadline, found="no answer")
        return HttpAnswer(HttpOutcome.ANSWERED, loop.time() - began, site, status)


class Cluster(Kubernetes):
    """A region's Kubernetes: one node, one deployment."""

    def __init__(self, hospital: Hospital, region: str, loop: Life) -> None:
        self._hospital, self._region, self._loop = hospital, region, loop

    async def nodes(self, *, deadline: float) -> tuple[Node, ...]:
        """One, when its machine lives."""
        await self._asked(lambda: True, deadline)
        return (Node("node", True),)

    async def deployments(self, *, deadline: float) -> tuple[Deployment, ...]:
        """The service's pods."""
        services = self._hospital.services
        ready = await self._asked(lambda: int(services.work(self._region)), deadline)
        return (Deployment(SERVICE, 1, ready, 1, {}, "1", bool(ready)),)

    async def pods(self, *, deadline: float) -> tuple[Pod, ...]:
        """None by itself: a deployment that chooses no pods is judged by how many of it are ready."""
        await self._asked(lambda: True, deadline)
        return ()

    async def _asked(self, answer: Callable[[], Any], deadline: float) -> Any:
        machine = self._hospital.machines[self._region]
        said = await asked(
            self._loop, self._region, lambda: answer() if machine.up else SILENCE, within=deadline
        )
        if said is SILENCE:
            raise TemporaryError(
                f"asking Kubernetes of {self._region}", f"no answer within {deadline:g} s", "Ask again"
            )
        return said


class Zone(Route53):
    """The real driver's reading, planning and batching of changes; the API is simulated."""

    def __init__(self, dns: Dns, traffic: Traffic, loop: Life) -> None:
        self._dns, self._loop, self._traffic = dns, loop, traffic
        self._known = None
        self._zone = "zone"

    async def _records(self, deadline: float) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = await self._asked(
            "reading the records", lambda: list(self._dns.records), deadline, TemporaryError
        )
        self._known = (self._loop.time(), records)
        return records

    async def _call(
        self, doing: str, call: Callable[[Any], _T], deadline: float, *, writes: bool = False
    ) -> _T:
        api = _Api()
        given = call(api)
        if not api.batch:
            return given
        done = await self._asked(
            doing,
            lambda: self._dns.change(api.batch),
            deadline,
            OutcomeUnknownError if writes else TemporaryError,
        )
        if not done:
            raise TemporaryError(doing, "the records are not as they were read", "Look, then plan anew")
        return given

    async def _asked(
        self,
        doing: str,
        answer: Callable[[], Any],
        deadline: float,
        unclear: type[TemporaryError | OutcomeUnknownError],
    ) -> Any:
        deadline = min(deadline, READ_SECONDS)
        said = await asked(self._loop, CLOUD, answer, within=deadline)
        if said is SILENCE:
            raise unclear(doing, f"no answer within {deadline:g} s", "Look at the records")
        return said


class _Api:
    """What the driver asks of boto3."""

    def __init__(self) -> None:
        self.batch: list[dict[str, Any]] = []

    def change_resource_record_sets(self, *, HostedZoneId: str, ChangeBatch: dict[str, Any]) -> Any:  # noqa: N803 - AWS's
        """Taken down; sent by `Zone`."""
        self.batch = ChangeBatch["Changes"]
        return {"ChangeInfo": {"Id": "/change/1"}}

    def get_change(self, *, Id: str) -> Any:  # noqa: N803
        """What was carried out is in sync."""
        return {"ChangeInfo": {"Id": Id, "Status": "INSYNC"}}


_FILE = StoredFile("hms/base/20260101T000000/data.tar.gz", 1 << 30, "0" * 64)
_BACKUP = BackupRecord(
    id="20260101T000000",
    server="hms",
    region="east",
    system_identifier=SYSTEM,
    major=18,
    timeline=1,
    segment=1 << 24,
    begin_wal="000000010000000000000001",
    begin_lsn=0,
    end_lsn=1,
    began=THEN,
    ended=THEN,
    unpacked=1 << 30,
    files=(_FILE,),
)
_RECORD = record_text(_BACKUP).encode()


class Bucket(ObjectStore):
    """There is a backup, of the beginning of time, and it is whole."""

    def __init__(self) -> None:
        pass

    async def names(self, bucket: str, prefix: str, *, deadline: float) -> list[StoredObject]:
        """Its record."""
        return [StoredObject(prefix + _BACKUP.name, len(_RECORD), THEN)]

    async def read(self, bucket: str, key: str, *, limit: int, deadline: float) -> bytes:
        """What its record says."""
        return _RECORD

    async def listing(self, bucket: str, prefix: str, *, deadline: float) -> list[StoredObject]:
        """What was stored of it."""
        above = prefix.removesuffix(f"{_BACKUP.server}/base/{_BACKUP.id}/")
        return [StoredObject(above + _FILE.key, _FILE.size, THEN)]
