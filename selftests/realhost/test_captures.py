"""What was recorded in the real guest, and its simulated twin: the same facts, the same verdicts, the same causes.

Needs no QEMU: the recordings are committed. `tox -e realhost-full -- --realhost-record` makes them.
"""

import re

import pytest

from labproof.simlab.faults import load_faults

from . import recording, twin
from .judging import judge
from .likeness import differences
from .modes import MODES

RECORDED = recording.recorded()
STATES = ("fresh", "provisioned")
WITH_RECORDING = [mode for mode in MODES if mode.id in RECORDED]


@pytest.mark.parametrize("state", STATES)
def test_the_simulated_host_has_the_facts_of_the_real_one(state):
    assert differences(recording.facts(state), twin.facts(state)) == {}


def test_both_states_and_twelve_mistakes_are_recorded():
    assert set(RECORDED) >= set(STATES)
    assert set(RECORDED) <= {*STATES, *(mode.id for mode in MODES)}
    assert len(WITH_RECORDING) >= 12


@pytest.mark.parametrize("mode", WITH_RECORDING, ids=lambda mode: mode.id)
def test_the_simulated_mistake_has_the_facts_of_the_real_one(mode):
    found = differences(recording.facts(mode.id), twin.facts(mode.state, mode.twin))
    assert {name: pair for name, pair in found.items() if name not in mode.unlike} == {}
    assert set(mode.unlike) <= set(found), "an exception that is none any more"


@pytest.mark.parametrize("mode", WITH_RECORDING, ids=lambda mode: mode.id)
def test_both_lead_to_the_same_verdicts_and_causes(mode, tmp_path):
    real = judge(recording.facts(mode.id), tmp_path / "real", mode.card, mode.wanted)
    simulated = judge(twin.facts(mode.state, mode.twin), tmp_path / "twin", mode.card, mode.wanted)
    assert mode.cause in real[mode.clause][1:], real
    assert real == simulated


@pytest.mark.parametrize("mode", [m for m in MODES if m.fault], ids=lambda mode: mode.id)
def test_the_t4_labs_fault_of_the_same_mistake_names_the_same_cause(mode):
    fault = load_faults()[mode.fault]
    assert fault.cause == mode.cause
    assert mode.clause in (fault.clause, *fault.also)


def test_a_provisioned_guest_passes_every_clause(tmp_path):
    told = judge(recording.facts("provisioned"), tmp_path / "lab")
    assert set(told.values()) == {("pass",)}, told


def test_the_comparison_sees_a_difference():
    real = recording.facts("provisioned")
    assert {"cmdline", "iommus", "iommu_groups"} <= differences(real, twin.facts("fresh")).keys()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.id)
def test_the_simulated_mistake_leads_to_its_cause(mode, tmp_path):
    told = judge(twin.facts(mode.state, mode.twin), tmp_path / "twin", mode.card, mode.wanted)
    assert mode.cause in told[mode.clause][1:], told


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_is_scrubbed_and_small(name):
    path = recording.FOLDER / f"{name}.txt"
    text = path.read_text("utf-8")
    assert len(text) < 40_000
    assert recording.scrub(text) == text
    addresses = set(re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text))
    assert not addresses, addresses
    assert "ssh-" not in text
    assert "BEGIN" not in text
