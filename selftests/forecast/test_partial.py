"""Facts that are missing, partial or older: a forecast says what it cannot tell, and never keeps silent."""

import json
import shutil

import pytest

from labproof.catalogue.schematic import id_of_text
from labproof.facts.bundle import Facts
from labproof.facts.store import FactsStore
from labproof.forecast import output
from labproof.forecast.judge import forecast
from labproof.forecast.target import BadTarget, parse_targets

from .conftest import BELOW_PODS, saved


@pytest.fixture
def without(judged, tmp_path):
    """The healthy lab, and its facts without these sections (globs of their file names)."""
    outcome, lab = judged(layers=BELOW_PODS)

    def run(*globs, change=None):
        folder = tmp_path / "partial"
        shutil.copytree(saved(outcome)._store.folder, folder)
        for glob in globs:
            for path in folder.glob(glob):
                path.unlink()
        for path in folder.glob("*.json") if change else ():
            path.write_text(json.dumps(change(path.name, json.loads(path.read_text("utf-8")))), "utf-8")
        return Facts(FactsStore(folder, frozen=True), outcome.facts.now), lab

    return run


def told(facts, lab, *words):
    return forecast(facts, lab, parse_targets(words))


@pytest.mark.parametrize(
    ("glob", "word", "what"),
    [
        ("talos-*", "talos=1.13.9", "Talos API of moody-good"),
        ("cluster-*", "kubernetes=1.35", "Kubernetes version of moody"),
        ("cluster-*", "plugin=0.20.0", "Kubernetes API of moody"),
        ("host-*", "kernel=6.8.12-30-pve", "kernel of pve5"),
        ("pve-*", "pve=9.1", "version of Proxmox VE on pve5"),
    ],
)
def test_a_layer_that_was_not_read_is_told(without, glob, word, what):
    facts, lab = without(glob)
    found = told(facts, lab, word)
    assert any(m.what == what and "not recorded" in m.why for m in found.unknown), found.unknown
    assert output.exit_status(found) == output.CANNOT_TELL
    assert "Cannot tell:" in output.text(found)
    assert "not everything could be told" in output.text(found)


def test_a_reading_that_a_check_needs_is_told(without):
    def unread(name, body):
        if name.startswith("talos-"):
            reading = {
                "state": "failed",
                "why": "connection refused",
                "source": "talosctl get services",
                "kind": "timeout",
            }
            body["reading"]["value"]["services"] = {**body["reading"]["value"]["services"], "value": None, **reading}
        return body

    found = told(*without(change=unread), "talos=1.12.6")
    assert [m for m in found.unknown if "connection refused" in m.why]
    assert output.exit_status(found) == output.CANNOT_TELL


def test_facts_of_an_older_labproof_lack_how_the_node_boots(without):
    """A bundle from before `booted_with_uki` was read: with kernel arguments at stake that is no silent pass."""

    def older(name, body):
        if name.startswith("talos-"):
            value = body["reading"]["value"]
            value.pop("booted_with_uki")
            schematic = value["schematic"]["value"]
            head, _, rest = schematic["text"].partition("\n")
            schematic["text"] = f"{head}\n    extraKernelArgs:\n        - quiet_please=1\n{rest}"
            schematic["id"] = id_of_text(schematic["text"])
            value["cmdline"]["value"] += " quiet_please=1"
        return body

    found = told(*without(change=older), "talos=1.13.9")
    assert [m for m in found.unknown if m.what.startswith("TALOS-CMDLINE-001")]


def test_a_broken_section_is_told(without):
    found = told(
        *without(change=lambda name, body: {**body, "schema": 99} if name.startswith("talos-") else body),
        "talos=1.13.9",
    )
    assert any("schema 99" in m.why for m in found.unknown)


def test_one_reason_is_one_line(without):
    facts, lab = without("cluster-*")
    found = told(facts, lab, "talos=1.13.9")
    reasons = [m.why for m in found.unknown]
    assert len(reasons) == len(set(reasons))
    assert any("more" in m.what for m in found.unknown)


# ------------------------------------------------------------------ what is refused once the lab is known


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("talos=1.10.4", "talos v1.10.4 would be a downgrade: moody-good runs v1.11.6"),
        ("kubernetes=1.33", "would be a downgrade: moody runs v1.34.3"),
        ("kernel=6.8.12-8-pve", "would be a downgrade: pve5 runs 6.8.12-9-pve"),
        ("pve=8.2", "would be a downgrade: pve5 runs 8.4.1"),
        ("plugin=0.17.4", "would be a downgrade: moody runs 0.18.2"),
        ("operator=26.7.0", "no cluster of this lab uses the gpu-operator"),
    ],
)
def test_a_downgrade_and_what_the_lab_lacks_are_refused(without, word, says):
    facts, lab = without()
    with pytest.raises(BadTarget, match=r"^[^\n]+$") as refused:
        told(facts, lab, word)
    assert says in str(refused.value)


def test_what_runs_already_breaks_nothing_and_is_said(without):
    facts, lab = without()
    found = told(facts, lab, "talos=1.11.6", "kubernetes=1.34.3", "plugin=0.18.2")
    assert (found.breaks, found.unknown) == ((), ())
    assert output.text(found).count("runs already") == 4  # the kubelet follows the API server


def test_several_minors_at_once_are_pointed_out(without):
    facts, lab = without()
    found = told(facts, lab, "talos=1.13.9")
    assert any("1.12, 1.13" in note for note in found.notes)


def test_a_kubelet_that_does_not_follow_is_named(without):
    def held(name, body):
        if name.startswith("cluster-"):
            for node in body["reading"]["value"]["nodes"]["value"]:
                node["kubelet"] = "v1.31.5"
        return body

    found = told(*without(change=held), "kubernetes=1.35")
    step = next(s for s in found.plan.steps if s.component == "kubelet")
    assert "something holds it" in step.stays
    assert ("K8S-SKEW-001", ("K130",)) in {(b.clause, b.causes) for b in found.breaks}
