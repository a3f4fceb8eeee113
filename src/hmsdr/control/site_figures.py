"""A controller's figures for Prometheus that need more than a line: the watched endpoints, the alerts. Made anew for each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hmsdr.control.endpoints import EndpointsWatch, up
from hmsdr.control.prober import Verdict
from hmsdr.control.proctable import boottime
from hmsdr.control.site_alarms import SiteAlarms


def of_endpoints(watch: EndpointsWatch) -> Iterator[Metric]:
    """Of each endpoint whether it is up and how long it took; of all, how they were seen and whether the looks keep up."""
    labels = ["endpoint", "region"]
    well = GaugeMetricFamily(
        "hmsdr_endpoint_up", "1 while a watched endpoint answers as it should", labels=labels
    )
    seconds = GaugeMetricFamily("hmsdr_endpoint_seconds", "How long the last look took", labels=labels)
    for name, known, last in watch.rows():
        if (believed := up(known)) is not None:
            well.add_metric([name, watch.region(name)], float(believed))
        seconds.add_metric([name, watch.region(name)], last.seconds)
    yield well
    yield seconds
    verdicts = GaugeMetricFamily(
        "hmsdr_endpoints", "Watched endpoints by how they were seen last", labels=["verdict"]
    )
    counted = watch.verdicts()
    for verdict in Verdict:
        verdicts.add_metric([verdict], counted[verdict])
    yield verdicts
    unseen = len(watch.unseen(boottime()))
    yield GaugeMetricFamily(
        "hmsdr_endpoints_unseen", "Watched endpoints not seen for two intervals", value=unseen
    )
    yield CounterMetricFamily("hmsdr_endpoint_looks", "Looks at watched endpoints", value=watch.asked)
    yield CounterMetricFamily(
        "hmsdr_endpoint_looks_skipped", "Looks that were not taken in their turn", value=watch.skipped
    )


def of_alerts(alarms: SiteAlarms) -> Iterator[Metric]:
    """Which alerts are open by the record, and how many messages nobody took yet."""
    opened = GaugeMetricFamily("hmsdr_alert", "1 while an alert is open", labels=["alert"])
    untold = 0
    for each in (alarms.shared, alarms.own):
        if each is not None:
            untold += len(each.ledger.untold())
            for key in each.ledger.open():
                opened.add_metric([key], 1.0)
    yield opened
    yield GaugeMetricFamily("hmsdr_alerts_untold", "Messages about alerts that wait to be told", value=untold)
