"""Intel graphics in the node: from the PCI function to a render node."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-IGPU-001")
def test_guest_sees_the_intel_gpu(judgement):
    """The guest MUST see the declared Intel GPU.

    Preconditions: the Talos API answers
    Expected: a PCI device of the declared vendor and device id, wherever it sits on the guest's bus
    """
    assert_holds(judgement)


@clause("TALOS-IGPU-002")
def test_driver_extension_is_installed(judgement):
    """The extension with the GPU's driver MUST be installed.

    Preconditions: the guest sees the GPU
    Expected: i915 or xe among the extensions (i915 is in the base image up to Talos 1.8); xe where the chip needs it
    """
    assert_holds(judgement)


@clause("TALOS-IGPU-003")
def test_driver_holds_the_gpu(judgement):
    """i915 or xe MUST hold the GPU.

    Preconditions: its extension is installed
    Expected: the address is a link below /sys/bus/pci/drivers/i915 or xe;
    complaints about ROM and VBT alone are no fault
    """
    assert_holds(judgement)


@clause("TALOS-IGPU-004")
def test_gpu_has_a_render_node(judgement):
    """The GPU MUST have a render node.

    Preconditions: a driver holds it
    Expected: /dev/dri/by-path has its PCI address, and the node behind is a character device; its number says nothing
    """
    assert_holds(judgement)


@clause("TALOS-IGPU-005")
def test_firmware_was_loaded(judgement):
    """The firmware the GPU's driver asks for MUST be loaded.

    Preconditions: a driver holds it
    Expected: no failed load of DMC, GuC or HuC in the kernel log; what the driver does not ask for is not missing
    """
    assert_holds(judgement)


@clause("TALOS-IGPU-006")
def test_no_engine_hung(judgement):
    """No engine of the GPU MUST have hung since the boot.

    Preconditions: a driver holds it
    Expected: neither a hang of i915 nor an engine reset of xe in the kernel log
    """
    assert_holds(judgement)
