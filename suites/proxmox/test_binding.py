"""vfio-pci: available, configured for the next boot, and holding the card."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-VFIO-001")
def test_vfio_is_available(judgement):
    """vfio-pci MUST be loaded or loadable into the running kernel.

    Preconditions: SSH access to the host
    Expected: the driver is registered, or its module exists for this kernel and is not blacklisted
    """
    assert_holds(judgement)


@clause("HOST-PERSIST-001")
def test_boot_binds_the_gpu(judgement):
    """The boot configuration MUST bind the GPU to vfio-pci, unless lab.yaml leaves that to the VM start.

    Preconditions: `bind_at_boot` (the default)
    Expected: ids=, driverctl or a driver_override cover the GPU; vfio_virqfd is never required
    """
    assert_holds(judgement)


@clause("HOST-PERSIST-002")
def test_initramfs_is_current(judgement):
    """The initramfs of the running kernel MUST carry the module options as they are now.

    Preconditions: SSH access to the host
    Expected: the files of /etc/modprobe.d that matter are in it and not newer than it
    """
    assert_holds(judgement)


@clause("HOST-PERSIST-003")
def test_vfio_comes_first(judgement):
    """No driver of the host MUST be able to take the GPU before vfio-pci at boot.

    Preconditions: `bind_at_boot` (the default) with ids=
    Expected: every installed driver that knows the card is blacklisted or ordered after vfio-pci
    """
    assert_holds(judgement)


@clause("HOST-PERSIST-004")
def test_boot_binds_every_function(judgement):
    """The boot configuration MUST bind every declared further function of the card.

    Preconditions: functions declared in lab.yaml
    Expected: ids= lists them all
    """
    assert_holds(judgement)


@clause("HOST-MODULES-001")
def test_no_obsolete_module(judgement):
    """vfio_virqfd MUST NOT be listed for loading on kernels that no longer have it.

    Preconditions: SSH access to the host
    Expected: no such line in /etc/modules or modules-load.d from kernel 6.2 on
    """
    assert_holds(judgement)


@clause("HOST-DRIVER-001")
def test_no_driver_keeps_the_gpu(judgement):
    """The GPU MUST NOT be held by a host driver that keeps it from the VM.

    Preconditions: the GPU is on the bus
    Expected: vfio-pci, no driver, or on Proxmox VE one that lets go when the VM starts
    """
    assert_holds(judgement)


@clause("HOST-DRIVER-002")
def test_vfio_holds_the_gpu(judgement):
    """vfio-pci MUST hold the GPU from boot on where the lab declares so.

    Preconditions: `bind_at_boot` (the default)
    Expected: the driver is vfio-pci, or none
    """
    assert_holds(judgement)


@clause("HOST-DRIVER-003")
def test_other_functions_are_free(judgement):
    """The other functions of the card MUST NOT be on host drivers.

    Preconditions: a card with several functions and `bind_at_boot`
    Expected: audio and USB functions are on vfio-pci or on no driver
    """
    assert_holds(judgement)


@clause("HOST-DRIVER-004")
def test_vfio_took_no_twin(judgement):
    """vfio-pci MUST NOT have taken a device of the same id that the host needs.

    Preconditions: the GPU is on the bus
    Expected: no undeclared twin other than a display adapter is on vfio-pci
    """
    assert_holds(judgement)
