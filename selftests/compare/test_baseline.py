"""A baseline pins what an owner trusts; drift from it is told, and changes no verdict."""

import json

import pytest

from labproof.cli import main
from labproof.report import baseline
from labproof.report.compare_runs import NoSuchRun, find
from labproof.report.compare_snapshot import Snapshot

from .saved import save


@pytest.fixture
def pinned(simlab, tmp_path):
    """A reports folder whose baseline is a healthy run."""
    baseline.pin(tmp_path, save(simlab, tmp_path, "trusted"))
    return tmp_path


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("vtd-off", "pve5: firmware tables DMAR is gone"),
        ("group-shared-with-usb", "pve5: IOMMU group t4: "),
        ("card-renumbered", "pve5: PCI address 10de:1eb8: 0000:3b:00.0 -> "),
        ("mapping-stale", "moody-good: PCI mapping t4"),
        ("schematic-in-other-order", "moody-good: schematic: "),
    ],
)
def test_drift_of_what_is_pinned_is_a_finding_of_its_own(simlab, pinned, fault, text):
    run = save(simlab, pinned, fault, [fault], after_s=60)
    assert any(d["text"].startswith(text) for d in run.result["drift"]), run.result["drift"]
    assert {d["run_id"] for d in run.result["drift"]} == {"trusted"}


def test_a_healthy_run_has_not_drifted(simlab, pinned):
    assert save(simlab, pinned, "again", after_s=60).result["drift"] == []


def test_what_was_not_read_has_not_drifted(simlab, pinned):
    run = save(simlab, pinned, "host-only", layers=("host",), after_s=60)
    assert run.result["drift"] == []


def test_the_baseline_of_another_lab_or_of_a_real_one_is_left_alone(simlab, pinned, healthy):
    snapshot = Snapshot(healthy("two-cards").facts, healthy("two-cards").lab)
    assert baseline.drift(pinned, snapshot, simulated=True)
    assert baseline.drift(pinned, snapshot, simulated=False) == []


def test_a_torn_baseline_ends_no_run_and_is_told_by_show(simlab, pinned, capsys):
    (pinned / "baseline" / "baseline.json").write_text("{", "utf-8")
    assert save(simlab, pinned, "again", after_s=60).result["drift"] == []
    assert main(["baseline", "show", "--reports", str(pinned)]) == 2
    assert "no baseline is set" in capsys.readouterr().err


def test_a_run_without_facts_is_no_baseline(tmp_path, simlab):
    run = save(simlab, tmp_path, "gone")
    (tmp_path / "runs" / "gone" / "facts" / "run.facts.json").unlink()
    with pytest.raises(NoSuchRun, match="no saved facts"):
        baseline.pin(tmp_path, find(tmp_path, run.id))


def test_set_show_clear(simlab, tmp_path, capsys):
    reports = ["--reports", str(tmp_path)]
    save(simlab, tmp_path, "trusted")
    assert main(["baseline", "show", *reports]) == 2
    assert main(["baseline", "set", "trust", *reports]) == 0
    assert json.loads((tmp_path / "baseline" / "baseline.json").read_text("utf-8"))["run_id"] == "trusted"
    assert (tmp_path / "baseline" / "run.facts.json").is_file()
    assert main(["baseline", "show", *reports]) == 0
    assert "IOMMU group t4: group 11: 0000:3b:00.0" in capsys.readouterr().out
    assert main(["baseline", "clear", *reports]) == 0
    assert main(["baseline", "show", *reports]) == 2
    assert find(tmp_path, "trusted").id == "trusted"
