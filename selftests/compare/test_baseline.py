"""A baseline pins what an owner trusts; drift from it is a finding of its own, on the page and in the exit status."""

import json

import pytest

from labproof.cli import main
from labproof.report import baseline
from labproof.report.compare_runs import NoSuchRun, find
from labproof.report.compare_snapshot import Snapshot
from labproof.report.exit_status import exit_status

from .saved import save


@pytest.fixture
def pinned(simlab, tmp_path):
    """A reports folder whose baseline is a healthy run."""
    baseline.pin(tmp_path, save(simlab, tmp_path, "trusted"))
    return tmp_path


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("vtd-off", "firmware", "pve5: firmware tables DMAR is gone"),
        ("group-shared-with-usb", "group", "pve5: IOMMU group t4: "),
        ("card-renumbered", "address", "pve5: PCI address 10de:1eb8: 0000:3b:00.0 -> "),
        ("mapping-stale", "mapping", "moody-good: PCI mapping t4"),
        ("schematic-in-other-order", "schematic", "moody-good: schematic: "),
    ],
)
def test_drift_of_what_is_pinned_is_a_finding_of_its_own(simlab, pinned, fault, kind, text):
    run = save(simlab, pinned, fault, [fault], after_s=60)
    found = [d for d in run.result["drift"] if d["text"].startswith(text)]
    assert found, run.result["drift"]
    assert (found[0]["kind"], found[0]["severity"]) == (kind, "degraded")
    assert found[0]["meaning"]
    assert "labproof baseline set latest" in found[0]["remedy"]
    assert {d["run_id"] for d in run.result["drift"]} == {"trusted"}
    written = pinned / "runs" / fault
    assert "Drift from the baseline" in (written / "index.html").read_text("utf-8")
    assert "drift from baseline trusted" in (written / "summary.md").read_text("utf-8")


def test_every_pinned_thing_has_words_for_its_drift():
    from labproof.report.compare_things import THINGS

    pinned = {thing.name for things in THINGS.values() for thing in things if thing.pinned}
    assert pinned == set(baseline.KINDS)


def test_a_healthy_run_has_not_drifted(simlab, pinned):
    run = save(simlab, pinned, "again", after_s=60)
    assert run.result["drift"] == []
    assert run.result["exit_status"] == 0


def test_drift_alone_is_red_until_it_is_pinned_anew(simlab, pinned):
    """A second card: every clause holds, and the state is another than the trusted one."""
    moved = save(simlab, pinned, "moved", variation="two-cards", after_s=60)
    assert {v["verdict"] for v in moved.result["verdicts"]} == {"pass"}
    assert moved.result["drift"]
    assert moved.result["exit_status"] == 1
    assert "state that its baseline pins" in (pinned / "runs" / "moved" / "index.html").read_text("utf-8")
    baseline.pin(pinned, moved)
    assert save(simlab, pinned, "pinned", variation="two-cards", after_s=120).result["exit_status"] == 0


def test_who_fails_on_blocking_only_is_told_of_drift_and_not_stopped():
    found = [{"severity": "degraded", "text": "moved"}]
    good = [{"verdict": "pass", "severity": "blocking"}]
    assert exit_status(0, good, 0, "blocking", False, found) == 0
    assert exit_status(0, good, 0, "degraded", False, found) == 1


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
    assert "not whole" in baseline.trouble(pinned)
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
