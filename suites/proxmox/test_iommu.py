"""The IOMMU: offered by firmware, live in the kernel, remapping interrupts."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-FIRMWARE-001")
def test_firmware_offers_an_iommu(judgement):
    """Firmware MUST publish the table that describes the IOMMU.

    Preconditions: SSH access to the host
    Expected: /sys/firmware/acpi/tables has DMAR (Intel VT-d) or IVRS (AMD-Vi)
    """
    assert_holds(judgement)


@clause("HOST-IOMMU-001")
def test_iommu_is_live(judgement):
    """The kernel MUST have the IOMMU running and devices in groups.

    Preconditions: SSH access to the host
    Expected: /sys/class/iommu and /sys/kernel/iommu_groups are not empty; no boot message is taken for proof
    """
    assert_holds(judgement)


@clause("HOST-IRQ-001")
def test_interrupts_are_remapped(judgement):
    """Interrupts MUST be remapped, or VFIO refuses every device.

    Preconditions: SSH access that may read the kernel log or /proc/interrupts
    Expected: interrupts on a remapped chip, or the kernel saying that remapping is enabled
    """
    assert_holds(judgement)


@clause("HOST-IRQ-002")
def test_unsafe_interrupts_are_off(judgement):
    """The unsafe-interrupts override MUST be off where remapping works.

    Preconditions: SSH access to the host
    Expected: vfio_iommu_type1 allow_unsafe_interrupts is N, or the module is not loaded
    """
    assert_holds(judgement)
