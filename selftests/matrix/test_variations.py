"""Each healthy variation of the lab is also run with one fault a layer, which must be found, and nothing else.

Here the chains count: a fault of one of two chains breaks that one, and the other stays green.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from labproof.checks.registry import LAYERS, clauses
from labproof.simlab.faults import load_faults
from labproof.simlab.world import variations

FAULTS = load_faults()

#: variation -> a fault a layer: host, vm, talos, kubernetes, workload, transcode.
TABLE = {
    "second-gpu": (
        "usb-on-host-driver", "functions-not-passed", "card-not-reset", "plugin-stream-lost", "memory-errors",
        "encoder-slower-than-real-time",
    ),
    "gpu-stays-with-host": (
        "vtd-off", "hosts-own-card-passed", "uvm-module-not-configured", "runtime-class-absent",
        "uvm-refused-by-cgroup", "decoder-without-h264",
    ),
    "two-cards": (
        "second-card-gone", "second-card-not-passed", "second-card-not-reset", "one-replica",
        "second-card-memory-errors", "second-card-without-encoder",
    ),
    "all-slots-taken": (
        "card-dead", "hostpci-rolled-back", "gpu-rebound-in-guest", "gfd-labels-refused", "workload-without-slot",
    ),  # there is no slot to see a fault of transcoding in
    "all-slots-taken-exec": (
        "link-errors", "vm-switched-off", "drm-module-not-configured", "kubelet-stopped", "own-pod-without-video",
        "encoder-absent",
    ),
    "hand-labelled": (
        "card-gone", "gpu-held-by-other-vm", "bpf-hardening-default", "typed-label-missing", "card-node-not-injected",
        "picture-damaged",
    ),
    "seabios-x86-64-v3": (
        "console-on-the-card", "ovmf-instead-of-seabios", "toolkit-extension-missing", "node-cordoned",
        "card-hangs", "encoder-absent",
    ),
    "partial-vfio-ids": (
        "declared-function-not-listed", "memory-pending", "nvidia-modules-not-configured",
        "discovery-left-at-auto", "cgroup-rules-lost", "consumer-sessions-exhausted",
    ),
    "amd-host": (
        "amd-iommu-switched-off", "mapping-stale", "card-not-reset", "plugin-config-edited", "kernel-result-wrong",
        "encoder-without-hevc",
    ),
    "pve9-systemd-boot": (
        "systemd-boot-two-lines", "mapping-without-subsystem", "old-version-after-upgrade", "cni-not-ready",
        "library-cache-broken", "encoder-absent",
    ),
    "operator": (
        "initramfs-stale", "vm-locked", "cdi-generator-fails", "operator-driver-dir-wrong", "cdi-hook-path-absent",
        "encoder-absent",
    ),
    "operator-legacy": (
        "card-not-covered-by-dmar", "no-hostpci", "toolkit-of-other-branch", "operator-on-talos-1.12",
        "encode-library-not-injected", "ffmpeg-without-nvenc",
    ),
    "two-hosts": (
        "second-host-vtd-off", "second-vm-without-hostpci", "second-node-without-modules", "second-node-cordoned",
        "second-node-without-uvm", "second-node-decodes-in-software",
    ),
    "declared-extras": (
        "no-binding-configured", "memory-pending", "time-not-in-sync", "declared-taint-lost",
        "default-runtime-nvidia", "decoder-without-h264",
    ),
}  # fmt: skip
#: Labs without hypervisor: (lab, variation) -> a fault of talos, kubernetes, workload and transcode.
ON_METAL = {
    ("bare-metal-rtx2070", "gpu-on-control-plane"): (
        "rtx-schematic-without-driver", "rtx-plugin-never-installed", "rtx-power-limit-lost", "rtx-xid-at-work",
    ),
    ("bare-metal-rtx2070", "runtime-class-of-another-name"): (
        "rtx-boot-unfinished", "rtx-taint-after-registration", "rtx-memory-taken-without-slot", "rtx-sessions-taken",
    ),
    ("bare-metal-rtx2070", "owners-containerd-part"): (
        "rtx-schematic-without-driver", "rtx-node-not-labelled", "rtx-probe-image-too-new", "rtx-hot-at-work",
    ),
    ("standalone-nvidia-plugin", "talos-1.13-envvar"): (
        "ai-xe-loaded", "ai-plugin-without-toleration", "ai-flux-beside-ollama", "ai-xid-at-work",
    ),
}  # fmt: skip
CASES = [("t4-jellyfin", variation, fault) for variation, faults in TABLE.items() for fault in faults]
CASES += [(lab, variation, fault) for (lab, variation), faults in ON_METAL.items() for fault in faults]
CASES += [
    case for f in FAULTS.values()
    if f.layer == "variations" and (case := (f.lab, f.variation, f.id)) not in CASES
]  # fmt: skip


def test_every_layer_of_every_listed_variation_is_broken_once():
    assert set(TABLE) <= set(variations("t4-jellyfin"))
    for variation, faults in TABLE.items():
        layers = [clauses()[FAULTS[fault].clause].layer for fault in faults]
        assert layers == list(LAYERS[: len(layers)]), variation


def test_every_layer_of_a_lab_on_the_metal_is_broken_once():
    for (lab, variation), faults in ON_METAL.items():
        assert variation in variations(lab)
        assert {FAULTS[fault].lab for fault in faults} == {lab}
        layers = [clauses()[FAULTS[fault].clause].layer for fault in faults]
        assert layers == ["talos", "kubernetes", "workload", "transcode"], (lab, variation)


def layer_of(ident):
    return clauses()[ident].layer


@pytest.mark.parametrize(("lab", "variation", "name"), CASES, ids=[f"{v}-{f}" for _, v, f in CASES])
def test_a_fault_in_a_variation_is_found_on_its_chains_only(judged, lab, variation, name):
    fault = FAULTS[name]
    clause = clauses()[fault.clause]
    outcome = judged([name], variation, lab=lab)
    told = outcome.describe()
    assert fault.cause in outcome.causes(fault.clause), told
    assert set(outcome.of("fail")) == {fault.clause, *fault.also}, told
    assert outcome.unchecked_but_not_busy() == [], told
    blocking = clause.severity == "blocking"
    assert outcome.first_broken() == ((fault.clause, fault.cause) if blocking else None), told
    lowest = {}  # chain -> its first broken layer
    touched = set()
    for (ident, target), ruling in outcome.rulings.items():
        if ruling.verdict == "fail":
            touched |= outcome.chains[ident, target]
            if clauses()[ident].severity == "blocking":
                for chain in outcome.chains[ident, target]:
                    lowest[chain] = min(layer_of(ident), lowest.get(chain, LAYERS[-1]), key=LAYERS.index)
    for (ident, target), ruling in outcome.rulings.items():
        chains = outcome.chains[ident, target]
        if not chains & touched:
            assert ruling.verdict == "pass", told
        elif all(lowest.get(chain) in clauses()[ident].below for chain in chains):
            assert ruling.verdict == "blocked", told
        elif not blocking and clause.layer not in clauses()[ident].reads:
            assert ruling.verdict != "blocked" or ruling.blocker.clause in fault.also, told


def test_each_of_two_cards_in_a_vm_is_the_one_that_was_worked_on(judged, simlab):
    outcome = judged((), "two-cards")
    uuids = {}
    for chain in ("pve5/0000:3b:00.0", "pve5/0000:af:00.0"):
        facts = outcome.facts.workload(chain).value
        uuids[chain] = [gpu.uuid.value for gpu in facts.nvidia_smi.value.report.value.gpus]
        together = outcome.facts.transcode(chain).value.at_once.value
        assert together.wanted == len(together.runs) >= 2
        assert facts.left_behind == ()
    cards = simlab.world.cards
    assert uuids == {
        "pve5/0000:3b:00.0": [cards["t4"].inputs["uuid"]],
        "pve5/0000:af:00.0": [cards["t4b"].inputs["uuid"]],
    }


def test_a_variation_stands_on_another():
    base, more = variations("t4-jellyfin")["operator"], variations("t4-jellyfin")["operator-legacy"]
    assert more.set["clusters"]["moody"]["plugin"]["values"]["cdi"] == {"enabled": False}
    assert more.set["clusters"]["moody"]["plugin"]["version"] == base.set["clusters"]["moody"]["plugin"]["version"]
    assert more.set["clusters"]["moody"]["runtime_classes"] == {"nvidia": None}
    assert more.lab["clusters"]["moody"]["injection"] == "legacy"


# ------------------------------------------------------------------ a few through the command


def _pytest(folder, *options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "LABPROOF_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "labproof.suites", "-p", "no:cacheprovider", *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_two_chains_on_two_workers_keep_each_gpu_to_one(tmp_path):
    ran = _pytest(tmp_path, "--sim", "t4-jellyfin", "--variation", "two-hosts", "-n", "2", "--dist", "loadgroup", "-v")
    assert ran.returncode == 0, ran.stdout[-3000:]
    workers = {}
    for worker, chain in re.findall(
        r"^\[(gw\d)\].* PASSED (?:workload|transcode)/test_\w+\.py::\w+\[(\S+/\S+)\]", ran.stdout, re.MULTILINE
    ):
        workers.setdefault(chain, set()).add(worker)
    assert set(workers) == {"pve5/0000:3b:00.0", "pve6/0000:3b:00.0"}
    assert all(len(found) == 1 for found in workers.values()), workers


def test_a_gpu_in_use_ends_with_its_own_status(tmp_path):
    ran = _pytest(tmp_path, "--sim", "t4-jellyfin", "--variation", "all-slots-taken")
    assert ran.returncode == 7, ran.stdout[-3000:]
    run = json.loads((tmp_path / "reports/latest/run.json").read_text("utf-8"))
    verdicts = {v["clause"]: v for v in run["verdicts"]}
    assert verdicts["POD-OVERFLOW-001"]["verdict"] == "pass"
    assert {v["verdict"] for v in verdicts.values()} == {"pass", "unchecked"}
    assert "photos/immich-ml" in verdicts["CODEC-H264-001"]["reason"]
