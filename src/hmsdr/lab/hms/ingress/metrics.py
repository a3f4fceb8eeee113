"""What an ingress counts for Prometheus: requests as users see them. Serves nothing itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counters of one ingress."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "ingress_requests_total",
            "Requests answered",
            ("service", "method", "status", "kind"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ingress_request_duration_seconds",
            "Time to answer",
            ("service",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._retries = Counter(
            "ingress_retries_total",
            "Requests sent to a second pod",
            ("service",),
            registry=self._registry,
        )

    def request(
        self, service: str, method: str, status: int, seconds: float, *, health: bool = False
    ) -> None:
        """One request was answered; one that only asks how the service is says nothing of where users go."""
        kind = "health" if health else "user"
        self._requests.labels(service, method, str(status), kind).inc()
        self._seconds.labels(service).observe(seconds)

    def retry(self, service: str) -> None:
        """A request went to a second pod."""
        self._retries.labels(service).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
