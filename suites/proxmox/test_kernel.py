"""The kernel: its version, its console, its log."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-CONSOLE-001")
def test_console_is_elsewhere(judgement):
    """The host's boot console MUST NOT lie in the memory of the GPU.

    Preconditions: the GPU is on the bus; root where it is the boot VGA device
    Expected: no boot framebuffer inside its BARs; boot_vga=1 alone is no fault
    """
    assert_holds(judgement)


@clause("HOST-KERNEL-001")
def test_kernel_suits_the_gpu(judgement):
    """The running kernel MUST NOT be a build with a regression that breaks this kind of card.

    Preconditions: the GPU is on the bus
    Expected: the build is not in the table of known regressions for it
    """
    assert_holds(judgement)


@clause("HOST-KERNEL-002")
def test_kernel_is_not_listed(judgement):
    """The running kernel MUST NOT be a build with any known passthrough regression, even one that spares these cards.

    Preconditions: SSH access to the host
    Expected: the build is not in the table at all
    """
    assert_holds(judgement)


@clause("HOST-KERNEL-003")
def test_pinned_kernel_runs(judgement):
    """The kernel that is pinned MUST be the one that runs.

    Preconditions: a pin by proxmox-boot-tool; without one it passes
    Expected: uname -r is the pinned version where that is installed
    """
    assert_holds(judgement)


@clause("HOST-JOURNAL-001")
def test_log_is_clean(judgement):
    """The kernel log of this boot MUST have no complaint about the GPU.

    Preconditions: SSH access that may read the kernel log
    Expected: no line about its BARs, resets, power state, DMA faults or fatal errors
    """
    assert_holds(judgement)
