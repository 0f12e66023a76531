"""dcgm-exporter runs beside the card and tells of it."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("METRIC-EXPORTER-001")
def test_exporter_runs(judgement):
    """dcgm-exporter MUST run on every GPU node where lab.yaml declares metrics.

    Preconditions: metrics is declared for the cluster
    Expected: one running pod on the node, wherever the chart or the operator put it
    """
    assert_holds(judgement)


@clause("METRIC-ANSWER-001")
def test_exporter_answers(judgement):
    """The exporter MUST answer through the API server.

    Preconditions: the exporter runs; the shipped role is bound in its namespace
    Expected: /metrics by the pod's proxy path
    """
    assert_holds(judgement)


@clause("METRIC-CARD-001")
def test_series_name_the_card(judgement):
    """The exporter's series MUST name the declared card by UUID and model, and this node.

    Preconditions: the exporter answers
    Expected: as many cards of the declared model as the node was given; Hostname is the node's
    """
    assert_holds(judgement)


@clause("METRIC-SERIES-001")
def test_needed_metrics_are_there(judgement):
    """The exporter MUST tell what a card of this kind can tell.

    Preconditions: the exporter answers
    Expected: temperature, power, utilisation, memory and Xid; encoder and decoder use where the chip has them
    """
    assert_holds(judgement)


@clause("METRIC-POD-001")
def test_every_pod_is_named(judgement):
    """Every pod that holds a slot of a shared card MUST be found in the series, where lab.yaml wants that.

    Preconditions: metrics.pods is declared; the card is shared
    Expected: each holder is the `pod` label of some series
    """
    assert_holds(judgement)


@clause("METRIC-ENCODER-001")
def test_encoder_use_is_seen(judgement):
    """Encoder utilisation of this card MUST rise in the metrics while our transcode runs.

    Preconditions: the exporter answers; a transcode runs on the encoder
    Expected: DCGM_FI_DEV_ENC_UTIL of this UUID above the look before, within three collections
    """
    assert_holds(judgement)
