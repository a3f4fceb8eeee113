"""What a controller tells over HTTP: that it lives, whether it is ready, and figures for Prometheus. Tells; takes no orders."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hmsdr.control.controller import Controller
from hmsdr.control.facets import Answer
from hmsdr.control.metrics import lines_dropped
from hmsdr.control.proctable import boottime
from hmsdr.control.site_figures import of_alerts, of_endpoints
from hmsdr.decide.outage import Sight, Watch

_READY, _NOT_READY = 200, 503


def site_application(controller: Controller) -> web.Application:
    """The application that serves `controller`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "site": controller.site})

    async def readyz(_: web.Request) -> web.Response:
        status = _READY if controller.ready else _NOT_READY
        return web.json_response({"ready": controller.ready, **_shown(controller)}, status=status)

    async def view(_: web.Request) -> web.Response:
        return web.json_response(_viewed(controller))

    async def metrics(_: web.Request) -> web.Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(controller))
        return web.Response(
            body=generate_latest(registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    for path, handler in (
        ("/healthz", healthz),
        ("/readyz", readyz),
        ("/metrics", metrics),
        ("/v1/view", view),
    ):
        app.router.add_get(path, handler)
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
        "waits": controller.waits,
        "sights": {region: controller.observer.sight(region) for region in controller.playbook.regions},
    }


def _viewed(controller: Controller) -> dict[str, object]:
    """Everything that this site sees: what triggers, and what only tells."""
    observer = controller.observer
    return {
        **_shown(controller),
        "active": controller.view.active,
        "regions": {region: _watched(each.watch) for region, each in observer.watches.items()},
        "services": {service: _watched(watch) for service, watch in observer.services.watches.items()},
        "systems": controller.view.as_json(),
        "endpoints": controller.endpoints.as_json(),
        "alerts": controller.alarms.as_json(),
    }


def _watched(watch: Watch) -> dict[str, object]:
    """``clock_set_back`` is how often a clock that ran was, by a gap or by blindness."""
    last = watch.last
    return {
        "sight": None if last is None else last.sight,
        "lost_for": _age(watch.since),
        "clock_set_back": watch.restarted,
        "evidence": {} if last is None else dict(last.evidence),
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
        held_up = CounterMetricFamily(
            "hmsdr_looks_held_up",
            "Looks in vain that did not count, because this controller could not run meanwhile",
            labels=["watch"],
        )
        for region, region_watch in controller.observer.watches.items():
            held_up.add_metric([region], float(region_watch.held_up))
        held_up.add_metric(["services"], float(controller.observer.services.held_up))
        yield held_up
        yield from _of_view(controller)
        yield from of_endpoints(controller.endpoints)
        yield from of_alerts(controller.alarms)
        yield lines_dropped()
        words = GaugeMetricFamily("hmsdr_site_word_age_seconds", "Age of a site's last word", labels=["site"])
        for site, age in standing.words.items():
            words.add_metric([site], age)
        yield words


def _of_view(controller: Controller) -> Iterator[Metric]:
    services = GaugeMetricFamily(
        "hmsdr_service_sight",
        "1 for what this site sees of a service of the active region",
        labels=["service", "sight"],
    )
    for service, watch in controller.observer.services.watches.items():
        for sight in Sight:
            services.add_metric([service, sight], float(watch.last is not None and watch.last.sight is sight))
    yield services
    systems = GaugeMetricFamily(
        "hmsdr_system_answer", "1 for how a system answers this site", labels=["region", "system", "answer"]
    )
    for (region, system), known in sorted(controller.view.known.items()):
        for answer in Answer:
            systems.add_metric([region, system, answer], float(known.seen.answer is answer))
    yield systems
    held = GaugeMetricFamily(
        "hmsdr_failover_held",
        "1 while something speaks for a failover and something holds it",
        labels=["cause", "why"],
    )
    if (stay := controller.held_back) is not None and stay.cause is not None:
        held.add_metric([stay.cause, stay.why.name.lower()], 1.0)
    yield held
