"""What a service counts for Prometheus, in a registry of its own, made after the fork. Serves nothing itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from hmsdr.lab.hms import VERSION

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counters of one pod."""

    def __init__(self, service: str, region: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._database = Counter(
            "hms_database_errors_total",
            "Requests that the database failed",
            ("kind",),
            registry=self._registry,
        )
        self._writable = Gauge(
            "hms_can_write", "Whether the last health check could write", registry=self._registry
        )
        self._degraded = Gauge(
            "hms_cache_degraded", "Whether the last health check missed Redis", registry=self._registry
        )
        build = Gauge("hms_build_info", "Always 1", ("service", "region", "version"), registry=self._registry)
        build.labels(service, region, VERSION).set(1)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def database_error(self, kind: str) -> None:
        """The database failed a request."""
        self._database.labels(kind).inc()

    def health(self, *, can_write: bool, degraded: bool) -> None:
        """A health check found this."""
        self._writable.set(can_write)
        self._degraded.set(degraded)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
