"""The IOMMU group of the card."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-GROUP-001")
def test_gpu_is_alone_in_its_group(judgement):
    """The GPU MUST share its IOMMU group with nothing but its own functions and bridges.

    Preconditions: the GPU is on the bus
    Expected: the group has members of its slot and PCI bridges only
    """
    assert_holds(judgement)


@clause("HOST-GROUP-002")
def test_group_spares_the_host(judgement):
    """The group of the GPU MUST hold no network card or disk that the host itself uses.

    Preconditions: the GPU is on the bus
    Expected: no member has an interface that is up or a block device in use: PVE takes the whole group at VM start
    """
    assert_holds(judgement)


@clause("HOST-GROUP-003")
def test_isolation_is_real(judgement):
    """The isolation of IOMMU groups MUST come from the hardware, not from the ACS override.

    Preconditions: SSH access to the host
    Expected: no pcie_acs_override= on the kernel command line
    """
    assert_holds(judgement)


@clause("HOST-GROUP-004")
def test_gpu_has_a_group(judgement):
    """The GPU MUST be in an IOMMU group once the IOMMU is live.

    Preconditions: the GPU is on the bus and the IOMMU is live
    Expected: the device has an iommu_group
    """
    assert_holds(judgement)


@clause("HOST-RMRR-001")
def test_firmware_reserves_no_memory(judgement):
    """Firmware MUST NOT reserve memory for the GPU in a way that forbids VFIO.

    Preconditions: the GPU is on the bus
    Expected: no reserved region of type direct in its group; direct-relaxable is fine
    """
    assert_holds(judgement)
