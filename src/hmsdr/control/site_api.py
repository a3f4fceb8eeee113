"""What a controller tells over HTTP: that it lives, whether it is ready, and figures for Prometheus. Tells; takes no orders."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hmsdr.control.controller import Controller
from hmsdr.control.proctable import boottime
from hmsdr.decide.outage import Sight

_READY, _NOT_READY = 200, 503


def site_application(controller: Controller) -> web.Application:
    """The application that serves `controller`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "site": controller.site})

    async def readyz(_: web.Request) -> web.Response:
        status = _READY if controller.ready else _NOT_READY
        return web.json_response({"ready": controller.ready, **_shown(controller)}, status=status)

    async def metrics(_: web.Request) -> web.Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(controller))
        return web.Response(
            body=generate_latest(registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


def _shown(controller: Controller) -> dict[str, object]:
    standing = controller.standing
    return {
        "site": controller.site,
        "life": controller.life,
        "leads": standing.leads,
        "term": standing.term,
        "store_answered_seconds_ago": _age(standing.answered_at),
        "log_followed_to": standing.copied,
        "sights": {region: controller.observer.sight(region) for region in controller.playbook.regions},
    }


def _age(at: float | None) -> float | None:
    return None if at is None else round(boottime() - at, 3)


class _Once(Collector):
    """One scrape."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        """All gauges; one whose value is not known is left out."""
        controller, standing = self._controller, self._controller.standing
        for name, help_text, value in (
            ("hmsdr_controller_leads", "Whether this site's controller leads", float(standing.leads)),
            ("hmsdr_controller_term", "The term of whoever leads", float(standing.term)),
            ("hmsdr_controller_log_seq", "Last event in the local copy", float(standing.copied)),
            ("hmsdr_controller_store_age_seconds", "Since the store answered", _age(standing.answered_at)),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, help_text, value=value)
        sights = GaugeMetricFamily(
            "hmsdr_region_sight", "1 for what this site sees of a region", labels=["region", "sight"]
        )
        for region in controller.playbook.regions:
            for sight in Sight:
                sights.add_metric([region, sight], float(controller.observer.sight(region) is sight))
        yield sights
        words = GaugeMetricFamily("hmsdr_site_word_age_seconds", "Age of a site's last word", labels=["site"])
        for site, age in standing.words.items():
            words.add_metric([site], age)
        yield words
