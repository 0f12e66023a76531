"""Provisioning on a real kernel: judged, provisioned, judged, planned again, taken back, judged."""

import pytest

from .machine import AUDIO, CARD

TRIXIE = pytest.param(("trixie", "intel"), id="trixie-intel")
FULL = pytest.mark.realhost_full
BEDS = (
    TRIXIE,
    pytest.param(("bookworm", "intel"), id="bookworm-intel", marks=FULL),
    pytest.param(("trixie", "amd"), id="trixie-amd", marks=FULL),
)
#: What is wrong with a guest as it was installed: `intel_iommu=off` where that counts, and nothing binds the card.
FIRST = {
    "intel": {"HOST-IOMMU-001": ("P01",), "HOST-CMDLINE-002": ("P01",), "HOST-GROUP-001": ("P01",),
              "HOST-PERSIST-001": ("P66",)},
    "amd": {"HOST-PERSIST-001": ("P66",), "HOST-DRIVER-003": ("P23",)},
}  # fmt: skip

pytestmark = pytest.mark.parametrize("bed", BEDS, indirect=True, scope="session")


def test_an_unprovisioned_guest_is_told_its_true_causes(bed):
    judged = bed.unprovisioned
    assert judged.causes == FIRST[bed.machine.board], judged.terminal
    assert judged.exit_status == 1
    assert "unchecked" not in judged.verdicts.values(), judged.terminal


def test_provisioning_ends_green_after_a_real_reboot(bed):
    judged = bed.provisioned
    assert judged.exit_status == 0, judged.terminal
    assert set(judged.verdicts.values()) == {"pass"}, judged.terminal
    bed.go("provisioned")
    assert bed.drivers == {CARD: "vfio-pci", AUDIO: "vfio-pci"}


def test_a_second_plan_is_empty(bed):
    bed.go("provisioned")
    judged = bed.pytest(bed.lab("cycle"), "--plan")
    assert "nothing to do" in judged.terminal, judged.terminal
    assert judged.exit_status in (0, 5), judged.terminal


def test_vfio_virqfd_is_asked_for_only_where_it_is_a_module(bed):
    bed.go("provisioned")
    old = bed.guest.run("uname -r").startswith("6.1.")
    assert ("vfio_virqfd" in bed.guest.run("cat /etc/modules-load.d/labproof-vfio.conf")) is old
    assert ("vfio_virqfd" in bed.guest.run("cat /proc/modules")) is old


def test_undo_restores_every_file_and_the_first_verdicts(bed):
    bed.go("provisioned")
    assert bed.files() != bed.files_before
    undone = bed.pytest(bed.lab("cycle"), "--undo", "--allow", "all", "--allow", "console-loss", limit_s=5400)
    assert "took back /etc/modprobe.d/labproof-vfio.conf" in undone.terminal, undone.terminal
    assert bed.files() == bed.files_before
    again = bed.pytest(bed.lab("again"))
    assert again.verdicts == bed.unprovisioned.verdicts, again.terminal
    assert again.causes == bed.unprovisioned.causes
