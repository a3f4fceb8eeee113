"""The outside systems of one hospital, as drivers made from the playbook, each built when first asked for.

The only place where actions get their drivers from. It holds connections, and no policy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar, cast

from hmsdr.log.store import AuthorityStore
from hmsdr.playbook.model import Playbook

if TYPE_CHECKING:
    from hmsdr.drivers.agent import AgentClient
    from hmsdr.drivers.http import HttpProbe
    from hmsdr.drivers.kubernetes import Kubernetes
    from hmsdr.drivers.postgres import Postgres
    from hmsdr.drivers.prometheus import Prometheus
    from hmsdr.drivers.redis import Redis
    from hmsdr.drivers.route53 import Route53
    from hmsdr.drivers.s3 import ObjectStore
    from hmsdr.drivers.webhook import Webhook

_T = TypeVar("_T")
_CLOSE_SECONDS = 2.0


class Systems:
    """Drivers by region; closed together."""

    def __init__(self, playbook: Playbook, authority: AuthorityStore) -> None:
        self.playbook = playbook
        self.authority = authority
        self._made: dict[tuple[str, str], object] = {}
        self._closers: list[Callable[[], Awaitable[None]]] = []

    async def close(self) -> None:
        """Close every connection, within a bound; a driver that does not close in time is left behind."""
        closers, self._closers = self._closers, []
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*(closer() for closer in closers), return_exceptions=True), _CLOSE_SECONDS
            )

    def run_name(self) -> str:
        """A name for a new run, used once."""
        from hmsdr.runbook.launch import new_run_name  # noqa: PLC0415 - which builds on this

        return new_run_name()

    def agent(self, region: str) -> AgentClient:
        """The agent beside the region's database."""
        from hmsdr.drivers.agent import AgentClient  # noqa: PLC0415 - each driver is imported when it is used

        return self._once(
            "agent", region, lambda: AgentClient(self.playbook.regions[region].agent), lambda d: d.close()
        )

    def postgres(self, region: str) -> Postgres:
        """The region's PostgreSQL."""
        from hmsdr.drivers.postgres import Postgres  # noqa: PLC0415

        return self._once(
            "postgres",
            region,
            lambda: Postgres(self.playbook.regions[region].postgres, warm=True),
            lambda d: d.close(),
        )

    def redis(self, region: str) -> Redis:
        """The region's Redis."""
        from hmsdr.drivers.redis import Redis  # noqa: PLC0415

        return self._once(
            "redis", region, lambda: Redis(self.playbook.regions[region].redis), lambda d: d.close()
        )

    def kubernetes(self, region: str) -> Kubernetes:
        """The region's Kubernetes API."""
        from hmsdr.drivers.kubernetes import Kubernetes  # noqa: PLC0415

        settings = self.playbook.regions[region].kubernetes
        return self._once(
            "kubernetes",
            region,
            lambda: Kubernetes(settings.context, settings.kubeconfig, settings.namespace),
            lambda d: d.aclose(),
        )

    def dns(self) -> Route53:
        """Route 53."""
        from hmsdr.drivers.route53 import Route53  # noqa: PLC0415

        return self._once(
            "route53", "", lambda: Route53(self.playbook.aws, self.playbook.traffic), lambda d: d.close()
        )

    def objects(self) -> ObjectStore:
        """The object store with the backups."""
        from hmsdr.drivers.s3 import ObjectStore  # noqa: PLC0415

        return self._once("s3", "", lambda: ObjectStore(self.playbook.aws), lambda d: d.close())

    def prometheus(self) -> Prometheus:
        """The monitoring."""
        from hmsdr.drivers.prometheus import Prometheus  # noqa: PLC0415

        url, authority = self.playbook.prometheus.url, self.playbook.traffic.ca_file
        return self._once("prometheus", "", lambda: Prometheus(url, authority), lambda d: d.close())

    def webhook(self, channel: str) -> Webhook | None:
        """Where messages for `channel` (``slack:#name``) are posted; None when nothing is configured for its kind."""
        from hmsdr.drivers.webhook import Webhook  # noqa: PLC0415

        url = self.playbook.channels.endpoints.get(channel.partition(":")[0])
        return None if url is None else Webhook(url.get_secret_value(), self.playbook.traffic.ca_file)

    def http(self) -> HttpProbe:
        """HTTP as users reach the hospital: through the public DNS."""
        from hmsdr.drivers.http import HttpProbe  # noqa: PLC0415

        traffic = self.playbook.traffic
        return self._once(
            "http", "", lambda: HttpProbe(traffic.resolvers, traffic.ca_file), lambda d: d.close()
        )

    def _once(
        self, kind: str, region: str, make: Callable[[], _T], close: Callable[[_T], Awaitable[None]]
    ) -> _T:
        key = (kind, region)
        if key not in self._made:
            driver = make()
            self._made[key] = driver
            self._closers.append(lambda: close(driver))
        return cast("_T", self._made[key])
