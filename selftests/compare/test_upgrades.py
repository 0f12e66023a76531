"""Before and after an upgrade of the simulated lab: what changed is named, and what broke because of it."""

import pytest

from labproof.checks.registry import LAYERS
from labproof.report.compare import compare
from labproof.report.compare_text import headline, lines, markdown


def texts(records):
    return [r["text"] for r in records]


def says(records, *words):
    return any(all(word in text for word in words) for text in texts(records))


# ------------------------------------------------------------------ upgrades that went well


def test_proxmox_8_to_9_is_named_and_breaks_nothing(healthy):
    found = compare(healthy(), healthy("pve9-systemd-boot"))
    assert says(found["versions"], "PVE: 8.4.1 -> 9.1.2")
    assert says(found["versions"], "kernel: 6.8.12-9-pve -> 6.17.2-1-pve")
    assert says(found["versions"], "QEMU machine: pc-q35-9.2+pve1 -> pc-q35-10.1+pve0")
    assert says(found["facts"], "boot files /etc/kernel/cmdline is new")
    assert found["culprits"] == []
    assert found["verdicts"] == []


def test_talos_1_11_to_1_13_is_named_down_to_the_driver_in_the_pod(healthy):
    found = compare(healthy(layers=LAYERS), healthy("talos-1.13", layers=LAYERS))
    assert says(found["versions"], "Talos: v1.11.6 -> v1.13.9")
    assert says(found["versions"], "driver: 570.172.08-v1.11.6 -> 595.91.07-v1.13.9")
    assert says(found["versions"], "node kernel: 6.12.62-talos -> 6.18.44-talos")
    assert says(found["versions"], "GPU t4: driver in the pod: 570.172.08 -> 595.91.07")
    assert says(found["facts"], "CDI specifications", "nvidia.yaml is new")
    assert not [v for v in found["verdicts"] if v["after"] in ("fail", "unchecked", "blocked")]
    assert found["unknown"] == []


def test_a_plugin_replaced_by_the_operator(healthy):
    found = compare(healthy(), healthy("operator"))
    assert says(found["versions"], "Kubernetes: v1.34.3+sim -> v1.36.2+sim")
    assert says(found["versions"], "nvidia-device-plugin/nvidia-device-plugin is gone")
    assert says(found["versions"], "gpu-operator/nvidia-device-plugin-daemonset is new", "v0.19.0")
    assert says(found["facts"], "clusters.moody.plugin.flavour: nvidia-device-plugin -> gpu-operator")
    assert found["culprits"] == []


def test_a_second_card(healthy):
    found = compare(healthy(), healthy("two-cards"))
    assert says(found["facts"], "PCI devices 10de:1eb8: 1 x -> 2 x")
    assert says(found["facts"], "allocatable nvidia.com/gpu: 4 -> 8")
    assert found["culprits"] == []


def test_the_same_lab_twice_has_nothing_but_its_boot(healthy, broken):
    found = compare(healthy(), broken())
    assert set(texts(found["facts"])) <= {"pve5: rebooted", "node moody-good: rebooted"}
    assert found["versions"] == found["verdicts"] == found["unknown"] == found["culprits"] == []
    assert "no verdict changed" in headline(found)


# ------------------------------------------------------------------ upgrades that broke something

#: variation, fault (what happened), clause that breaks, words of its culprit.
BREAKS = [
    (None, "vtd-off", "HOST-FIRMWARE-001", "pve5: firmware tables: DMAR is gone"),
    (None, "vtd-off", "HOST-IRQ-001", "pve5: firmware tables: DMAR is gone"),
    (None, "kernel-merges-groups", "HOST-GROUP-001", "pve5: kernel: 6.8.12-9-pve -> "),
    (None, "kernel-breaks-reset", "HOST-KERNEL-001", "pve5: kernel: 6.8.12-9-pve -> "),
    (None, "card-renumbered", "HOST-DEVICE-001", "pve5: PCI devices"),
    ("pve9-systemd-boot", "systemd-boot-two-lines", "HOST-CMDLINE-003", "boot files /etc/kernel/cmdline: "),
    (None, "mapping-stale", "VM-MAPPING-001", "moody-good: PCI mapping t4"),
    (None, "hostpci-rolled-back", "VM-HOSTPCI-001", "moody-good: configuration hostpci0: "),
    (None, "schematic-without-nvidia", "TALOS-EXT-001", "moody-good: schematic: 4392dfdeec70 -> "),
    (None, "plain-installer-upgrade", "TALOS-EXT-001", "moody-good: schematic"),
    (None, "old-version-after-upgrade", "TALOS-VERSION-001", "moody-good: Talos: v1.11.6 -> v1.11.5"),
    ("talos-1.13", "cdi-generator-fails", "TALOS-CDI-001", ""),
    (None, "replicas-outside-resources", "K8S-CONF-001", "plugin configuration"),
    (None, "runtime-class-absent", "K8S-RTC-001", "RuntimeClass nvidia is gone"),
]


@pytest.mark.parametrize(("variation", "fault", "clause", "words"), BREAKS, ids=[f"{f}-{c}" for _, f, c, _ in BREAKS])
def test_the_culprit_is_named(healthy, broken, variation, fault, clause, words):
    before, after = healthy(variation), broken(fault, variation=variation)
    found = compare(before, after)
    told = "\n".join(line for line, _ in lines(found))
    verdict = next(v for v in found["verdicts"] if v["clause"] == clause)
    assert (verdict["is"], verdict["before"], verdict["after"]) == ("broken", "pass", "fail"), told
    culprit = next(c for c in found["culprits"] if c["clause"] == clause)
    assert words in culprit["sentence"], told
    assert clause in markdown(found)
    heights = [LAYERS.index(change["layer"]) for change in culprit["changes"]]
    assert heights == sorted(heights), "lower layers come first"


def test_what_is_put_right_is_mended(healthy, broken):
    found = compare(broken("vtd-off"), healthy())
    mended = [v["clause"] for v in found["verdicts"] if v["is"] == "mended" and v["before"] == "fail"]
    assert "HOST-FIRMWARE-001" in mended
    assert found["culprits"] == []
    assert "mended" in headline(found)


def test_an_upgrade_of_one_layer_is_not_blamed_for_an_edit_of_another(healthy, broken):
    """Proxmox was upgraded, and the plugin's configuration was broken the same evening."""
    found = compare(healthy(), broken("replicas-outside-resources", variation="pve9-systemd-boot"))
    culprit = next(c for c in found["culprits"] if c["clause"] == "K8S-CONF-001")
    assert "plugin configuration" in culprit["culprit"]["what"]
    assert culprit["changes"][0]["layer"] == "host"


def test_a_bundle_without_a_layer_gives_unknown_never_changed(healthy, simlab, reports):
    from .saved import save

    before = save(simlab, reports, "partial", layers=LAYERS[:1])
    for kind in ("pve-pve5", "talos-moody-good", "cluster-moody"):
        (reports / "runs" / "partial" / "facts" / f"{kind}.json").unlink(missing_ok=True)
    found = compare(before, healthy("talos-1.13"))
    assert not [c for c in found["versions"] + found["facts"] if c["layer"] not in ("host", "lab")]
    assert ("talos", "Talos", "before") in {(u["layer"], u["what"], u["run"]) for u in found["unknown"]}


def test_a_bundle_of_another_schema_gives_unknown(healthy, broken):
    import json

    from labproof.report.compare_runs import load

    after = broken("vtd-off")
    file = next(p for p in (after.facts._store.folder).glob("host-*.json"))
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "schema": 99}), "utf-8")
    found = compare(healthy(), load(file.parent.parent))
    assert not [c for c in found["facts"] if c["layer"] == "host"]
    assert any("schema 99" in u["why"] for u in found["unknown"])
