"""The simulator upgrades the lab step by step; each comparison names what changed, and what broke because of it."""

import pytest

from labproof.report.compare import compare
from labproof.report.compare_text import lines

from .saved import save
from .test_upgrades import says

HOST_KERNEL = {"hosts": {"pve5": {"kernel": {"version": "6.17.2-1-pve", "installed": ["6.17.2-1-pve"]}}}}
BIOS_RESET = {"hosts": {"pve5": {"firmware": {"iommu": False}}}}
LABEL = {"extensions.talos.dev/nvidia-container-toolkit-production": "570.172.08-v1.17.8"}
PINNED_TO_A_VERSION = {"clusters": {"moody": {"plugin": {"values": {"nodeSelector": LABEL}}}}}


@pytest.fixture
def night(simlab, reports, request):
    """A run of the lab after these upgrades, a day after the one before."""
    nights = []

    def run(**state):
        name = f"{request.node.name}-{len(nights)}"
        nights.append(save(simlab, reports, name, after_s=86400.0 * (len(nights) + 1), **state))
        return nights[-1]

    return run


def told(found):
    return "\n".join(line for line, _ in lines(found))


def test_talos_1_11_to_1_12_to_1_13(night):
    first, second, third = night(), night(upgrade={"talos": "1.12.6"}), night(upgrade={"talos": "1.13.9"})
    found = compare(first, second)
    assert says(found["versions"], "Talos: v1.11.6 -> v1.12.6"), told(found)
    assert says(found["versions"], "driver: 570.172.08-v1.11.6 -> 570.211.01-v1.12.6"), told(found)
    assert says(found["versions"], "node kernel: 6.12.62-talos -> "), told(found)
    assert found["culprits"] == []
    found = compare(second, third)
    assert says(found["versions"], "Talos: v1.12.6 -> v1.13.9"), told(found)
    assert says(found["versions"], "extensions nvidia-container-toolkit-production: "), told(found)
    assert says(found["facts"], "CDI specifications: nvidia.yaml is new"), told(found)
    assert found["culprits"] == []


def test_talos_breaks_a_plugin_that_selects_a_version(night):
    found = compare(
        night(patch=PINNED_TO_A_VERSION), night(patch=PINNED_TO_A_VERSION, upgrade={"talos": "1.12.6"})
    )  # fmt: skip
    culprit = next(c for c in found["culprits"] if c["clause"] == "K8S-PLUGIN-001")
    assert culprit["cause"] == "K76"
    above = [change["text"] for change in culprit["changes"] if change["layer"] == "talos"]
    assert any("Talos: v1.11.6 -> v1.12.6" in text for text in above), told(found)
    assert culprit["culprit"] is not None


def test_pve_8_to_9_and_back_to_firmware_defaults(night):
    first, second = night(), night(upgrade={"pve": "9.1"})
    found = compare(first, second)
    assert says(found["versions"], "PVE: 8.4.1 -> 9."), told(found)
    assert says(found["versions"], "kernel: 6.8.12-9-pve -> 6.1"), told(found)
    assert found["culprits"] == []
    third = night(upgrade={"pve": "9.1"}, patch=BIOS_RESET)
    found = compare(second, third)
    culprit = next(c for c in found["culprits"] if c["clause"] == "HOST-FIRMWARE-001")
    assert "firmware tables: DMAR is gone" in culprit["sentence"]
    assert not says(found["versions"], "PVE")


def test_a_kernel_alone(night):
    found = compare(night(), night(patch=HOST_KERNEL))
    assert says(found["versions"], "kernel: 6.8.12-9-pve -> 6.17.2-1-pve"), told(found)
    assert not says(found["versions"], "PVE:")


def test_a_plugin_with_its_chart_and_images(night):
    found = compare(night(), night(upgrade={"plugin": "0.19.0"}))
    assert says(found["versions"], "chart nvidia-device-plugin/nvidia-device-plugin: ", "0.18.2", "0.19.0"), told(found)
    assert says(found["versions"], "images of the GPU stack"), told(found)
