"""Frigate decodes and detects on the card."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("APP-FRIGATE-001")
def test_cameras_are_decoded_on_the_card(judgement):
    """Every enabled camera MUST be decoded with the declared acceleration.

    Preconditions: expect.hwaccel is declared; Frigate answers
    Expected: hwaccel_args of each camera, its own before the common ones
    """
    assert_holds(judgement)


@clause("APP-FRIGATE-002")
def test_detection_is_on_the_card(judgement):
    """A detector of the declared type MUST infer.

    Preconditions: expect.detector is declared; Frigate answers
    Expected: its type as declared, an inference time above 0
    """
    assert_holds(judgement)


@clause("APP-FRIGATE-003")
def test_card_figures_are_read(judgement):
    """Frigate MUST show the card's figures.

    Preconditions: Frigate answers
    Expected: gpu and mem of each GPU are not empty (a failed reading is latched for an hour)
    """
    assert_holds(judgement)


@clause("APP-FRIGATE-004")
def test_shared_memory_is_enough(judgement):
    """Frigate MUST have the shared memory it asks for.

    Preconditions: Frigate answers and tells min_shm
    Expected: /dev/shm is at least that
    """
    assert_holds(judgement)
