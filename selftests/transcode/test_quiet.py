"""Heat under load and the kernel log meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labproof.checks.judgement import Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.checks.subject import Subject
from labproof.facts.reading import failed, value
from labproof.facts.talos import KernelLog
from labproof.facts.transcode import Sample
from labproof.inventory.chains import targets_of
from selftests.talos.conftest import LOADED
from selftests.talos.conftest import healthy as healthy_node
from selftests.workload.world import Recorded, causes_of, lab
from selftests.workload.world import judge as judge_layers

from .world import healthy

STAMP = "kern: warning: [2026-11-20T10:00:00.123456000Z]: "
XID = "NVRM: Xid (PCI:0000:0a:00): 31, pid=41217, name=ffmpeg, MMU Fault"


def sampled(temperature, slowdowns):
    one = Sample(1000.5, 8, 0, 1, 300, 14000, temperature, slowdowns)
    facts = healthy()
    runs = tuple(replace(run, samples=value((one,))) for run in facts.runs)
    return replace(facts, runs=runs, at_once=failed("slots", "one slot only", "busy"))


def heat(facts):
    return judge_layers("CODEC-HEAT-001", of_transcode=facts)


@pytest.mark.parametrize(
    "name", ["hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"]
)
def test_a_slowdown_at_work_is_found(name):
    assert causes_of(heat(sampled(96, (name,)))) == ["W75"]


@pytest.mark.parametrize("names", [(), ("sw_power_cap",)])
def test_the_power_cap_is_daily_life(names):
    judgement = heat(sampled(61, names))
    assert isinstance(judgement, Pass)
    assert {m.name for m in judgement.measurements} == {"temperature_under_load"}


@pytest.mark.parametrize(("temperature", "kind"), [(61, Pass), (90, Unchecked), (None, Unchecked)])
def test_a_driver_that_does_not_tell_is_judged_by_temperature(temperature, kind):
    assert isinstance(heat(sampled(temperature, None)), kind)


class Twice(Recorded):
    """The node's kernel log is read a second time."""

    again = None

    def kernel_log(self, node):
        return self.again


def quiet(before, after, transcode=None):
    node = replace(healthy_node(), kernel_log=value(KernelLog(tuple(before), True, 900), "talosctl dmesg"))
    facts = Twice(of_talos=node, of_transcode=transcode or healthy())
    facts.again = after if not isinstance(after, list) else value(KernelLog(tuple(after), True, 901), "talosctl dmesg")
    clause = clauses()["CODEC-KLOG-001"]
    declared = lab()
    return clause.judge(Subject(facts, declared, targets_of(declared, clause.scope, clause.layer)[0]))


def test_the_same_log_with_other_stamps_is_quiet():
    before = [STAMP + LOADED, STAMP + XID]
    assert isinstance(quiet(before, [line.replace("123456", "123999") for line in before]), Pass)


def test_the_same_record_once_more_is_new():
    judgement = quiet([STAMP + XID], [STAMP + XID, STAMP.replace("10:00", "10:05") + XID])
    assert causes_of(judgement) == ["W83"]
    assert "10:05" in judgement.problems[0].evidence[0].text


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("pcieport 0000:00:1c.0: AER: Corrected error received: 0000:0a:00.0", True),
        ("NVRM: GPU 0000:0a:00.0: RmInitAdapter failed! (0x22:0x56:894)", True),
        ('[talos] service "ext-nvidia-persistenced" is running', False),
    ],
)
def test_which_records_count(line, new):
    judgement = quiet([STAMP + LOADED], [STAMP + LOADED, STAMP + line])
    assert (causes_of(judgement) == ["W83"]) if new else isinstance(judgement, Pass)


def test_what_could_not_be_read_or_done_is_unchecked():
    assert isinstance(quiet([], failed("talosctl dmesg", "timeout")), Unchecked)
    assert isinstance(quiet([], [STAMP + XID], failed("pods", "busy", "busy")), Unchecked)
