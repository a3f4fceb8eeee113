"""What the simulated hospital's processes are told: the shipped playbook, with two regions, one service and figures of seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from pydantic import SecretStr

from hmsdr.control.config import AgentConfig
from hmsdr.control.state import Upstream
from hmsdr.control.watch import GAP_INTERVALS
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.thresholds import Automation, Gates, Probing, Triggers, Verification
from hmsdr.playbook.topology import AgentEndpoint, ControllerEndpoint, Region, Replicas, Store
from hmsdr.runbook.place import PATIENCE_SHARE
from hmsdr.sim.edges import NOWHERE
from hmsdr.sim.world import EAST, SITES, WEST, WITNESS

SERVICE = "care"
HEALTH = "/care/health"
PUBLIC = "http://hospital"
_KEY = SecretStr("simulated")
_EVER = timedelta(days=36500)
"""Ages by the wall clock, which does not go on here, refuse nothing."""
_IN_ONE_BREATH = 60.0
SERVICES_HOLD_DOWN = 8.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The playbook's figures, durations in seconds."""

    interval: float = 2.0
    timeout: float = 0.6
    hold_down: float = 5.0
    lease: float = 4.0
    drift_margin: float = 0.2
    """Far more than real clocks need: so that a margin left out shows within seconds of lease."""
    cool_down: float = 15.0
    services_hold_down: float = SERVICES_HOLD_DOWN
    services_recovery: float = 2.0

    @property
    def fresh(self) -> float:
        """How long a word counts."""
        return GAP_INTERVALS * (self.interval + self.timeout)

    @property
    def patience(self) -> float:
        """Without a sign of the leader, until another one takes the lead."""
        return self.lease * PATIENCE_SHARE


@lru_cache(maxsize=4)
def playbook(figures: Figures) -> Playbook:
    """The hospital's playbook."""
    shipped = load("hms", environ=_Any(), secrets=False)
    east, west = shipped.regions.values()
    service = next(iter(shipped.services.values()))
    care = service.model_copy(
        update={
            "deployment": SERVICE,
            "health_path": HEALTH,
            "critical": True,
            "replicas": Replicas(active=1, standby=1),
        }
    )
    return shipped.model_copy(
        update={
            "regions": {EAST: _region(east, EAST), WEST: _region(west, WEST)},
            "home_region": EAST,
            "witness": shipped.witness.model_copy(
                update={"name": WITNESS, "controller": ControllerEndpoint(url=controller_url(WITNESS))}
            ),
            "services": {SERVICE: care},
            "traffic": shipped.traffic.model_copy(update={"public_url": PUBLIC}),
            "store": Store(kind="etcd", path=str(NOWHERE)),
            "database": shipped.database.model_copy(
                update={"lease": timedelta(seconds=figures.lease), "drift_margin": figures.drift_margin}
            ),
            "thresholds": shipped.thresholds.model_copy(
                update={
                    "probing": Probing(
                        interval=timedelta(seconds=figures.interval),
                        timeout=timedelta(seconds=figures.timeout),
                    ),
                    "triggers": Triggers(
                        region_unreachable=timedelta(seconds=figures.hold_down),
                        critical_services_unavailable=timedelta(seconds=figures.services_hold_down),
                        critical_services_recovery=timedelta(seconds=figures.services_recovery),
                    ),
                    "verification": Verification(deadline=timedelta(seconds=_IN_ONE_BREATH)),
                    "automation": Automation(
                        cool_down=timedelta(seconds=figures.cool_down), database_corruption="automatic"
                    ),
                    "gates": Gates(
                        replication_lag=timedelta(seconds=5),
                        replication_lag_bytes=1 << 30,
                        last_known_lag_age=_EVER,
                        backup_age=_EVER,
                    ),
                }
            ),
        }
    )


class _Any(dict[str, str]):
    """An environment in which every name is set."""

    def __missing__(self, key: str) -> str:
        return "simulated"


def _region(shipped: Region, name: str) -> Region:
    return shipped.model_copy(
        update={
            "postgres": shipped.postgres.model_copy(
                update={"instance": f"db-{name}", "host": name, "slot": f"to_{name}"}
            ),
            "agent": AgentEndpoint(url=f"http://agent.{name}", key=_KEY),
            "ingress": shipped.ingress.model_copy(update={"url": ingress_url(name)}),
            "controller": ControllerEndpoint(url=controller_url(name)),
        }
    )


def ingress_url(region: str) -> str:
    """The region's own way in."""
    return f"http://ingress.{region}"


def controller_url(site: str) -> str:
    """Where the controller of `site` answers."""
    return f"http://controller.{site}"


URLS = {controller_url(site): site for site in SITES} | {ingress_url(name): name for name in (EAST, WEST)}
"""Site of each address, but the public one."""


def agent_config(region: str, figures: Figures) -> AgentConfig:
    """What the agent of `region` is told."""
    book = playbook(figures)
    own, other = book.regions[region], book.regions[book.other_region(region)]
    return AgentConfig(
        region=region,
        instance=own.postgres,
        upstream=Upstream(other.postgres.host, other.postgres.port, own.postgres.slot),
        other_slot=other.postgres.slot,
        peer=other.agent,
        key=_KEY.get_secret_value(),
        lease=figures.lease,
        drift_margin=figures.drift_margin,
        data_directory=NOWHERE,
        state_directory=NOWHERE / ("x" * 107),
    )
