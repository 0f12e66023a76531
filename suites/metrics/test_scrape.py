"""What scrapes the exporter, and what is alerted on."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("METRIC-SCRAPE-001")
def test_exporter_is_scraped(judgement):
    """A scrape object MUST select the exporter, where lab.yaml declares a scrape.

    Preconditions: metrics.scrape is declared; the exporter runs
    Expected: selector, namespace and port of a ServiceMonitor, PodMonitor, VMServiceScrape or VMPodScrape match
    """
    assert_holds(judgement)


@clause("METRIC-ALERT-001")
def test_gpu_alerts_can_fire(judgement):
    """Every GPU alert MUST be able to fire and to be quiet.

    Preconditions: metrics.alerts is declared; the exporter answers
    Expected: its selectors match real series, its numbers are in the metric's unit (memory: MiB)
    """
    assert_holds(judgement)
