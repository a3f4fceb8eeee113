"""An agent's state for Prometheus: what `GET /v1/status` says, as gauges. Made anew for each scrape; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hmsdr.control.logs import dropped

STATES = ("absent", "stopped", "standby", "primary", "fenced")


def exposition(status: Mapping[str, Any]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(status))
    return generate_latest(registry)


class _Once(Collector):
    """One status."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All gauges; one whose value is not known, or means nothing here, is left out, never shown as 0."""
        status = self._status
        database, replication, lease = status["database"], status["replication"], status["lease"]
        state = GaugeMetricFamily(
            "hmsdr_database_state", "1 for the state the database is in", labels=["state"]
        )
        for name in STATES:
            state.add_metric([name], float(database["state"] == name))
        yield state
        follows = database["state"] == "standby"
        for name, help_text, value in (
            ("hmsdr_accepted_epoch", "Newest epoch this agent has accepted", status["accepted_epoch"]),
            (
                "hmsdr_database_lsn_bytes",
                "Write (primary) or replay (standby) position in the WAL",
                database["lsn"],
            ),
            (
                "hmsdr_replication_streaming",
                "Whether the standby streams",
                replication["streaming"] if follows else None,
            ),
            (
                "hmsdr_replication_lag_seconds",
                "How far the standby is behind, in time",
                replication["lag_seconds"] if follows else None,
            ),
            (
                "hmsdr_replication_lag_bytes",
                "How far the standby is behind, in WAL",
                replication["lag_bytes"] if follows else None,
            ),
            (
                "hmsdr_lost_slot_kept",
                "Whether the rows that a failover would lose could be extracted afterwards",
                status["lost_slot"]["name"] is not None if database["state"] == "primary" else None,
            ),
            ("hmsdr_lease_held", "Whether this side holds the right to write", lease["held"]),
            ("hmsdr_lease_seconds_left", "Until the guard would kill the database", lease["seconds_left"]),
        ):
            if isinstance(value, int | float):
                yield GaugeMetricFamily(name, help_text, value=float(value))
        yield lines_dropped()


def lines_dropped() -> Metric:
    """Of this process's own log."""
    words = "Log lines not written since nobody read them"
    return CounterMetricFamily("hmsdr_log_lines_dropped", words, value=dropped())
