"""The driver in the node's kernel: flavour, modules, binding, device nodes."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-DRIVER-001")
def test_driver_supports_the_gpu(judgement):
    """The installed driver MUST support the GPU's generation.

    Preconditions: a kernel module extension is installed
    Expected: open modules only on Turing and newer, only open ones on Blackwell, no branch after 580 before Turing
    """
    assert_holds(judgement)


@clause("TALOS-MODULE-001")
def test_modules_are_configured(judgement):
    """The machine configuration MUST load nvidia and nvidia_uvm.

    Preconditions: the NVIDIA extensions are installed (they blacklist automatic loading)
    Expected: both names are among KernelModuleSpecs
    """
    assert_holds(judgement)


@clause("TALOS-MODULE-002")
def test_modules_are_live(judgement):
    """The modules nvidia and nvidia_uvm MUST be live.

    Preconditions: they are configured, built for this release, and the guest sees the card
    Expected: both are loaded and live
    """
    assert_holds(judgement)


@clause("TALOS-MODULE-003")
def test_every_declared_module_is_live(judgement):
    """Every module that lab.yaml declares MUST be configured and live.

    Preconditions: nvidia and nvidia_uvm are live
    Expected: nvidia_drm and nvidia_modeset too, where they are declared
    """
    assert_holds(judgement)


@clause("TALOS-DEVICE-001")
def test_driver_holds_the_card(judgement):
    """The nvidia driver MUST hold the card.

    Preconditions: the modules are live
    Expected: the card's address is linked in /sys/bus/pci/drivers/nvidia
    """
    assert_holds(judgement)


@clause("TALOS-DEVICE-002")
def test_device_nodes_exist(judgement):
    """The device nodes of CUDA and NVENC MUST exist.

    Preconditions: the driver holds the card
    Expected: one /dev/nvidiaN for each card, /dev/nvidiactl, /dev/nvidia-uvm and /dev/nvidia-uvm-tools
    """
    assert_holds(judgement)


@clause("TALOS-DEVICE-003")
def test_drm_nodes_exist(judgement):
    """The card MUST have its DRM and modeset nodes where their modules are declared.

    Preconditions: nvidia_drm and nvidia_modeset are live
    Expected: a /dev/dri/renderD* for each card, and /dev/nvidia-modeset
    """
    assert_holds(judgement)
