"""The five guides this project began with: what the facts call a mistake in them, and a file shows, is found.

They are third-party text and stand outside the repository; without them these tests are skipped, loudly.
"""

import re
from pathlib import Path

import pytest

from labproof.lint.judge import lint

GUIDES = Path(__file__).parents[2].parent / "shared" / "guides"
#: Guide, words of the line at fault, cause, where the facts say so.
MISTAKES = [
    ("002-t4-jellyfin.md", r"^vfio_virqfd$", "P27", "proxmox 0.1"),
    ("002-t4-jellyfin.md", r"device  = hostpci.value.device_id", "K96", "proxmox 0.3"),
    ("002-t4-jellyfin.md", r"pcie    = hostpci.value.pcie", "P21", "proxmox 0.4"),
    ("002-t4-jellyfin.md", r"talos_version      = \"1.10.6\"", "K99", "talos 0"),
    ("002-t4-jellyfin.md", r"^    modules:", "T10", "talos 0"),
    ("002-t4-jellyfin.md", r"^talosctl apply-config", "T03", "talos 0"),
    ("002-t4-jellyfin.md", r"source.toolkit.fluxcd.io/v1beta2", "K72", "V23"),
    ("002-t4-jellyfin.md", r"oci://ghcr.io/nvidia/gpu-operator", "K32", "V4"),
    ("002-t4-jellyfin.md", r"^    driver:", "K27", "V10"),
    ("002-t4-jellyfin.md", r"# - nvidia.com/gpu.product: Tesla-T4", "K09", "V7"),
    ("002-t4-jellyfin.md", r"# - nvidia.com/cuda.driver.major", "K98", "V8"),
    ("002-t4-jellyfin.md", r"^    validator:", "K98", "V11"),
    ("002-t4-jellyfin.md", r"^      defaultRuntime:", "K98", "V11"),
    ("002-t4-jellyfin.md", r"^      timeSlicing:", "K01", "V1"),
    ("002-t4-jellyfin.md", r"# resourceName: nvidia.com/gpu-shared", "K98", "V3"),
    ("002-t4-jellyfin.md", r"NVIDIA_VISIBLE_DEVICES: all", "K46", "V22"),
    ("002-t4-jellyfin.md", r"# Expected: nvidia.com/gpu: 1$", "K08", "V6"),
    ("002-t4-jellyfin.md", r"-l app=nvidia-device-plugin`", "K97", "V5"),
    ("002-t4-jellyfin.md", r"DCGM_FI_DEV_FB_USED", "K98", "V9"),
    ("003-standalone-nvidia-plugin.md", r"Advertises nvidia.com/gpu:2", "K08", "V6"),
    ("003-standalone-nvidia-plugin.md", r"^# nvidia.com/gpu: 2", "K08", "V6"),
    ("003-standalone-nvidia-plugin.md", r"GFD.*gpu.present", "K15", "V13"),
    ("004-bare-metal-rtx2070.md", r"siderolabs/nvidia-driver", "T05", "talos 0"),
    ("004-bare-metal-rtx2070.md", r"talosImageURL", "T06", "talos 0"),
    ("004-bare-metal-rtx2070.md", r"^  runtimeClassName: nvidia", "W53", "V20"),
]


@pytest.fixture(scope="module")
def guides():
    if not GUIDES.is_dir():
        pytest.skip(f"NOT TESTED: the guides are not at {GUIDES}")
    return lint([str(GUIDES)])


def line_of(guide, pattern):
    text = (GUIDES / guide).read_text().split("\n")
    return {at + 1 for at, line in enumerate(text) if re.search(pattern, line)}


@pytest.mark.parametrize(("guide", "pattern", "cause", "fact"), MISTAKES)
def test_a_mistake_of_the_guides_is_found_at_its_line(guides, guide, pattern, cause, fact):
    lines = {f.line for f in guides.findings if f.cause == cause and f.path.endswith(guide)}
    near = {line + by for line in line_of(guide, pattern) for by in (0, 1)}  # a value may stand below its key
    assert lines & near, f"{guide}: {cause} not at {sorted(near)}, but at {sorted(lines)} ({fact})"


def test_nothing_else_is_said_of_them(guides):
    """No false alarm: each finding belongs to a mistake above (labels and counts occur several times)."""
    known = {(guide, cause) for guide, _, cause, _ in MISTAKES}
    assert [f for f in guides.findings if (Path(f.path).name, f.cause) not in known] == []
    assert guides.unreadable == []


def test_guides_without_a_mistake_in_a_file_are_clean(guides):
    assert not [f for f in guides.findings if "000-" in f.path or "001-" in f.path]
